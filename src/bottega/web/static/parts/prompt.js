// The prompt field: an ordinary text field over a sheet that shades weights, frames networks and marks chunk ends.

import { fill, fresh, h, paint, put } from "../dom.js";
import { addWords, number, t } from "../words.js";
import { icon } from "./icons.js";

addWords({
  en: {
    "prompt.tokens": "{count} of {room} tokens", "prompt.tokens.title": "The text encoder reads {chunk} tokens at a time; a hairline shows where each part ends",
    "prompt.unknown": "{name} is not on the shelf", "prompt.nearest": "{name} is not on the shelf; did you mean {nearest}?", "prompt.take": "Use {nearest}",
    "prompt.names": "Names from the shelf", "prompt.lora": "LoRA", "prompt.embedding": "embedding", "prompt.hypernetwork": "hypernetwork",
  },
  zh: {
    "prompt.tokens": "{count} / {room} 个词元", "prompt.tokens.title": "文本编码器每次读取 {chunk} 个词元；细线标出每段的结尾",
    "prompt.unknown": "书架上没有 {name}", "prompt.nearest": "书架上没有 {name}；是指 {nearest} 吗？", "prompt.take": "改用 {nearest}",
    "prompt.names": "书架上的名称", "prompt.lora": "LoRA", "prompt.embedding": "嵌入", "prompt.hypernetwork": "超网络",
  },
});

