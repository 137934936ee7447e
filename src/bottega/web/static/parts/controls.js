// Fields of a form, drawn from what a setting says of itself: text, number with slider, choice, switch.

import { fill, fresh, h, paint, put } from "../dom.js";
import { addWords, t } from "../words.js";
import { icon } from "./icons.js";

addWords({
  en: {
    "control.default": "Back to the default, {value}", "control.on": "on", "control.off": "off", "control.less": "Less", "control.more": "More",
    "control.between": "a number from {low} to {high}", "control.number": "a number",
  },
  zh: {
    "control.default": "恢复默认值 {value}", "control.on": "开", "control.off": "关", "control.less": "减少", "control.more": "增加",
    "control.between": "{low} 到 {high} 之间的数", "control.number": "一个数字",
    // What the families' settings are called; the page draws those that it has no words for by their own names.
    "knob.precision": "数值精度", "knob.prediction": "预测类型", "knob.zero_snr": "零终端信噪比", "knob.downcast_alphas": "半精度噪声表",
    "knob.old_prompt_editing": "旧版提示词编辑", "knob.clip_skip": "CLIP 跳层", "knob.emphasis": "强调方式", "knob.noise_source": "噪声来源",
    "knob.variation_seed": "变化种子", "knob.variation_strength": "变化强度", "knob.seed_resize_width": "种子宽度", "knob.seed_resize_height": "种子高度",
    "knob.ensd": "Eta 噪声种子偏移", "knob.eta": "Eta", "knob.eta_ddim": "DDIM 的 Eta", "knob.guidance_rescale": "引导重缩放",
    "knob.skip_early_guidance": "跳过早期引导", "knob.min_uncond_sigma": "负面引导最小 sigma", "knob.image_guidance": "图像引导",
    "knob.mask_blur": "蒙版模糊", "knob.masked_content": "蒙版内容", "knob.vae_tiling": "VAE 分块", "knob.rho": "rho",
  },
});

/** A setting's name for people. */
export const nameOf = (name) => t(`knob.${name}`, {}, sentence(name.split("_").map((word) => (SHORT.has(word) ? word.toUpperCase() : word)).join(" ")));
const SHORT = new Set(["cfg", "clip", "ddim", "ensd", "snr", "vae"]);
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A setting's value for people. */
export const said = (value) => (value === true ? t("control.on") : value === false ? t("control.off") : String(value));

const SLIDES = 1000; // a range with more steps than this is typed, not slid
const EXACT = 2 ** 53;

/**
 * A field for a setting: `knob` is `{name, type, default, help, low, high, choices, names?}`, where `names` are what the
 * choices are called; `changed(value)` hears what is entered, null for "as by default". Returns `{element, set(value), wrong(text), focus()}`.
 */
