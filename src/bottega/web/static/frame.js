// The frame around the rooms: the bar, the way from room to room, and what every room is given.

import { api, ApiError, watchAnswers } from "./api.js";
import { fill, h, plainly } from "./dom.js";
import { Stream } from "./events.js";
import { parse, write } from "./exact.js";
import { icon } from "./parts/icons.js";
import { Jobs } from "./parts/jobs.js";
import { Outputs } from "./parts/outputs.js";
import { dialog, menu } from "./parts/popover.js";
import { toast } from "./parts/toast.js";
import { rooms } from "./rooms.js";
import { addWords, language, LANGUAGES, t } from "./words.js";

/** What is asked for first: the shell, which reads this, asks for it before this module is there. */
export const early = ["/api/me", "/api/jobs?state=waiting&state=paused&state=running&limit=200"];

const told = (name) => document.querySelector(`meta[name="bottega-${name}"]`).content;
const place = document.getElementById("room");
const root = document.documentElement;

const kept = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value); } catch { /* full, or forbidden: nothing is kept then */ } },
};

/** What a room keeps in this browser: JSON values under its own names. */
function storeOf(room) {
  const name = (key) => `bottega.${room}.${key}`;
  return {
    get(key, fallback = null) {
      const text = kept.get(name(key));
      if (text === null) return fallback;
      try { return parse(text); } catch { return fallback; }
    },
    set(key, value) { kept.set(name(key), value === undefined || value === null ? null : write(value)); },
  };
}

/** Forgets what rooms keep in this browser: somebody else may sit at it. Theme and language stay. */
function forget() {
  const plain = ["bottega.theme", "bottega.language"];
  try {
    for (const name of Object.keys(localStorage)) if (name.startsWith("bottega.") && !plain.includes(name)) localStorage.removeItem(name);
  } catch { /* forbidden: nothing was kept then */ }
}

/** Says something to those who hear the page. */
function say(text) {
  const said = document.getElementById("said");
  if (said.textContent !== text) said.textContent = text;
}

/** Copies a text and says so. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS, browsers on other machines have no clipboard to write to but that of a selected field.
    const field = h("textarea", { class: "unseen", value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  toast({ text: t("frame.copied") });
}

// ----------------------------------------------------------------------------------------------------------- rights

const SCOPES = ["generate", "manage"]; // what elements name as what they need; the room System asks for `admin` by itself

/** Whether whoever looks may do what needs this scope, or one of several; everything, until it is known who that is. */
const may = (scope) => !shared.me || shared.me.scopes.includes("admin") || scope.split(" ").some((one) => shared.me.scopes.includes(one));

/** Takes in who looks, and answers with them; the styles hide what they lack the right to. */
async function meet() {
  try { shared.me = await api.get("/api/me"); } catch { return null; } // then the server says what may not be
  root.dataset.lacks = SCOPES.filter((scope) => !may(scope)).join(" ");
  return shared.me;
}

// ------------------------------------------------------------------------------------------------------------- keys

const keySets = [];
const typing = (target) => target.closest?.("input:not([type=range], [type=checkbox], [type=radio]), textarea, select, [contenteditable]");

function pressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key.toLowerCase().replace("escape", "esc").replace("arrow", "");
  return [(event.ctrlKey || event.metaKey) && "ctrl", event.altKey && "alt", event.shiftKey && event.key.length > 1 && "shift", key].filter(Boolean).join("+");
}

/**
 * Adds keys for as long as a room is open: `{"ctrl+enter": {text, run, always?, needs?}}`. `run` may answer false to let
 * the key through; those without `always` are not heard while somebody types, and those that need a scope only where
 * whoever looks has it. Returns what takes them away again.
 */
function keys(entries) {
  keySets.push(entries);
  return () => {
    const at = keySets.indexOf(entries);
    if (at >= 0) keySets.splice(at, 1);
  };
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  const name = pressed(event);
  for (const entries of [...keySets].reverse()) {
    const entry = entries[name];
    if (!entry || lacked(entry) || (typing(event.target) && !entry.always)) continue;
    if (entry.run(event) === false) continue;
    event.preventDefault();
    return;
  }
});

/** Whether a key is for something that whoever looks may not do. */
const lacked = ({ needs }) => Boolean(needs) && !may(needs);

const shown = (name) => name.split(/(?<=.)\+(?=.)/).map((part) => ({
  ctrl: /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl", alt: "Alt", shift: "Shift", esc: "Esc", enter: "Enter",
  left: "←", right: "→", up: "↑", down: "↓", delete: "Del", " ": "Space",
}[part] || part.toUpperCase()));

function showKeys() {
  dialog(t("frame.keys.title"), (body) => {
    const list = h("dl", { class: "keys" });
    for (const entries of [...keySets].reverse()) {
      for (const [name, entry] of Object.entries(entries)) {
        if (!entry.text || lacked(entry)) continue;
        list.append(h("dt", {}, shown(name).map((part) => h("kbd", { text: part }))), h("dd", { text: entry.text }));
      }
    }
    body.append(list);
  }, { className: "small" });
}

