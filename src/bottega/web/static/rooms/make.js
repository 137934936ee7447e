// The room where things are made: what is asked for on the left, what comes of it on the right.

import { h, put } from "../dom.js";

export default {
  id: "make",
  order: 1,
  words: { en: { "room.make": "Make" }, zh: { "room.make": "创作" } },
  mount(element) {
    put(element, h("p", { text: "…" }));
  },
};
