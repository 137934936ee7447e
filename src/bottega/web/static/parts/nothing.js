// What a room says when there is nothing in it: one sentence, what to do about it, and perhaps a picture.

import { h } from "../dom.js";
import { t } from "../words.js";

/** A calm notice in the middle of an empty room; `actions` are `{text, run, main?, needs?}`; one that needs a scope is there for those who have it. */
export function nothing(text, actions = [], drawing = null) {
  return h("div", { class: "nothing" }, drawing, h("p", { text }), actions.length > 0 && h("div", { class: "nothing-actions" },
    actions.map(({ text: words, run, main, needs }) => h("button", { type: "button", class: main && "main", data: needs && { needs }, text: words, on: { click: run } }))));
}

/** What went wrong in the place where its result would stand, with a button to try again; the frame presses it when the server is back. */
export function troubled(text, again) {
  return h("div", { class: "nothing is-trouble", role: "alert" }, h("p", { text }),
    again && h("div", { class: "nothing-actions" }, h("button", { type: "button", data: { again: "" }, text: t("frame.broken.again"), on: { click: again } })));
}