export function control(knob, changed, { label = nameOf(knob.name), resettable = true } = {}) {
  const id = fresh("field");
  const wrong = h("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
  const reset = h("button", { type: "button", class: "quiet reset", hidden: true, on: { click: () => { set(null); changed(null); } } }, icon("undo", 14));
  let shown = knob.default;
  const made = FIELDS[kindOf(knob)](knob, id, (value) => { shown = value; mark(); changed(same(value, knob.default) ? null : value); });
  const describe = [knob.help && `${id}-help`, `${id}-wrong`].filter(Boolean).join(" ");
  made.input.setAttribute("aria-describedby", describe);
  const element = h("div", { class: ["control", `is-${kindOf(knob)}`], data: { name: knob.name } },
    h("div", { class: "control-head" }, h("label", { for: id, class: "label", text: label, title: knob.help || null }), resettable && reset, made.beside),
    made.field,
    knob.help && h("p", { class: "unseen", id: `${id}-help`, text: knob.help }), wrong);
  const mark = () => {
    const changedNow = !same(shown, knob.default);
    element.classList.toggle("is-changed", changedNow);
    reset.hidden = !changedNow;
    const words = t("control.default", { value: knob.names?.get(knob.default) ?? said(knob.default) });
    reset.title = words;
    reset.setAttribute("aria-label", words);
  };
  function set(value) {
    shown = value ?? knob.default;
    made.set(shown);
    mark();
  }
  set(null);
  return {
    element, set, knob,
    wrong(text) { complain(made.input, wrong, text); },
    focus() { made.input.focus(); },
  };
}

/** Says beside a field what is wrong with it; nothing takes it back. */
export function complain(input, place, text) {
  place.hidden = !text;
  fill(place, text && icon("warn", 14), text && h("span", { text }));
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

const same = (one, other) => one === other || (typeof one === "number" && typeof other === "number" && Math.abs(one - other) < 1e-9);

function kindOf(knob) {
  if (knob.type === "bool") return "switch";
  if (knob.choices?.length) return "choice";
  if (knob.type === "str") return "text";
  return "number";
}

/** The step of a number with these bounds: whole numbers by one, others by about a hundredth of the range. */
export function stepOf(knob) {
  if (knob.type === "int") return 1;
  const range = knob.high - knob.low;
  if (!Number.isFinite(range) || range > 100) return 0.1;
  return range > 20 ? 0.5 : range > 4 ? 0.1 : range > 1.5 ? 0.05 : 0.01;
}

const FIELDS = {
  number(knob, id, changed) {
    const { low, high } = knob;
    const step = stepOf(knob);
    const slides = Number.isFinite(low) && Number.isFinite(high) && low !== null && high !== null && (high - low) / step <= SLIDES;
    const input = h("input", { type: "number", id, class: "number", step: knob.type === "int" ? "1" : "any", inputmode: knob.type === "int" ? "numeric" : "decimal", min: low ?? null, max: high !== null && Math.abs(high) < EXACT ? high : null });
    const slider = slides ? h("input", { type: "range", min: low, max: high, step, tabindex: "-1", aria: { hidden: "true" } }) : null;
    const draw = (value) => slider && (slider.value = value, paint(slider, { "--fill": `${((value - low) / (high - low)) * 100}%` }));
    input.addEventListener("input", () => {
      if (input.value === "" || !input.validity.valid && input.validity.badInput) return;
      draw(Number(input.value));
      changed(Number(input.value));
    });
    input.addEventListener("keydown", (event) => {
      const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!sign || event.altKey || event.ctrlKey) return;
      event.preventDefault();
      const next = Number(((Number(input.value) || 0) + sign * step * (event.shiftKey ? 10 : 1)).toFixed(6));
      const value = Math.min(high ?? Infinity, Math.max(low ?? -Infinity, next));
      input.value = value;
      draw(value);
      changed(value);
    });
    input.addEventListener("change", () => {
      if (input.value === "") { input.value = knob.default; draw(knob.default); changed(knob.default); }
    });
    slider?.addEventListener("input", () => { input.value = slider.value; draw(Number(slider.value)); changed(Number(slider.value)); });
    return { input, field: slides ? slider : null, beside: input, set: (value) => { input.value = value; draw(value); } };
  },
  switch(knob, id, changed) {
    const input = h("input", { type: "checkbox", role: "switch", id, class: "switch", on: { change: () => changed(input.checked) } });
    return { input, field: null, beside: input, set: (value) => { input.checked = value; } };
  },
  choice(knob, id, changed) {
    const input = h("select", { id, on: { change: () => changed(input.value) } });
    const options = (choices) => fill(input, choices.map((choice) => h("option", { value: choice, text: knob.names?.get(choice) ?? said(choice) })));
    options(knob.choices);
    return {
      input, field: null, beside: h("span", { class: "choice" }, input, icon("chevron")),
      set: (value) => {
        if (!knob.choices.includes(value)) options([...knob.choices, value]);
        input.value = value;
      },
    };
  },
  text(knob, id, changed) {
    const input = h("input", { type: "text", id, on: { input: () => changed(input.value) } });
    return { input, field: null, beside: input, set: (value) => { input.value = value; } };
  },
};

/** A whole number between buttons for less and more. */
export function stepper({ label, low, high, changed }) {
  const id = fresh("field");
  const wrong = h("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
  const input = h("input", { type: "number", id, class: "number", min: low, max: high, step: "1", inputmode: "numeric", aria: { describedby: `${id}-wrong` } });
  const take = (value) => { input.value = value; changed(value); };
  const by = (step) => take(Math.min(high, Math.max(low, (Number(input.value) || low) + step)));
  input.addEventListener("input", () => { if (input.value !== "") changed(Number(input.value)); });
  input.addEventListener("change", () => { if (input.value === "") take(low); });
  input.addEventListener("keydown", (event) => {
    const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (sign && !event.ctrlKey) { event.preventDefault(); by(sign); }
  });
  const button = (name, step, text) => h("button", { type: "button", class: "quiet", tabindex: "-1", aria: { label: text }, on: { click: () => by(step) } }, icon(name, 14));
  const element = h("div", { class: "field" }, h("label", { for: id, class: "label", text: label }),
    h("div", { class: "joined" }, button("minus", -1, t("control.less")), input, button("plus", 1, t("control.more"))), wrong);
  return { element, input, set: (value) => { input.value = value; }, wrong: (text) => complain(input, wrong, text), focus: () => input.focus() };
}

/** A part of a form that folds; its one grey line tells what is in it. Returns `{element, body, line(text), open}`. */
export function fold(title, { open = false, toggled = () => {} } = {}) {
  const line = h("span", { class: "fold-line soft cut" });
  const body = h("div", { class: "fold-body" });
  const element = h("details", { class: "fold", open, on: { toggle: () => toggled(element.open) } },
    h("summary", {}, icon("chevron"), h("span", { class: "fold-title", text: title }), line), body);
  return {
    element, body,
    line(text) { line.textContent = text; line.title = text; },
    get open() { return element.open; },
    set open(value) { element.open = value; },
  };
}
