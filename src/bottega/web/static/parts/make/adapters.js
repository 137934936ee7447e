// The adapters of a draft: a row with a weight for each, what the words of the prompt bring along, and a picker of what fits.

import { fill, fresh, h, paint, put } from "../../dom.js";
import { addWords, number, t } from "../../words.js";
import { complain, control } from "../controls.js";
import { icon } from "../icons.js";
import { familyText, kindText } from "../models.js";
import { cards, likeness } from "../picker.js";
import { menu, popover } from "../popover.js";

addWords({
  en: {
    "adapters.title": "Adapters", "adapters.add": "Adapter", "adapters.add.title": "Add an adapter that fits the model", "adapters.search": "Search what fits {model}", "adapters.none": "Nothing that fits has this name", "adapters.empty": "Nothing of this kind on the shelves fits this model",
    "adapters.all": "All", "adapters.kinds": "Kinds", "adapters.on": "{name}: in use", "adapters.weight": "Weight of {name}", "adapters.weight.title": "Weight: drag, type, or press ↑ and ↓", "adapters.more": "{name}: settings", "adapters.remove": "Remove {name}", "adapters.removed": "{name} removed",
    "adapters.words": "Trigger words", "adapters.words.put": "Put “{words}” into the prompt", "adapters.words.all": "Put all into the prompt", "adapters.words.there": "In the prompt",
    "adapters.apart": "UNet and text encoder apart", "adapters.unet": "UNet", "adapters.text": "Text encoder", "adapters.start": "Works from", "adapters.start.help": "the part of the steps after which it begins, 0 to 1", "adapters.end": "Works until", "adapters.end.help": "the part of the steps after which it ends, 0 to 1", "adapters.library": "Show in the Library",
    "adapters.unknown": "not on the shelf under this name",
    "adapters.also": "Also at work", "adapters.by.word": "its word is in the prompt", "adapters.by.tag": "its tag is in the prompt", "adapters.by.place": "found beside the model",
    "adapters.word.prompt": "Move to the prompt", "adapters.word.negative": "Move to the negative prompt", "adapters.word.out": "Take its word out", "adapters.tag.row": "Make it a row here", "adapters.tag.out": "Take it out of the prompt", "adapters.vae.own": "Use the model's own VAE",
    "adapters.said.prompt": "{name} is in the prompt", "adapters.said.negative": "{name} is in the negative prompt",
    "adapters.aside": "weight {weight}", "adapters.vae": "VAE", "adapters.vae.automatic": "Automatic", "adapters.vae.none": "The model's own", "adapters.vae.help": "what makes pictures of latents; automatic takes the one beside the model, as A1111 does",
  },
  zh: {
    "adapters.title": "附加模型", "adapters.add": "附加模型", "adapters.add.title": "添加适合当前模型的附加模型", "adapters.search": "搜索适合 {model} 的", "adapters.none": "没有叫这个名字的适用项", "adapters.empty": "书架上没有适合此模型的这类文件",
    "adapters.all": "全部", "adapters.kinds": "类型", "adapters.on": "{name}：启用", "adapters.weight": "{name} 的权重", "adapters.weight.title": "权重：拖动、输入，或按 ↑ ↓", "adapters.more": "{name}：设置", "adapters.remove": "移除 {name}", "adapters.removed": "已移除 {name}",
    "adapters.words": "触发词", "adapters.words.put": "把“{words}”放进提示词", "adapters.words.all": "全部放进提示词", "adapters.words.there": "已在提示词中",
    "adapters.apart": "UNet 与文本编码器分开", "adapters.unet": "UNet", "adapters.text": "文本编码器", "adapters.start": "开始", "adapters.start.help": "从总步数的哪一比例起生效，0 到 1", "adapters.end": "结束", "adapters.end.help": "到总步数的哪一比例为止，0 到 1", "adapters.library": "在模型库中显示",
    "adapters.unknown": "书架上没有这个名字",
    "adapters.also": "同时起作用", "adapters.by.word": "它的词在提示词里", "adapters.by.tag": "它的标签在提示词里", "adapters.by.place": "在模型旁边找到",
    "adapters.word.prompt": "移到提示词", "adapters.word.negative": "移到负面提示词", "adapters.word.out": "去掉它的词", "adapters.tag.row": "改为单独一行", "adapters.tag.out": "从提示词中去掉", "adapters.vae.own": "使用模型自带的 VAE",
    "adapters.said.prompt": "{name} 已在提示词中", "adapters.said.negative": "{name} 已在负面提示词中",
    "adapters.aside": "权重 {weight}", "adapters.vae": "VAE", "adapters.vae.automatic": "自动", "adapters.vae.none": "模型自带", "adapters.vae.help": "把潜变量变成图片；自动时与 A1111 一样，取模型旁边的那个",
  },
});