const COUNT_AFTER = 150; // ms without typing until the server is asked
const NAMES = 8; // suggestions shown at once
const WEIGHT_STEP = 0.1; // of words, as A1111's users know it
const NETWORK_STEP = 0.05; // of <lora:...>
// What ends a word: A1111's marks, quotes, and those of East Asian texts; not hyphens and apostrophes, which names have.
const STOPS = /[\s.,\\/!?%^*;:{}=`~()<>|[\]"“”‘…—·\u3001-\u3003\u3008-\u3011\u3014-\u301f\uff01-\uff0c\uff0e\uff0f\uff1a-\uff1f\uff3b-\uff3e\uff40\uff5b-\uff65]/;
const LONGEST = 255; // characters of a file's name: what is longer names nothing
const KINDS = { lora: "lora", lyco: "lora", hypernet: "hypernetwork" };

export class PromptField {
  /**
   * `ask` is `{tokens(text, signal), names(kind, text)}`; `changed(text)` hears every edit. `rows` is the least height.
   */
  constructor({ label, placeholder = "", rows = 3, ask, changed = () => {}, counted = true }) {
    Object.assign(this, { ask, changed, told: null, unfit: new Map(), suggestions: [], chosen: 0 });
    this.id = fresh("prompt");
    this.sheet = h("div", { class: "prompt-sheet", aria: { hidden: "true" } });
    this.text = h("textarea", {
      class: "prompt-text", id: this.id, rows: String(rows), placeholder, spellcheck: "false", autocomplete: "off", autocapitalize: "off",
      aria: { autocomplete: "list", controls: `${this.id}-names`, describedby: `${this.id}-notes ${this.id}-wrong` },
      on: {
        input: () => this._edited(), keydown: (event) => this._key(event), blur: () => this._shut(), scroll: () => this._follow(),
        click: () => this._shut(),
      },
    });
    this.count = h("output", { class: "prompt-count number", for: this.id, hidden: !counted });
    this.names = h("ul", { class: "names", id: `${this.id}-names`, role: "listbox", aria: { label: t("prompt.names") }, hidden: true });
    this.notes = h("div", { class: "prompt-notes", id: `${this.id}-notes` });
    this.wrong = h("div", { id: `${this.id}-wrong` });
    this.label = h("label", { for: this.id, class: "label", text: label });
    this.field = h("div", { class: "prompt-field" }, this.sheet, this.text, this.names);
    this.element = h("div", { class: "prompt" }, h("div", { class: "prompt-head" }, this.label, this.count), this.field, this.notes, this.wrong);
    this.observer = new ResizeObserver(() => this._grow());
    this.observer.observe(this.field);
  }

  get value() { return this.text.value; }

  /** Puts a text in without telling `changed`. */
  set value(text) {
    if (text === this.text.value) return;
    this.text.value = text;
    this.told = null;
    this._draw();
    this._grow();
    this._count();
  }

  /** Asks for the number of tokens again: another model may count otherwise. */
  recount() { this._count(); }

  /** Adds words at the end, after a comma where one is needed. */
  add(words) {
    const before = this.value.trimEnd();
    this._replace(before.length, this.value.length, `${before && !before.endsWith(",") ? ", " : before ? " " : ""}${words}`);
    this._shut();
  }

  /** Puts another text in, as if it had been typed. */
  rewrite(text) {
    this._replace(0, this.value.length, text);
    this._shut();
  }

  /** Says of the networks that the text names, by `kind:name`, what is wrong with them. */
  judge(unfit) {
    if (!unfit.size && !this.unfit.size) return;
    this.unfit = unfit;
    this._draw();
  }

  focus() { this.text.focus(); }

  close() {
    this.observer.disconnect();
    clearTimeout(this.timer);
    this.asking?.abort();
  }

  _edited() {
    const before = this.known ?? "";
    this.told = this.told && moved(this.told, before, this.value);
    this._draw();
    this._grow();
    this.changed(this.value);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this._count(), COUNT_AFTER);
    this._suggest();
  }

  async _count() {
    clearTimeout(this.timer);
    const text = this.value;
    this.asking?.abort();
    this.asking = new AbortController();
    try {
      const told = await this.ask.tokens(text, this.asking.signal);
      if (text !== this.value) return;
      this.told = inUnits(told, text);
    } catch { return; } // counting is a courtesy: the field works without it
    this._draw();
  }

  _grow() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight + 2}px`;
    this._follow();
  }

  _follow() { this.sheet.scrollTop = this.text.scrollTop; }

  _draw() {
    const text = this.value;
    this.known = text;
    const told = this.told;
    fill(this.sheet, told ? marked(text, told, this.unfit) : text, "\u200b");
    if (!told) return void fill(this.count);
    const { room } = told;
    this.count.value = text.trim() || told.count ? `${number(told.count)} / ${number(room)}` : "";
    this.count.title = t("prompt.tokens.title", { chunk: told.chunk });
    this.count.setAttribute("aria-label", t("prompt.tokens", { count: told.count, room }));
    const strangers = told.networks.filter((network) => network.known === false);
    const unfit = told.networks.filter((network) => network.known !== false && this.unfit.has(nameIn(network)));
    fill(this.notes, unfit.map((network) => h("p", { class: "small wrong prompt-unfit" }, icon("warn", 14), h("span", { text: this.unfit.get(nameIn(network)) }))), strangers.map((network) => h("p", { class: "small prompt-note" },
      h("span", { text: t(network.nearest.length ? "prompt.nearest" : "prompt.unknown", { name: network.name, nearest: network.nearest[0] }) }),
      network.nearest.length > 0 && h("button", { type: "button", class: "link", text: t("prompt.take", { nearest: network.nearest[0] }), on: { click: () => this._rename(network) } }))));
  }

  _rename(network) {
    const whole = this.value.slice(network.start, network.end);
    const at = whole.indexOf(network.name);
    if (at >= 0) this._replace(network.start + at, network.start + at + network.name.length, network.nearest[0]);
  }

  /** Replaces a stretch of the text so that the browser's own undo knows of it. */
  _replace(from, to, text) {
    this.text.focus();
    this.text.setSelectionRange(from, to);
    if (!document.execCommand("insertText", false, text)) {
      this.text.setRangeText(text, from, to, "end");
      this._edited();
    }
  }

  // ------------------------------------------------------------------------------------------------------- keyboard

  _key(event) {
    if (event.isComposing) return;
    if (!this.names.hidden) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && !event.ctrlKey && !event.metaKey) this._choose((this.chosen + step + this.suggestions.length) % this.suggestions.length);
      else if ((event.key === "Enter" && !event.ctrlKey && !event.metaKey) || event.key === "Tab") this._take(this.suggestions[this.chosen]);
      else if (event.key === "Escape") this._shut();
      else return;
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    if ((event.ctrlKey || event.metaKey) && !event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      this._weigh(event.key === "ArrowUp" ? 1 : -1);
    }
  }

  /** Makes what is selected weigh more or less: a network at the cursor, words in brackets, else a word. */
  _weigh(direction) {
    const edit = weighed(this.value, this.text.selectionStart, this.text.selectionEnd, direction);
    if (!edit) return;
    this._replace(edit.from, edit.to, edit.text);
    this.text.setSelectionRange(edit.from + edit.select[0], edit.from + edit.select[1]);
  }

  // ----------------------------------------------------------------------------------------------------- completion

  async _suggest() {
    const at = this.text.selectionStart;
    const wish = at === this.text.selectionEnd ? wishAt(this.value, at) : null;
    this.wish = wish;
    if (!wish) return this._shut();
    // Enter takes what is shown, which must never be an answer to what stood there before.
    const typed = wish.text.toLowerCase();
    if (!this.names.hidden) this._offer(this.suggestions.filter((model) => wish.kinds.includes(model.kind) && model.name.toLowerCase().includes(typed)));
    let found;
    try {
      found = (await Promise.all(wish.kinds.map((kind) => this.ask.names(kind, wish.text)))).flat().slice(0, NAMES);
    } catch { return; }
    if (this.wish !== wish || document.activeElement !== this.text) return;
    if (!wish.open) found = found.filter((model) => model.name.toLowerCase().startsWith(typed) && model.name !== wish.text);
    this._offer(found);
  }

  /** Shows the names that the wish may become, or nothing where there are none. */
  _offer(found) {
    this.suggestions = found;
    this.names.hidden = !found.length;
    if (!found.length) return void this.text.removeAttribute("aria-activedescendant");
    fill(this.names, found.map((model, index) => h("li", {
      role: "option", id: `${this.names.id}-${index}`, class: "name",
      on: { pointerdown: (event) => { event.preventDefault(); this._take(model); }, pointermove: () => this._choose(index) },
    }, h("span", { class: "grow cut", text: model.name, title: model.name }), h("span", { class: "soft", text: t(`prompt.${model.kind}`) }))));
    this._choose(0);
    this._beside(this.wish.from);
  }

  _choose(index) {
    this.chosen = index;
    for (const [other, option] of [...this.names.children].entries()) option.setAttribute("aria-selected", String(other === index));
    this.text.setAttribute("aria-activedescendant", `${this.names.id}-${index}`);
    this.names.children[index]?.scrollIntoView({ block: "nearest" });
  }

  _take(model) {
    const { from, to, kinds, open } = this.wish;
    this._shut();
    const word = open || model.kind === "embedding" ? null : KINDS[model.kind];
    const text = model.kind === "embedding" ? model.name : `<${open || word || model.kind}:${model.name}:${model.weight ?? 1}>`;
    const end = kinds.length && open && this.value[to] === ">" ? to + 1 : to;
    this._replace(from, end, text);
    this._shut();
  }

  _shut() {
    this.wish = null;
    this.names.hidden = true;
    this.text.removeAttribute("aria-activedescendant");
  }

  _beside(offset) {
    const mark = h("span", { text: "\u200b" });
    fill(this.sheet, this.value.slice(0, offset), mark, this.value.slice(offset));
    const at = mark.getBoundingClientRect();
    const box = this.field.getBoundingClientRect();
    paint(this.names, { left: `${Math.max(0, Math.min(at.left - box.left, box.width - this.names.offsetWidth))}px`, top: `${at.bottom - box.top + 4}px` });
    this._draw();
  }
}

