// The picture to start from: chosen, dropped or pasted, how much of it is made anew, and the mask painted on it.

import { fill, h, put } from "../../dom.js";
import { addWords, inLine, number, t } from "../../words.js";
import { complain, control, fold } from "../controls.js";
import { icon } from "../icons.js";
import { dialog } from "../popover.js";

addWords({
  en: {
    "start.title": "Start from a picture", "start.none": "none", "start.choose": "Choose a picture", "start.hint": "or drop or paste one anywhere",
    "start.strength": "Strength", "start.strength.help": "how much of the picture is made anew, from 0 to 1", "start.mask": "Paint a mask", "start.mask.edit": "Change the mask", "start.mask.remove": "Remove the mask",
    "start.remove": "Remove", "start.line": "strength {strength}", "start.line.mask": "masked · strength {strength}", "start.loading": "Taking it in …", "start.alt": "The picture to start from",
    "start.drop": "Drop it to start from it, or to use its recipe", "start.kind": "This is no picture that can be read: PNG, JPEG or WebP are", "start.one": "One picture at a time: only {name} was taken, of {count}",
    "start.offer": "This picture carries its recipe", "start.offer.recipe": "Use its recipe", "start.offer.words": "This picture says what it shows", "start.offer.refused": "Only its words can be taken: {why}", "start.offer.take": "Use its words", "start.offer.picture": "Start from it", "start.idle": "This model starts from no picture",
  },
  zh: {
    "start.title": "从图片开始", "start.none": "无", "start.choose": "选择图片", "start.hint": "也可拖放或粘贴到任意位置",
    "start.strength": "强度", "start.strength.help": "重新生成的比例，0 到 1", "start.mask": "涂抹蒙版", "start.mask.edit": "修改蒙版", "start.mask.remove": "移除蒙版",
    "start.remove": "移除", "start.line": "强度 {strength}", "start.line.mask": "有蒙版 · 强度 {strength}", "start.loading": "正在读取……", "start.alt": "起始图片",
    "start.drop": "松开以从它开始，或使用它的配方", "start.kind": "无法读取这张图片：支持 PNG、JPEG 和 WebP", "start.one": "一次只能用一张图片：共 {count} 张，只采用了 {name}",
    "start.offer": "这张图片带有配方", "start.offer.recipe": "使用它的配方", "start.offer.words": "这张图片带有提示词", "start.offer.refused": "只能采用它的提示词：{why}", "start.offer.take": "使用它的提示词", "start.offer.picture": "从它开始", "start.idle": "这个模型不能从图片开始",
  },
});

const USUAL = 0.75; // strength
const TYPES = ["image/png", "image/jpeg", "image/webp"];

/** The fold for it. `take(blob)` hears a chosen file, `paint()` the wish for a mask, `changed()` every change. */
export class Start {
  constructor({ store, take, paint, changed }) {
    Object.assign(this, { take, paint, changed });
    this.fold = fold(t("start.title"), { open: store.get("open.start", false), toggled: (open) => store.set("open.start", open) });
    this.element = this.fold.element;
    this.wrongPlace = h("p", { class: "wrong", hidden: true });
    this.input = h("input", { type: "file", accept: TYPES.join(","), class: "unseen", tabindex: "-1", aria: { label: t("start.choose") }, on: { change: () => { if (this.input.files[0]) this.take(this.input.files[0]); this.input.value = ""; } } });
    this.body = h("div", { class: "start" });
    put(this.fold.body, [this.body, this.wrongPlace, this.input]);
    this.strength = control({ name: "strength", type: "float", default: USUAL, help: t("start.strength.help"), low: 0, high: 1, choices: [] },
      (value) => { this.draft.strength = value; this.line(); this.changed(); }, { label: t("start.strength") });
  }

  /** Shows what the draft says. */
  draw(draft, { able = true } = {}) {
    Object.assign(this, { draft, able });
    const { init, mask } = draft;
    if (!init) {
      fill(this.body, h("button", { type: "button", class: "start-choose", on: { click: () => this.input.click() } }, icon("picture"),
        h("span", {}, t("start.choose")), h("span", { class: "soft" }, t("start.hint"))));
    } else {
      this.strength.set(draft.strength);
      const button = (text, name, run) => h("button", { type: "button", class: "quiet", on: { click: run } }, icon(name, 14), h("span", { text: t(text) }));
      fill(this.body, h("div", { class: "start-given" },
        h("div", { class: "start-picture" }, h("img", { src: `/api/inputs/${init.sha256}`, alt: t("start.alt") }), mask && h("img", { class: "start-mask", src: `/api/inputs/${mask.sha256}`, alt: "" })),
        h("div", { class: "start-acts" },
          button(mask ? "start.mask.edit" : "start.mask", "brush", () => this.paint()),
          mask && button("start.mask.remove", "eraser", () => { draft.mask = null; this.draw(draft); this.changed(); this.focus(); }),
          button("start.remove", "close", () => { draft.init = draft.mask = draft.strength = null; this.draw(draft); this.changed(); this.focus(); }))),
      this.strength.element);
    }
    this.line();
  }