// ------------------------------------------------------------------------------------------------------------ rooms

const sorted = rooms.toSorted((one, other) => one.order - other.order);
const names = sorted.map((room) => room.id);
const first = names.includes("make") ? "make" : names[0];
for (const room of rooms) addWords(room.words);
let current = null;
let currentId = null;
let ticket = 0;
let opening = false;

/** The room in the address; null where the address is none of the page's. */
const wanted = () => {
  const name = location.pathname.slice(1) || first;
  return names.includes(name) ? name : null;
};
const stateOf = (search) => Object.fromEntries(new URLSearchParams(search));
const addressOf = (room, state = {}) => api.address(room === first ? "/" : `/${room}`, state);

let returning = null;

/** Goes to a room; `state` (plain texts) stands in the address, so that it can be kept and sent. */
function go(room, state = {}, { replace = false } = {}) {
  if (returning) return returning.then(() => go(room, state, { replace }));
  const here = location.pathname + location.search;
  const to = addressOf(room, state);
  if (to !== here && replace) history.replaceState(history.state, "", to);
  else if (to !== here) history.pushState({ from: here }, "", to);
  const shown = show();
  if (replace && to !== here && to === history.state?.from) goBack();
  return shown;
}

/** Goes to the entry before this one, which shows the same: else it would stand in the browser's history twice. */
function goBack() {
  returning = new Promise((resolve) => addEventListener("popstate", resolve, { once: true })).then(() => { returning = null; });
  history.back();
}

async function show() {
  const id = wanted();
  const state = stateOf(location.search);
  if (id === currentId && current?.show) return current.show(state);
  if (id === currentId && opening) return; // a room tidies its address while it opens
  await close();
  const mine = ++ticket;
  if (!id) return fill(place, nowhere());
  currentId = id;
  opening = true;
  document.title = `${t(`room.${id}`)} · Bottega`;
  markRoom();
  place.replaceChildren();
  place.dataset.room = id;
  place.setAttribute("aria-label", t(`room.${id}`));
  const element = h("div", { class: `room-${id}` });
  place.append(element);
  const mounted = [];
  const context = {
    ...shared, state, store: storeOf(id),
    keys: (entries) => { const off = keys(entries); mounted.push(off); return off; },
    listen: (run) => { const off = stream.listen(run); mounted.push(off); return off; },
  };
  try {
    const answer = await sorted.find((room) => room.id === id).mount(element, context);
    const opened = typeof answer === "function" ? { unmount: answer } : answer || {};
    const whole = { ...opened, unmount: () => { for (const off of mounted) off(); opened.unmount?.(); } };
    if (mine === ticket) current = whole;
    else whole.unmount();
  } catch (error) {
    for (const off of mounted) off();
    if (mine !== ticket) return;
    fill(place, trouble(error, () => { currentId = null; show(); })); // not into the room's own element, which is laid out for a room
    if (!(error instanceof ApiError)) throw error;
  } finally {
    if (mine === ticket) opening = false;
  }
}