// --------------------------------------------------------------------------------------------------------- the rules

/** What may be completed at a place: an open `<lora:na`, or the word before it; null for nothing. */
export function wishAt(text, at) {
  const before = text.slice(0, at);
  const network = /<(\w*)(?::([^<>:]*))?$/.exec(before);
  if (network) {
    const [whole, kind, name] = network;
    if (name === undefined && !"lora".startsWith(kind) && !"hypernet".startsWith(kind)) return null;
    if (name !== undefined && (!(kind in KINDS) || name.length > LONGEST)) return null;
    const rest = /^[^<>:,\s]*(?::[\d.]*)?/.exec(text.slice(at))[0];
    return { kinds: [KINDS[kind] ?? "lora"], open: kind in KINDS ? kind : "lora", text: name ?? "", from: at - whole.length, to: at + rest.length };
  }
  const from = beginning(text, at);
  if (at - from < 2 || at - from > LONGEST || (at < text.length && !STOPS.test(text[at]))) return null;
  return { kinds: ["embedding"], open: null, text: text.slice(from, at), from, to: at };
}

/** Where the word before a place begins. */
function beginning(text, at) {
  let from = at;
  while (from > 0 && !STOPS.test(text[from - 1])) from -= 1;
  return from;
}

/** The edit that makes a selection weigh a step more (1) or less (-1): `{from, to, text, select}`; null for none. */
export function weighed(text, start, end, direction) {
  const network = around(text, start, end, "<", ">");
  if (network) {
    const inside = /^(\w+:[^:]+)(?::([+-]?[\d.]+))?(.*)$/.exec(text.slice(network[0] + 1, network[1] - 1));
    if (!inside) return null;
    const weight = rounded((inside[2] === undefined ? 1 : Number(inside[2])) + direction * NETWORK_STEP);
    const whole = `<${inside[1]}:${weight}${inside[3]}>`;
    return { from: network[0], to: network[1], text: whole, select: [1, whole.length - 1] };
  }
  const bracket = around(text, start, end, "(", ")");
  if (bracket) {
    const inside = /^([^]*?)(?::\s*([+-]?[\d.]+)\s*)?$/.exec(text.slice(bracket[0] + 1, bracket[1] - 1));
    const words = inside[1];
    const weight = rounded((inside[2] === undefined ? 1.1 : Number(inside[2])) + direction * WEIGHT_STEP);
    if (weight === 1) return { from: bracket[0], to: bracket[1], text: words, select: [0, words.length] };
    return { from: bracket[0], to: bracket[1], text: `(${words}:${weight})`, select: [1, 1 + words.length] };
  }
  let [from, to] = [start, end];
  if (from === to) {
    from = beginning(text, from);
    while (to < text.length && !STOPS.test(text[to])) to += 1;
  } else {
    while (from < to && /\s/.test(text[from])) from += 1;
    while (to > from && /\s/.test(text[to - 1])) to -= 1;
  }
  if (from === to) return null;
  const words = text.slice(from, to);
  return { from, to, text: `(${words}:${rounded(1 + direction * WEIGHT_STEP)})`, select: [1, 1 + words.length] };
}