  line() {
    const { init, mask, strength } = this.draft;
    if (!this.able && init) return this.fold.line(t("start.idle"));
    this.fold.line(init ? t(mask ? "start.line.mask" : "start.line", { strength: number(strength ?? USUAL, 2) }) : t("start.none"));
  }

  busy() { fill(this.body, h("p", { class: "small soft", role: "status", text: t("start.loading") })); this.fold.open = true; }

  wrong(text) {
    complain(this.input, this.wrongPlace, text);
    if (text) this.fold.open = true;
  }

  focus() { this.body.querySelector("button")?.focus(); }
}

/** Asks what to do with a picture that carries a recipe, of which only the words can be taken if it was `refused`: "recipe", "words", "picture", or nothing. */
export function offer(recipe, source, refused) {
  const [title, take, wish] = refused ? ["start.offer.words", "start.offer.take", "words"] : ["start.offer", "start.offer.recipe", "recipe"];
  return dialog(t(title), (body, close) => {
    put(body, h("div", { class: "offer" },
      h("img", { src: source, alt: recipe.prompt || "" }),
      h("div", { class: "offer-words" }, h("p", { class: "offer-prompt", text: recipe.prompt || "" }),
        h("p", { class: "small soft", text: [recipe.model && inLine(recipe.model.name), recipe.size && `${recipe.size.width} × ${recipe.size.height}`, recipe.sampling?.sampler, recipe.sampling?.seed !== undefined && recipe.sampling?.seed !== null && `${t("make.seed")} ${recipe.sampling.seed}`].filter(Boolean).join(" · ") }),
        refused && h("p", { class: "small", text: t("start.offer.refused", { why: refused }) }),
        h("div", { class: "row offer-acts" },
          h("button", { type: "button", class: "main", autofocus: true, text: t(take), on: { click: () => close(wish) } }),
          h("button", { type: "button", text: t("start.offer.picture"), on: { click: () => close("picture") } })))));
  });
}

/** Hears pictures that are dropped on an element or pasted anywhere; `take({blob, count} | {output})` hears the first of them. Returns what ends it. */
export function catchPictures(element, take, refuse) {
  const ended = new AbortController();
  const { signal } = ended;
  const veil = h("div", { class: "veil", data: { needs: "generate" }, hidden: true }, h("p", { text: t("start.drop") }));
  element.append(veil);
  let depth = 0;
  const carries = (data) => [...data.types].some((type) => type === "Files" || type === "text/uri-list");
  const show = (shown) => { veil.hidden = !shown; if (!shown) depth = 0; };
  const given = (data) => {
    const files = [...data.files];
    const pictures = files.filter((file) => TYPES.includes(file.type));
    if (pictures.length) return take({ blob: pictures[0], count: pictures.length });
    const output = /\/api\/outputs\/([^/?#]+)\//.exec(data.getData("text/uri-list"));
    if (output && data.getData("text/uri-list").startsWith(location.origin)) return take({ output: output[1] });
    if (files.length) refuse(t("start.kind"));
  };
  element.addEventListener("dragenter", (event) => { if (carries(event.dataTransfer)) { depth += 1; show(true); event.preventDefault(); } }, { signal });
  element.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) show(false); }, { signal });
  element.addEventListener("dragover", (event) => { if (carries(event.dataTransfer)) event.preventDefault(); }, { signal });
  element.addEventListener("drop", (event) => { event.preventDefault(); show(false); given(event.dataTransfer); }, { signal });
  document.addEventListener("paste", (event) => {
    const { clipboardData } = event;
    if (!clipboardData?.files.length || (event.target.closest?.("textarea, input") && clipboardData.types.includes("text/plain"))) return;
    event.preventDefault();
    given(clipboardData);
  }, { signal });
  return () => { ended.abort(); veil.remove(); };
}
