// The model picker: a button that shows the chosen model, and a panel with every model that runs, searched as one types.

import { fill, fresh, h, put } from "../dom.js";
import { addWords, bytes, t } from "../words.js";
import { endpaper } from "./endpaper.js";
import { icon } from "./icons.js";
import { popover } from "./popover.js";

addWords({
  en: { "picker.label": "Model", "picker.search": "Search models that run", "picker.none": "No model that runs has this name", "picker.empty": "No model on the shelves runs", "picker.choose": "Choose a model", "picker.more": "{n} more: type to narrow down" },
  zh: { "picker.label": "模型", "picker.search": "搜索可运行的模型", "picker.none": "没有叫这个名字的可运行模型", "picker.empty": "书架上没有可运行的模型", "picker.choose": "选择模型", "picker.more": "还有 {n} 个：输入以缩小范围" },
});

const SHOWN = 60;
const SEARCH_AFTER = 80; // ms without typing

/** A model's picture, or the drawing that stands for it. */
export function likeness(model) {
  return h("span", { class: "likeness" }, model.preview
    ? h("img", { src: `/api/models/${model.id}/preview`, alt: "", loading: "lazy", decoding: "async" })
    : endpaper(model.kind, model.name));
}

/**
 * Fills a panel with a search field over the cards of models. `find(text, limit)` asks the library, `words(model)` is
 * what stands under a name, `chosen()` the id of the one that is marked, `take(model)` hears the choice, `filled()`
 * that the list is another; `says` are the words `{label, search, none, empty}`, `between` what stands above the cards.
 * Returns what fills it again.
 */
export function cards(place, { find, words, chosen, take, filled, says, between = null }) {
  const id = fresh("cards");
  let models = [];
  let at = 0;
  let timer = 0;
  let asked = 0;
  let listed = null; // the text that the cards were found by
  const list = h("div", { class: "picker-list", role: "listbox", id, aria: { label: says.label } });
  const note = h("p", { class: "small soft picker-note", role: "status" });
  const search = h("input", {
    type: "search", class: "grow", placeholder: says.search, autofocus: true, role: "combobox", autocomplete: "off",
    aria: { label: says.search, expanded: "true", controls: id, autocomplete: "list" },
    on: {
      input: () => { clearTimeout(timer); timer = setTimeout(load, SEARCH_AFTER); },
      keydown: (event) => {
        const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
        const step = { ArrowDown: columns, ArrowUp: -columns, ArrowRight: search.value ? 0 : 1, ArrowLeft: search.value ? 0 : -1 }[event.key];
        if (step) point(Math.max(0, Math.min(models.length - 1, at + step)));
        else if (event.key === "Enter") enter();
        else return;
        event.preventDefault();
      },
    },
  });
  const point = (index) => {
    at = index;
    for (const [other, card] of [...list.children].entries()) card.classList.toggle("is-here", other === index);
    search.setAttribute("aria-activedescendant", `${id}-${index}`);
    list.children[index]?.scrollIntoView({ block: "nearest" });
  };
  const load = async () => {
    const text = search.value.trim();
    const mine = ++asked;
    let told;
    try { told = await find(text, SHOWN); } catch (error) { note.textContent = error.message; return; }
    if (mine !== asked) return;
    models = told.items;
    listed = text;
    fill(list, models.map((model, index) => h("div", {
      class: "picker-card", role: "option", id: `${id}-${index}`, aria: { selected: String(model.id === chosen()) },
      on: { click: () => take(model), pointermove: () => at !== index && point(index) },
    }, likeness(model), h("span", { class: "picker-words" }, h("span", { class: "cut picker-name", text: model.name, title: model.name }), h("span", { class: "cut small soft", text: words(model), title: words(model) })))));
    const more = told.total - models.length;
    note.textContent = models.length ? (more > 0 ? t("picker.more", { n: more }) : "") : text ? says.none : says.empty;
    point(Math.max(0, models.findIndex((model) => model.id === chosen())));
    filled();
  };
  const enter = async () => {
    clearTimeout(timer);
    if (listed !== search.value.trim()) await load(); // what was typed last has not been looked for
    if (models[at]) take(models[at]);
  };
  put(place, [h("div", { class: "row picker-head" }, icon("search"), search), between, list, note]);
  load();
  return load;
}

/**
 * `find(text, limit)` asks the library; `chosen(model)` hears the choice; `says` are the words `{search, none, empty}`
 * for models that run. Returns `{element, set(model), wrong, say, open, focus}`.
 */
export function modelPicker({ find, chosen, familyName, label = t("picker.label"), says = { search: t("picker.search"), none: t("picker.none"), empty: t("picker.empty") } }) {
  const wrong = h("p", { class: "wrong", hidden: true });
  const note = h("p", { class: "small soft", role: "status", hidden: true });
  const face = h("span", { class: "picker-face row grow" });
  const button = h("button", { type: "button", class: "picker" }, face, icon("chevron"));
  const element = h("div", { class: "field" }, h("span", { class: "label", text: label }), h("div", { class: "picker-box" }, button), wrong, note);
  let current = null;

  const words = (model) => [familyName(model), model.variant && model.variant !== "base" && model.variant, bytes(model.size)].filter(Boolean).join(" · ");
  const set = (model) => {
    current = model;
    fill(face, model
      ? [likeness(model), h("span", { class: "grow picker-words" }, h("span", { class: "cut picker-name", text: model.name, title: model.name }), h("span", { class: "cut small soft", text: words(model) }))]
      : h("span", { class: "soft", text: t("picker.choose") }));
    button.setAttribute("aria-label", `${label}: ${model ? model.name : t("picker.choose")}`);
  };
  set(null);

  const panel = popover(button, (place, close) => {
    cards(place, {
      find, words, chosen: () => current?.id, take: (model) => { close(); set(model); chosen(model); }, filled: () => panel.place(),
      says: { label, ...says },
    });
  }, { label: `${label}: ${t("picker.choose")}`, className: "picker-panel" });

  return {
    element, set, open: panel.open,
    wrong(text) { wrong.hidden = !text; fill(wrong, text && icon("warn", 14), text && h("span", { text })); if (text) button.setAttribute("aria-invalid", "true"); else button.removeAttribute("aria-invalid"); },
    say(text) { note.hidden = !text; note.textContent = text; },
    focus: () => button.focus(),
  };
}
