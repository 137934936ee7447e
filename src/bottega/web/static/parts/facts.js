// Facts as rows of a name and a value: every value can be selected, and exact ones copied with one press.

import { h, put } from "../dom.js";
import { t } from "../words.js";
import { icon } from "./icons.js";

/**
 * Rows of `[name, value, copied?]`; ones without a value are left out. A value may be a text or an element; `copied` is
 * what its button copies (true: the text itself).
 */
export function facts(rows, copy, { className = "" } = {}) {
  const list = h("dl", { class: ["facts", className] });
  for (const [name, value, copied] of rows) {
    if (value === undefined || value === null || value === false || value === "" || (Array.isArray(value) && !value.length)) continue;
    const exact = copied === true ? String(value) : copied;
    put(list, [
      h("dt", { text: name }),
      h("dd", { class: exact && "can-copy" }, h("span", { class: "fact-value" }, value), exact && copyButton(name, exact, copy)),
    ]);
  }
  return list;
}

/** A button that copies a text. */
export function copyButton(name, text, copy) {
  const label = t("frame.copy", { what: name });
  return h("button", { type: "button", class: "quiet square copy", title: label, aria: { label }, on: { click: () => copy(text) } }, icon("copy", 14));
}

/** A long hash, shown by its beginning; the whole of it is its title, and what is copied. */
export function hash(text, digits = 16) {
  return h("code", { class: "hash", title: text, text: text.length > digits + 4 ? `${text.slice(0, digits)}…` : text });
}

/** A part of a panel under a heading. */
export function section(title, ...children) {
  return h("section", { class: "part" }, title && h("h3", { text: title }), children);
}