const rounded = (value) => Number(value.toFixed(4));

/** The innermost pair of brackets that holds a selection: [start, end after it]; null for none. */
function around(text, start, end, open, shut) {
  let depth = 0;
  let from = start - 1;
  for (; from >= 0; from -= 1) {
    if (text[from - 1] === "\\") continue;
    if (text[from] === shut) depth += 1;
    else if (text[from] === open && depth-- === 0) break;
  }
  if (from < 0) return null;
  depth = 0;
  for (let to = Math.max(end, from + 1); to < text.length; to += 1) {
    if (text[to - 1] === "\\") continue;
    if (text[to] === open) depth += 1;
    else if (text[to] === shut && depth-- === 0) return [from, to + 1];
  }
  return null;
}

/** What the server tells in characters, in the units that texts have here: some characters take two. */
function inUnits(told, text) {
  if (!/[\ud800-\udfff]/.test(text)) return told;
  const places = [0];
  for (const character of text) places.push(places.at(-1) + character.length);
  const at = (place) => places[Math.min(place, places.length - 1)];
  const stretch = (piece) => ({ ...piece, start: at(piece.start), end: at(piece.end) });
  return { ...told, chunks: told.chunks.map(at), pieces: told.pieces.map(stretch), networks: told.networks.map(stretch) };
}

/** What was told of a text, moved to where it stands in an edited one, until the server has read that. */
function moved(told, before, after) {
  let head = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head += 1;
  let tail = 0;
  while (tail < before.length - head && tail < after.length - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const shift = after.length - before.length;
  const place = (offset) => (offset <= head ? offset : offset >= before.length - tail ? offset + shift : Math.min(offset, after.length));
  const stretch = (piece) => ({ ...piece, start: place(piece.start), end: place(piece.end) });
  return {
    ...told, chunks: told.chunks.map(place),
    pieces: told.pieces.map(stretch).filter((piece) => piece.end > piece.start),
    networks: told.networks.map(stretch).filter((network) => network.end > network.start && after[network.start] === "<"),
  };
}

const nameIn = (network) => `${network.kind}:${network.name}`;

/** A text as the sheet shows it: shades under weights, frames around networks, hairlines where chunks end. */
function marked(text, told, unfit) {
  const cuts = new Set([0, text.length]);
  for (const { start, end } of [...told.pieces, ...told.networks]) cuts.add(start).add(end);
  for (const at of told.chunks) cuts.add(at);
  const places = [...cuts].filter((at) => at >= 0 && at <= text.length).sort((one, other) => one - other);
  const ends = new Set(told.chunks);
  return places.slice(0, -1).map((from, index) => {
    const to = places[index + 1];
    const network = told.networks.find((one) => one.start <= from && to <= one.end);
    const piece = told.pieces.find((one) => one.start <= from && to <= one.end);
    const line = from > 0 && ends.has(from) && h("i", { class: "chunk-end" });
    if (network) return [line, h("mark", { class: ["network", network.known === false ? "stranger" : unfit.has(nameIn(network)) && "unfit"], text: text.slice(from, to) })];
    if (piece && Math.abs(piece.weight - 1) > 0.001) {
      const strength = Math.min(1, Math.abs(piece.weight - 1) / 0.8);
      const mark = h("mark", { class: piece.weight > 1 ? "heavy" : "light", text: text.slice(from, to) });
      paint(mark, { "--strength": `${Math.round(18 + strength * 34)}%` });
      return [line, mark];
    }
    return [line, text.slice(from, to)];
  });
}
