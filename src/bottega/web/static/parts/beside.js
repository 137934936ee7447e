// Two outputs against each other: wiped over one another or side by side, with only the fields in which they differ.

import { h, fill, put } from "../dom.js";
import { addWords, t } from "../words.js";
import { icon } from "./icons.js";
import { dialog } from "./popover.js";
import { fieldName } from "./recipe.js";
import { Stage } from "./stage.js";

addWords({
  en: {
    "beside.title": "Compare", "beside.wipe": "Wipe", "beside.side": "Side by side", "beside.same": "Their recipes are the same.",
    "beside.field": "Field", "beside.one": "Left", "beside.other": "Right", "beside.line": "How much of the left one is shown",
  },
  zh: {
    "beside.title": "比较", "beside.wipe": "滑动对比", "beside.side": "并排", "beside.same": "两者的配方相同。",
    "beside.field": "字段", "beside.one": "左", "beside.other": "右", "beside.line": "左图显示的比例",
  },
});

/** Show two outputs in a dialog; the answer is a promise that it is closed. */
export function compare(context, one, other) {
  const stages = [];
  return dialog(t("beside.title"), (body) => build(body, context, one, other, stages), { className: "beside" }).finally(() => {
    for (const stage of stages) stage.close();
  });
}

function build(body, context, one, other, stages) {
  const place = h("div", { class: "beside-place" });
  const fields = h("div", { class: "beside-fields" });
  const ways = h("div", { class: "tabs", role: "group" });
  const draw = (way) => {
    context.store.set("beside", way);
    for (const stage of stages.splice(0)) stage.close();
    fill(ways, ["wipe", "side"].map((name) => h("button", {
      type: "button", class: "tab", aria: { pressed: String(name === way) }, on: { click: () => draw(name) },
    }, icon(name), h("span", { text: t(`beside.${name}`) }))));
    place.className = `beside-place is-${way}`;
    const move = (from) => (view) => {
      for (const stage of stages) if (stage !== stages[from]) stage.look(view, { tell: false });
    };
    [one, other].forEach((item, index) => {
      const stage = new Stage({ width: item.width, height: item.height, alt: item.prompt, moved: move(index) });
      stage.show(`/api/outputs/${item.id}/file`, context.api.address(`/api/outputs/${item.id}/thumbnail`, { size: 256 }));
      stages.push(stage);
    });
    fill(place, stages.map((stage) => stage.element), way === "wipe" && wiper(...stages.map((stage) => stage.element)));
  };
  put(body, [ways, place, fields]);
  draw(context.store.get("beside", "wipe"));
  differences(fields, context, one, other);
}

/** The line between the two: it is dragged, or moved with the arrow keys, as it is a slider. */
function wiper(one, other) {
  const line = h("span", { class: "beside-line" });
  const set = (share) => {
    one.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    other.style.clipPath = `inset(0 0 0 ${share}%)`; // which is seen beside a narrower one else
    line.style.left = `${share}%`;
  };
  const slider = h("input", {
    type: "range", class: "beside-slider", min: "0", max: "100", step: "0.5", value: "50", autofocus: true, aria: { label: t("beside.line") },
    on: { input: () => set(Number(slider.value)) },
  });
  set(50);
  return [line, slider];
}

async function differences(place, context, one, other) {
  let told;
  try {
    told = await context.api.get(`/api/outputs/${one.id}/compare/${other.id}`);
  } catch (error) {
    return fill(place, h("p", { class: "wrong", text: context.saying(error) }));
  }
  const rows = told.differences;
  if (!rows.length) return fill(place, h("p", { class: "soft", text: t("beside.same") }));
  const shown = (value) => (value === null || value === undefined || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value).replace(/^([0-9a-f]{12})[0-9a-f]{52}$/, "$1…"));
  fill(place, h("table", { class: "beside-table" },
    h("thead", {}, h("tr", {}, ["field", "one", "other"].map((name) => h("th", { scope: "col", text: t(`beside.${name}`) })))),
    h("tbody", {}, rows.map(({ field, a, b }) => h("tr", {},
      h("th", { scope: "row", text: fieldName(field), title: field }), h("td", { text: shown(a) }), h("td", { text: shown(b) }))))));
}
