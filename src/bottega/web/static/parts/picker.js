// The model picker: a button that shows the chosen model, and a panel with every model that runs, searched as one types.

import { fill, h, put } from "../dom.js";
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

/** `find(text, limit)` asks the library; `chosen(model)` hears the choice. Returns `{element, set(model), wrong, say, open, focus}`. */
export function modelPicker({ find, chosen, familyName }) {
  const wrong = h("p", { class: "wrong", hidden: true });
  const note = h("p", { class: "small soft", role: "status", hidden: true });
  const face = h("span", { class: "picker-face row grow" });
  const button = h("button", { type: "button", class: "picker" }, face, icon("chevron"));
  const element = h("div", { class: "field" }, h("span", { class: "label", text: t("picker.label") }), h("div", { class: "picker-box" }, button), wrong, note);
  let current = null;

  const words = (model) => [familyName(model), model.variant && model.variant !== "base" && model.variant, bytes(model.size)].filter(Boolean).join(" · ");
  const set = (model) => {
    current = model;
    fill(face, model
      ? [likeness(model), h("span", { class: "grow picker-words" }, h("span", { class: "cut picker-name", text: model.name, title: model.name }), h("span", { class: "cut small soft", text: words(model) }))]
      : h("span", { class: "soft", text: t("picker.choose") }));
    button.setAttribute("aria-label", model ? `${t("picker.label")}: ${model.name}` : t("picker.choose"));
  };
  set(null);

  const panel = popover(button, (place, close) => {
    let models = [];
    let at = 0;
    let timer = 0;
    const list = h("div", { class: "picker-list", role: "listbox", id: "picker-list", aria: { label: t("picker.label") } });
    const note = h("p", { class: "small soft picker-note", role: "status" });
    const search = h("input", {
      type: "search", class: "grow", placeholder: t("picker.search"), autofocus: true, role: "combobox", autocomplete: "off",
      aria: { label: t("picker.search"), expanded: "true", controls: "picker-list", autocomplete: "list" },
      on: {
        input: () => { clearTimeout(timer); timer = setTimeout(load, SEARCH_AFTER); },
        keydown: (event) => {
          const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
          const step = { ArrowDown: columns, ArrowUp: -columns, ArrowRight: search.value ? 0 : 1, ArrowLeft: search.value ? 0 : -1 }[event.key];
          if (step) point(Math.max(0, Math.min(models.length - 1, at + step)));
          else if (event.key === "Enter" && models[at]) take(models[at]);
          else return;
          event.preventDefault();
        },
      },
    });
    const take = (model) => { close(); set(model); chosen(model); };
    const point = (index) => {
      at = index;
      for (const [other, card] of [...list.children].entries()) card.classList.toggle("is-here", other === index);
      search.setAttribute("aria-activedescendant", `picker-${index}`);
      list.children[index]?.scrollIntoView({ block: "nearest" });
    };
    const load = async () => {
      const text = search.value.trim();
      let told;
      try { told = await find(text, SHOWN); } catch (error) { note.textContent = error.message; return; }
      if (text !== search.value.trim()) return;
      models = told.items;
      fill(list, models.map((model, index) => h("div", {
        class: "picker-card", role: "option", id: `picker-${index}`, aria: { selected: String(model.id === current?.id) },
        on: { click: () => take(model), pointermove: () => at !== index && point(index) },
      }, likeness(model), h("span", { class: "picker-words" }, h("span", { class: "cut picker-name", text: model.name, title: model.name }), h("span", { class: "cut small soft", text: words(model) })))));
      const more = told.total - models.length;
      note.textContent = models.length ? (more > 0 ? t("picker.more", { n: more }) : "") : text ? t("picker.none") : t("picker.empty");
      point(Math.max(0, models.findIndex((model) => model.id === current?.id)));
      panel.place();
    };
    put(place, [h("div", { class: "row picker-head" }, icon("search"), search), list, note]);
    load();
  }, { label: t("picker.choose"), className: "picker-panel" });

  return {
    element, set, open: panel.open,
    wrong(text) { wrong.hidden = !text; fill(wrong, text && icon("warn", 14), text && h("span", { text })); if (text) button.setAttribute("aria-invalid", "true"); else button.removeAttribute("aria-invalid"); },
    say(text) { note.hidden = !text; note.textContent = text; },
    focus: () => button.focus(),
  };
}