const KINDS = ["lora", "embedding", "hypernetwork", "vae"]; // those that can be attached
const STEP = 0.05;
const LEAP = 10; // steps at once with Shift
const PER_STEP = 6; // px of a drag
const DRAGGED = 4; // px from which on a press is a drag
const MOST = 100;
const NEGATIVE = /negativ|(^|[^a-z])(bad|neg|worst)/i; // how those are called that are for the negative prompt

/** What a draft keeps of an adapter's card; with its suggested weight. */
export const adopted = ({ id, name, kind, family, preview, triggers, weight, sha256 }) =>
  ({ id, name, kind, family, preview, triggers: triggers ?? [], weight: weight ?? 1, sha256: sha256 ?? null });

/** A use of a recipe as a draft keeps it, with its card where it is on the shelf. */
export const usedIn = (use, card) => ({
  ...(card ? adopted(card) : { id: null, kind: use.kind, triggers: [] }), name: card?.name ?? use.ref.name, sha256: use.ref.sha256 ?? null,
  weight: use.weight ?? 1, unet: use.unet ?? null, text_encoder: use.text_encoder ?? null, blocks: use.blocks ?? {}, start: use.start ?? 0, end: use.end ?? 1,
});

const refOf = (one) => (one.id ? { id: one.id } : { name: one.name, ...(one.sha256 ? { sha256: one.sha256 } : {}) });

/** The rows of a draft that are in use, and its VAE, as a recipe names them. */
export function usesOf(draft) {
  const uses = inUse(draft).map((one) => ({
    kind: one.kind, ref: refOf(one), weight: one.weight,
    ...(one.unet ?? null) !== null ? { unet: one.unet } : {}, ...(one.text_encoder ?? null) !== null ? { text_encoder: one.text_encoder } : {},
    ...Object.keys(one.blocks ?? {}).length ? { blocks: one.blocks } : {}, ...one.start ? { start: one.start } : {}, ...(one.end ?? 1) !== 1 ? { end: one.end } : {},
  }));
  return draft.vae ? [...uses, { kind: "vae", ref: refOf(draft.vae) }] : uses;
}

const inUse = (draft) => draft.adapters.filter((one) => !one.off && (one.kind !== "embedding" || says(draft.prompt, one.name) || says(draft.negative, one.name)));

