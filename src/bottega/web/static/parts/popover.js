// What opens over the page: small panels tied to a button, and dialogs; both close with Esc and give the focus back.

import { fresh, h, paint, put } from "../dom.js";
import { t } from "../words.js";
import { icon } from "./icons.js";

/**
 * Ties a panel to a button. `build(panel, close)` fills the panel each time that it opens. `side` is the edge of the
 * button that it lines up with, "start" or "end". Returns `{open, close, panel}`.
 */
export function popover(button, build, { side = "start", label = "", className = "" } = {}) {
  const id = fresh("panel");
  const panel = h("div", { class: ["popover", className], id, role: "dialog", aria: { label: label || button.textContent }, popover: "auto" });
  button.setAttribute("aria-haspopup", "dialog");
  button.setAttribute("aria-expanded", "false");

  const place = () => {
    const at = button.getBoundingClientRect();
    const own = panel.getBoundingClientRect();
    const room = 8;
    const left = side === "end" ? at.right - own.width : at.left;
    const below = at.bottom + 4;
    const above = at.top - 4 - own.height;
    const top = below + own.height <= innerHeight - room || above < room ? Math.min(below, Math.max(room, innerHeight - room - own.height)) : above;
    paint(panel, { left: `${Math.max(room, Math.min(left, innerWidth - room - own.width))}px`, top: `${top}px` });
  };
  const open = () => {
    if (panel.matches(":popover-open")) return;
    if (!panel.isConnected) button.after(panel);
    panel.replaceChildren();
    build(panel, close);
    panel.showPopover();
    place();
    (panel.querySelector("[autofocus]") || panel.querySelector("input, button, a, [tabindex]"))?.focus();
  };
  const close = () => {
    if (panel.matches(":popover-open")) panel.hidePopover();
  };
  button.addEventListener("click", () => (panel.matches(":popover-open") ? close() : open()));
  panel.addEventListener("toggle", (event) => {
    const opened = event.newState === "open";
    button.setAttribute("aria-expanded", String(opened));
    if (opened) addEventListener("resize", place);
    else {
      removeEventListener("resize", place);
      if (!document.activeElement || document.activeElement === document.body || panel.contains(document.activeElement)) button.focus();
    }
  });
  return { open, close, panel, place };
}

/** A menu in a panel: `entries` are `{text, icon?, note?, key?, checked?, run}` or "-" for a line. */
export function menu(button, entries, options = {}) {
  return popover(button, (panel, close) => {
    panel.classList.add("menu");
    panel.setAttribute("role", "menu");
    for (const entry of typeof entries === "function" ? entries() : entries) {
      if (entry === "-") { panel.append(h("hr")); continue; }
      if (entry.title) { panel.append(h("p", { class: "menu-title", text: entry.title })); continue; }
      const one = entry.checked !== undefined;
      put(panel, h("button", {
        type: "button", class: "menu-item", role: one ? "menuitemradio" : "menuitem", tabindex: "-1",
        aria: one ? { checked: entry.checked } : {},
        on: { click: () => { close(); entry.run(); } },
      }, one ? h("span", { class: "tick" }, entry.checked && icon("check")) : entry.icon && icon(entry.icon),
      h("span", { class: "grow", text: entry.text }), entry.note && h("span", { class: "soft number", text: entry.note }), entry.key && h("kbd", { text: entry.key })));
    }
    panel.onkeydown = (event) => {
      const items = [...panel.querySelectorAll(".menu-item")];
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const at = items.indexOf(document.activeElement);
      if (step) items[(at + step + items.length) % items.length]?.focus();
      else if (event.key === "Home") items[0]?.focus();
      else if (event.key === "End") items.at(-1)?.focus();
      else return;
      event.preventDefault();
    };
    panel.querySelector(".menu-item")?.setAttribute("autofocus", "");
  }, options);
}

/** Shows a dialog in the middle of the page; `build(body, close)` fills it. Returns a promise of what `close` was given. */
export function dialog(title, build, { className = "" } = {}) {
  return new Promise((resolve) => {
    const heading = fresh("title");
    const body = h("div", { class: "dialog-body" });
    const box = h("dialog", { class: ["dialog", className], aria: { labelledby: heading } },
      h("header", { class: "dialog-head" }, h("h2", { id: heading, text: title }),
        h("button", { type: "button", class: "quiet square", aria: { label: t("frame.close") }, on: { click: () => close() } }, icon("close"))),
      body);
    let answer;
    const close = (given) => { answer = given; box.close(); };
    box.addEventListener("close", () => { box.remove(); resolve(answer); });
    // A press beside the dialog closes it; one that only ends there has marked a text.
    let beside = false;
    box.addEventListener("pointerdown", (event) => { beside = event.target === box; });
    box.addEventListener("click", (event) => { if (beside && event.target === box) close(); });
    document.body.append(box);
    build(body, close);
    box.showModal();
  });
}

/** Asks before something that can't be undone; a promise of whether it shall be done. `act` is what the button says. */
export async function sure(act, text) {
  return Boolean(await dialog(act, (body, close) => put(body, h("div", { class: "form" }, h("p", { class: "prose", text }),
    h("div", { class: "form-acts" }, h("button", { type: "button", class: "quiet", autofocus: true, text: t("frame.close"), on: { click: () => close(false) } }),
      h("button", { type: "button", class: "main", text: act, on: { click: () => close(true) } })))), { className: "small" }));
}