/** Marks the room that is shown in the bar. */
function markRoom() {
  for (const link of document.querySelectorAll(".rooms a")) {
    if (link.dataset.room === currentId) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function close() {
  const before = current;
  current = null;
  currentId = null;
  await before?.unmount?.();
}

function nowhere() {
  document.title = `${t("frame.nowhere")} · Bottega`;
  return h("section", { class: "trouble" }, h("h1", { text: t("frame.nowhere") }),
    h("p", { class: "soft", text: location.pathname }),
    h("button", { type: "button", class: "main", text: t("frame.nowhere.go", { room: t(`room.${first}`) }), on: { click: () => go(first) } }));
}

/** Puts the cursor into the room's field for searches; a room without one leaves it to the Gallery. */
async function search() {
  if (!current?.search) await go("gallery");
  current?.search?.();
}

function trouble(error, again) {
  return h("section", { class: "trouble", role: "alert" },
    h("h1", { text: t("frame.broken") }), h("p", { text: saying(error) }),
    h("button", { type: "button", class: "main", data: { again: "" }, text: t("frame.broken.again"), on: { click: again } }));
}

/** Tries again what a room says it could not load, as the server answers once more. */
function tryAgain() {
  for (const button of place.querySelectorAll("[data-again]")) button.click();
}

/** An error in words for people. */
function saying(error) {
  const what = typeof error === "string" ? error : error.what || error.message;
  const remedy = typeof error === "string" ? "" : error.remedy;
  if (what === "unreachable") return `${t("frame.unreachable")}; ${t("frame.unreachable.remedy")}`;
  return plainly([what, remedy].filter(Boolean).join("; "));
}

/** Shows what went wrong where nothing on the page is the cause. */
const complain = (error) => toast({ text: saying(error), kind: "error" });

// -------------------------------------------------------------------------------------------------------------- bar

function drawBar() {
  document.querySelector(".skip").textContent = t("frame.skip");
  document.getElementById("toasts").setAttribute("aria-label", t("frame.notices"));
  const nav = document.getElementById("rooms");
  nav.setAttribute("aria-label", t("frame.rooms"));
  fill(nav, names.map((id) => h("a", { href: addressOf(id), data: { room: id } },
    h("span", { text: t(`room.${id}`) }), id === "queue" && h("b", { class: "count", id: "waiting" }))));

  const find = h("button", { type: "button", id: "search", class: "quiet square", title: `${t("frame.search")}  /`, aria: { label: t("frame.search"), keyshortcuts: "/" }, on: { click: search } }, icon("search"));
  const theme = h("button", { type: "button", id: "theme", class: "quiet square", title: t("frame.theme"), aria: { label: t("frame.theme") } }, icon("theme"));
  const more = h("button", { type: "button", class: "quiet square", title: t("frame.more"), aria: { label: t("frame.more") } }, icon("more"));
  fill(document.getElementById("tools"), h("span", { class: "lost", id: "lost", role: "status", hidden: true, text: t("frame.lost") }), find, theme, more);
  const themes = () => ["auto", "light", "dark"].map((name) => ({
    text: t(`frame.theme.${name}`), checked: (root.dataset.theme || "auto") === name, run: () => setTheme(name),
  }));
  menu(theme, themes, { side: "end", label: t("frame.theme") });
  menu(more, () => [
    ...(find.checkVisibility() ? [] : [{ text: t("frame.search"), icon: "search", key: "/", run: search }, "-"]),
    ...(theme.checkVisibility() ? [] : [{ title: t("frame.theme") }, ...themes(), "-"]), // on a phone there is no room for all
    { title: t("frame.language") },
    ...Object.entries(LANGUAGES).map(([name, text]) => ({ text, checked: language() === name, run: () => setLanguage(name) })),
    "-",
    { text: t("frame.keys"), icon: "recipe", key: "?", run: showKeys },
    { text: t("frame.api"), icon: "link", run: () => window.open("/api/openapi.json", "_blank", "noopener") },
    "-",
    { title: `Bottega ${told("version")}${shared.me?.name ? ` · ${shared.me.name}` : ""}` },
  ], { side: "end", label: t("frame.more") });
  drawWaiting();
}

function setTheme(name) {
  kept.set("bottega.theme", name === "auto" ? null : name);
  if (name === "auto") delete root.dataset.theme;
  else root.dataset.theme = name;
}

async function setLanguage(name) {
  kept.set("bottega.language", name);
  root.lang = name === "zh" ? "zh-CN" : "en";
  drawBar();
  await close();
  await show();
}

function drawWaiting() {
  const count = document.getElementById("waiting");
  if (!count) return;
  const waiting = shared.jobs.open().length;
  count.textContent = waiting ? String(waiting) : "";
  count.setAttribute("aria-label", waiting ? t("frame.waiting", { n: waiting }) : "");
}

// A click on a link to a room stays on this page, unless it asks for another tab.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-room]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const to = new URL(link.href);
  go(link.dataset.room, stateOf(to.search));
  place.focus({ preventScroll: true });
});
// A file that is dropped where nobody takes it would be opened in the page's place.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  });
}
addEventListener("popstate", show);

// ------------------------------------------------------------------------------------------------------------ start

const stream = new Stream("/api/events");
const shared = { api, events: stream, t, say, copy, toast, complain, saying, go, language, storeOf, leave, may, me: null, jobs: new Jobs(api, stream), outputs: new Outputs(api) };

function setLost(lost) {
  const sign = document.getElementById("lost");
  if (sign) sign.hidden = !lost;
}

let left = false;

/** Who looked has signed out, and reads this; what was asked for a moment before is refused by now, and no news. */
function leave(words) {
  left = true;
  forget();
  stream.close();
  fill(place, h("section", { class: "trouble" }, h("p", { text: words })));
}

function lockedOut() {
  if (left) return;
  fill(place, h("section", { class: "trouble" }, h("h1", { text: t("frame.locked") }), h("p", { text: t("frame.locked.what") }),
    h("button", { type: "button", class: "main", text: t("frame.locked.key"), on: { click: () => location.reload() } })));
}

shared.jobs.watch(drawWaiting);
stream.onState((state) => {
  setLost(state === "lost");
  if (state === "open") tryAgain();
});
watchAnswers((status) => {
  if (status === 401) lockedOut();
  if (status === 0) stream.doubt();
});
shared.met = meet(); // when it is known who looks
keys(Object.fromEntries([["/", { text: t("frame.search"), run: search }], ["?", { text: t("frame.keys.help"), run: showKeys }],
  ...names.map((id, index) => [String(index + 1), { text: t("frame.keys.room", { room: t(`room.${id}`) }), run: () => go(id) }])]));
drawBar();
show();