/** The uses that have no row, and are no VAE that was chosen. */
function besides(draft, used, uses) {
  const rows = [...used];
  return uses.filter((use) => {
    const at = rows.findIndex((one) => one.kind === use.kind && (one.name === use.ref.name || one.sha256 === use.ref.sha256));
    if (at >= 0) rows.splice(at, 1);
    return at < 0 && !(use.kind === "vae" && draft.vae);
  });
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const wordOf = (words) => new RegExp(`(?<![\\p{L}\\p{N}_])${escaped(words)}(?![\\p{L}\\p{N}_])`, "iu");

/** Whether a text has these words in it. */
export const says = (text, words) => wordOf(words).test(text);

/** A text without these words, nor the comma that went with them. */
export const without = (text, words) => text.replace(new RegExp(`(?:,\\s*|\\s+)?${wordOf(words).source}|^${escaped(words)},?\\s*`, "iu"), "").replace(/^[,\s]+/, "");

export class Adapters {
  /**
   * `find(kind, text, limit)` asks for what fits the model; `changed()` hears of every change, `insert(words,
   * negative)` and `drop(words, negative)` edit the prompts, `vae(model)` hears the choice of one, `show(id)` opens the
   * Library, `toast` is the page's.
   */
  constructor(does) {
    Object.assign(this, does, { problems: new Map(), also: [], kind: "" });
    this.list = h("ul", { class: "adapters", aria: { label: t("adapters.title") } });
    this.alsoPlace = h("div", { class: "adapters-also", hidden: true });
    this.add = h("button", { type: "button", class: "quiet adapters-add", title: t("adapters.add.title"), aria: { label: t("adapters.add.title") } }, icon("plus", 14), h("span", { text: t("adapters.add") }));
    this.panel = popover(this.add, (place, close) => this._fillPanel(place, close), { label: t("adapters.add.title"), className: "picker-panel" });
    this.element = h("div", { class: "field adapters-field" }, h("div", { class: "row adapters-head" }, h("span", { class: "label grow", text: t("adapters.title") }), this.add), this.list, this.alsoPlace);
  }

  /** Shows the adapters of a draft. */
  draw(draft) {
    this.draft = draft;
    this.rows = draft.adapters.map((one) => this._row(one));
    fill(this.list, this.rows.map((row) => row.element));
    this.list.hidden = !this.rows.length;
    this._tell();
  }

  /** A word of the prompts is different: so may be what can be put there. */
  prompted() { for (const row of this.rows ?? []) row.prompted(); }

  /** Says what is wrong with the uses of a recipe, by their places; `uses` are all that it got, null if nobody knows. */
  told(problems, uses) {
    const used = inUse(this.draft);
    this.problems = new Map([...problems].map(([index, text]) => [used[index], text]).filter(([one]) => one));
    if (uses) this.also = besides(this.draft, used, uses);
    this._tell();
  }

  /** The field of a use by its place, for what the server says of it. */
  field(index) {
    const one = inUse(this.draft)[index];
    const row = this.rows?.find((each) => each.one === one);
    return row && { wrong: (text) => row.wrong(text), focus: () => row.focus() };
  }

  /** Puts an adapter among the rows, or, where it has no weight, its word into the prompt or itself among the settings. */
  take(card) {
    if (card.kind === "vae") return this.vae(card);
    if (card.kind === "embedding") {
      const negative = NEGATIVE.test(card.name);
      if (!says(negative ? this.draft.negative : this.draft.prompt, card.name)) this.insert(card.name, negative);
      return this.toast({
        text: t(negative ? "adapters.said.negative" : "adapters.said.prompt", { name: card.name }),
        action: { text: t(negative ? "adapters.word.prompt" : "adapters.word.negative"), run: () => this.move(card.name, !negative) },
      });
    }
    let one = this.draft.adapters.find((other) => other.id === card.id);
    if (one) one.off = false;
    else this.draft.adapters.push(one = adopted(card));
    this.draw(this.draft);
    this.changed();
    this.rows.find((row) => row.one === one).focus();
  }

  /** Moves the word of an embedding from one prompt to the other. */
  move(word, negative) {
    this.drop(word, !negative);
    if (!says(negative ? this.draft.negative : this.draft.prompt, word)) this.insert(word, negative);
  }

  // ------------------------------------------------------------------------------------------------------------ parts

  _row(one) {
    const id = fresh("adapter");
    const wrong = h("p", { class: "wrong", id, hidden: true });
    const on = h("input", { type: "checkbox", role: "switch", class: "switch", checked: !one.off, aria: { label: t("adapters.on", { name: one.name }) }, on: { change: () => { one.off = !on.checked; draw(); this.changed(); } } });
    const weight = h("input", { type: "number", class: "number adapter-weight", step: "any", min: -MOST, max: MOST, inputmode: "decimal", title: t("adapters.weight.title"), aria: { label: t("adapters.weight", { name: one.name }), describedby: id } });
    const set = (value) => {
      one.weight = Math.max(-MOST, Math.min(MOST, Math.round(value * 1000) / 1000));
      this._right(one);
      draw(document.activeElement === weight && Number(weight.value) === one.weight);
      this.changed();
    };
    slide(weight, () => one.weight, set);
    const under = h("span", { class: "cut small soft" });
    const name = h("button", { type: "button", class: "adapter-name", aria: { label: t("adapters.more", { name: one.name }) } },
      likeness(one), h("span", { class: "picker-words grow" }, h("span", { class: "cut", text: one.name, title: one.name }), under), icon("chevron", 12));
    const words = h("button", { type: "button", class: "link adapter-words", on: { click: () => { this.insert(one.triggers.filter((word) => !says(this.draft.prompt, word)).join(", "), false); prompted(); } } });
    const close = h("button", { type: "button", class: "quiet square adapter-close", title: t("adapters.remove", { name: one.name }), aria: { label: t("adapters.remove", { name: one.name }) }, on: { click: () => this._remove(one) } }, icon("close", 14));
    const bare = one.kind === "embedding";
    const element = h("li", { class: "adapter", data: { name: one.name } }, on, name, bare ? h("span") : weight, close, words, wrong);
    popover(name, (place) => this._fillMore(place, one, () => { draw(); this._right(one); this.changed(); }), { label: t("adapters.more", { name: one.name }), className: "adapter-more" });
    const prompted = () => {
      const left = one.triggers.filter((word) => !says(this.draft.prompt, word));
      words.hidden = !left.length || Boolean(one.off);
      words.textContent = t("adapters.words.put", { words: left.join(", ") });
    };
    const draw = (typing = false) => {
      element.classList.toggle("is-off", Boolean(one.off));
      on.checked = !one.off;
      if (!typing) weight.value = one.weight;
      weight.disabled = apart(one);
      paint(element, { "--weight": `${Math.min(1, Math.abs(one.weight) / 2) * 100}%` });
      under.textContent = [kindText(one.kind), apart(one) && `${t("adapters.unet")} ${number(one.unet ?? one.weight, 2)} · ${t("adapters.text")} ${number(one.text_encoder ?? one.weight, 2)}`, (one.start || (one.end ?? 1) !== 1) && `${number((one.start ?? 0) * 100)}–${number((one.end ?? 1) * 100)} %`].filter(Boolean).join(" · ");
      under.title = under.textContent;
      prompted();
    };
    draw();
    return { one, element, prompted, wrong: (text) => complain(weight, wrong, text), focus: () => (bare || weight.disabled ? name : weight).focus() };
  }

  _remove(one) {
    const { adapters } = this.draft;
    const at = adapters.indexOf(one);
    adapters.splice(at, 1);
    this.problems.delete(one);
    this.draw(this.draft);
    this.changed();
    (this.list.children[Math.min(at, adapters.length - 1)]?.querySelector(".adapter-close") ?? this.add).focus();
    const { draft } = this;
    this.toast({ text: t("adapters.removed", { name: one.name }), undo: () => { if (this.draft !== draft) return; draft.adapters.splice(at, 0, one); this.draw(draft); this.changed(); } });
  }

  /** What more can be said of one. */
  _fillMore(place, one, changed) {
    const words = one.triggers.length > 0 && h("div", { class: "adapter-part" }, h("span", { class: "label", text: t("adapters.words") }),
      h("div", { class: "chips" }, one.triggers.map((word) => {
        const chip = h("button", { type: "button", class: "chip", aria: { pressed: String(says(this.draft.prompt, word)) }, text: word, on: { click: () => {
          if (says(this.draft.prompt, word)) this.drop(word, false);
          else this.insert(word, false);
          chip.focus();
          chip.setAttribute("aria-pressed", String(says(this.draft.prompt, word)));
        } } });
        return chip;
      })));
    const part = (field, label, told) => {
      const drawn = control({ name: field, type: "float", default: 0, help: "", low: -1, high: 2, choices: [], ...told }, (value) => { one[field] = value ?? told?.default ?? 0; changed(); }, { label, resettable: false });
      drawn.set(one[field] ?? told?.default ?? one.weight);
      return drawn.element;
    };
    const parts = h("div", { class: "adapter-part" });
    const drawParts = () => fill(parts, apart(one) && [part("unet", t("adapters.unet")), part("text_encoder", t("adapters.text"))]);
    const split = control({ name: "apart", type: "bool", default: false, help: "", choices: [] }, (value) => {
      Object.assign(one, value ? { unet: one.weight, text_encoder: one.weight } : { unet: null, text_encoder: null });
      drawParts();
      changed();
    }, { label: t("adapters.apart"), resettable: false });
    split.set(apart(one));
    drawParts();
    const steps = (field, usual) => part(field, t(`adapters.${field}`), { low: 0, high: 1, default: usual, help: t(`adapters.${field}.help`) });
    put(place, [
      h("div", { class: "row" }, h("strong", { class: "grow cut", text: one.name, title: one.name }), h("span", { class: "small soft", text: [kindText(one.kind), one.family && familyText(one.family)].filter(Boolean).join(" · ") })),
      words, one.kind === "lora" && [split.element, parts], one.kind !== "embedding" && [steps("start", 0), steps("end", 1)],
      one.id && h("button", { type: "button", class: "link adapter-library", text: t("adapters.library"), on: { click: () => this.show(one.id) } }),
    ]);
  }

  _fillPanel(place, close) {
    const kinds = ["", ...KINDS];
    const tab = (kind) => h("button", { type: "button", class: "tab", aria: { pressed: String(this.kind === kind) }, text: kind ? kindText(kind) : t("adapters.all"), on: { click: (event) => {
      this.kind = kind;
      for (const [index, other] of [...event.currentTarget.parentElement.children].entries()) other.setAttribute("aria-pressed", String(kinds[index] === kind));
      again();
    } } });
    const again = cards(place, {
      find: (text, limit) => this.find(this.kind, text, limit), filled: () => this.panel.place(), chosen: () => null,
      words: (card) => [kindText(card.kind), card.triggers?.join(", ")].filter(Boolean).join(" · "),
      take: (card) => { close(); this.take(card); },
      says: { label: t("adapters.add.title"), search: t("adapters.search", { model: this.draft.model?.name ?? "" }), none: t("adapters.none"), empty: t("adapters.empty") },
      between: h("div", { class: "tabs adapters-tabs", role: "group", aria: { label: t("adapters.kinds") } }, kinds.map(tab)),
    });
  }

  _right(one) {
    this.problems.delete(one);
    this._tell();
  }

  _tell() {
    for (const row of this.rows ?? []) row.wrong(row.one.off ? "" : this.problems.get(row.one) ?? "");
    this.alsoPlace.hidden = !this.also.length;
    fill(this.alsoPlace, this.also.length > 0 && [h("span", { class: "small soft", text: t("adapters.also") }), h("div", { class: "chips" }, this.also.map((use) => this._also(use)))]);
  }

  /** A chip for what a recipe uses without a row. */
  _also(use) {
    const { name } = use.ref;
    const tagged = use.kind === "lora" || use.kind === "hypernetwork";
    const why = t(use.kind === "vae" ? "adapters.by.place" : tagged ? "adapters.by.tag" : "adapters.by.word");
    const chip = h("button", { type: "button", class: "chip also", title: `${kindText(use.kind)}: ${why}`, data: { name } },
      h("span", { class: "soft", text: kindText(use.kind) }), h("span", { text: name }), tagged && h("span", { class: "number soft", text: number(use.weight ?? 1, 2) }), icon("chevron", 12));
    menu(chip, () => {
      if (use.kind === "vae") return [{ title: why }, { text: t("adapters.vae.own"), run: () => this.vae({ name: "none" }) }];
      if (tagged) return [{ title: why }, { text: t("adapters.tag.row"), run: () => this.untag(use, true) }, { text: t("adapters.tag.out"), run: () => this.untag(use, false) }];
      const negative = !says(this.draft.prompt, name);
      return [{ title: why }, { text: t(negative ? "adapters.word.prompt" : "adapters.word.negative"), run: () => this.move(name, !negative) }, { text: t("adapters.word.out"), run: () => { this.drop(name, false); this.drop(name, true); } }];
    }, { label: name });
    return h("span", { class: "also-box" }, chip);
  }
}

const apart = (one) => (one.unet ?? null) !== null || (one.text_encoder ?? null) !== null;

/** Has a number follow the arrow keys and the pointer, which drags it sideways; a press without a drag types. */
function slide(input, now, set) {
  input.addEventListener("input", () => { if (input.value !== "" && !input.validity.badInput) set(Number(input.value)); });
  input.addEventListener("change", () => { if (input.value === "") set(now()); });
  input.addEventListener("keydown", (event) => {
    const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!sign || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    const value = Math.round((now() + sign * STEP * (event.shiftKey ? LEAP : 1)) * 1000) / 1000;
    input.value = value;
    set(value);
  });
  input.addEventListener("pointerdown", (event) => {
    if (event.button || document.activeElement === input) return;
    event.preventDefault();
    const [from, begun] = [event.clientX, now()];
    let dragging = false;
    input.setPointerCapture(event.pointerId);
    const move = (at) => {
      const way = at.clientX - from;
      dragging ||= Math.abs(way) > DRAGGED;
      if (!dragging) return;
      input.value = Math.round((begun + Math.round(way / PER_STEP) * STEP) * 1000) / 1000;
      set(Number(input.value));
    };
    const end = () => {
      input.removeEventListener("pointermove", move);
      input.removeEventListener("pointerup", end);
      input.removeEventListener("pointercancel", end);
      if (!dragging) { input.focus(); input.select(); }
    };
    input.addEventListener("pointermove", move);
    input.addEventListener("pointerup", end);
    input.addEventListener("pointercancel", end);
  });
}
