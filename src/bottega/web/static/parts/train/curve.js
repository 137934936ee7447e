// The course of a training as a drawing: its loss smoothed over every step, the loss on held-out pictures, the learning rate.

import { fill, h, paint, svg } from "../../dom.js";
import { addWords, number, t } from "../../words.js";

addWords({
  en: {
    "curve.loss": "Loss", "curve.validation": "held-out", "curve.rate": "Learning rate", "curve.none": "The curve begins with the first step.",
    "curve.at": "step {step} · loss {loss}", "curve.rate.at": "rate {rate}", "curve.said": "Loss over {steps} steps: first {first}, now {last}",
  },
  zh: {
    "curve.loss": "损失", "curve.validation": "验证", "curve.rate": "学习率", "curve.none": "曲线从第一步开始。",
    "curve.at": "第 {step} 步 · 损失 {loss}", "curve.rate.at": "学习率 {rate}", "curve.said": "{steps} 步的损失：起初 {first}，现在 {last}",
  },
});

const [WIDE, HIGH, LOW] = [640, 200, 48]; // of the drawings, in their own units
const MOST = 640; // points of a line
const SMOOTH = 0.96; // of what was before, over 100 steps or more

/** Small numbers as people write them: 0.0834, 2e-4. */
export const few = (value) => (value === 0 ? "0" : Math.abs(value) >= 0.001 ? number(value, 4) : value.toExponential(1).replace(".0e", "e"));

export class Curve {
  constructor() {
    this.steps = [];
    this.total = 0;
    this.note = h("p", { class: "small soft", text: t("curve.none") });
    this.read = h("p", { class: "small number curve-read" });
    this.loss = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "curve", role: "img", preserveAspectRatio: "none" });
    this.rate = svg("svg", { viewBox: `0 0 ${WIDE} ${LOW}`, class: "curve is-rate", "aria-hidden": "true", preserveAspectRatio: "none" });
    this.line = h("i", { class: "curve-line", hidden: true });
    this.high = h("span", { class: "curve-tick is-high number" });
    this.low = h("span", { class: "curve-tick is-low number" });
    this.box = h("div", { class: "curve-box", hidden: true, on: { pointermove: (event) => this._point(event), pointerleave: () => this._point(null) } },
      h("span", { class: "small soft", text: t("curve.loss") }), h("div", { class: "curve-place" }, this.loss, this.high, this.low),
      h("span", { class: "small soft", text: t("curve.rate") }), this.rate, this.line);
    this.element = h("section", { class: "curve-part", aria: { label: t("curve.loss") } }, this.read, this.box, this.note);
  }

  /** The whole course: steps `{step, loss, rate, validation}` in order, of so many that there will be. */
  set(steps, total) {
    Object.assign(this, { steps: [...steps], total });
    this.draw();
  }

  /** One more step; answers false if some before it are not known. */
  add(step, total) {
    const last = this.steps.at(-1)?.step ?? 0;
    if (step.step <= last) return true;
    this.steps.push(step);
    this.total = total;
    this._soon();
    return step.step === last + 1;
  }

  get last() { return this.steps.at(-1)?.step ?? 0; }

  _soon() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.draw(); });
  }

  draw() {
    const { steps, total } = this;
    this.box.hidden = !steps.length;
    this.note.hidden = Boolean(steps.length);
    if (!steps.length) return void (this.read.textContent = "");
    const losses = smoothed(steps);
    const judged = steps.filter((one) => (one.validation ?? null) !== null);
    const all = [...losses.map(([, value]) => value), ...judged.map((one) => one.validation)].filter(Number.isFinite);
    let [low, high] = [Math.min(...all), Math.max(...all)];
    if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
    const x = (step) => (WIDE * step) / Math.max(1, total);
    const y = (value) => 6 + (HIGH - 12) * (1 - (value - low) / (high - low));
    const clipped = (value) => Math.max(0, Math.min(HIGH, y(value)));
    fill(this.loss,
      svg("path", { class: "curve-grid", d: [0.25, 0.5, 0.75].map((part) => `M0 ${HIGH * part}H${WIDE}`).join("") }),
      svg("path", { class: "curve-raw", d: path(thin(steps).map((one) => [x(one.step), clipped(one.loss)])) }),
      svg("path", { class: "curve-loss", d: path(thin(losses).map(([step, value]) => [x(step), y(value)])) }),
      judged.length > 0 && svg("path", { class: "curve-judged", d: path(judged.map((one) => [x(one.step), y(one.validation)])) }),
      judged.length > 0 && svg("path", { class: "curve-dot", d: judged.map((one) => `M${x(one.step)} ${y(one.validation)}h0`).join("") }));
    const top = Math.max(...steps.map((one) => one.rate)) || 1;
    fill(this.rate, svg("path", { class: "curve-rate", d: path(thin(steps).map((one) => [x(one.step), LOW - 2 - (LOW - 6) * (one.rate / top)])) }));
    this.high.textContent = few(high);
    this.low.textContent = few(low);
    const [first, last] = [losses[0][1], losses.at(-1)[1]];
    this.loss.setAttribute("aria-label", t("curve.said", { steps: steps.length, first: few(first), last: few(last) }));
    if (!this.pointed) this._say(steps.at(-1));
  }

  _say(step) {
    const judged = (step.validation ?? null) !== null && `${t("curve.validation")} ${few(step.validation)}`;
    this.read.textContent = [t("curve.at", { step: number(step.step), loss: few(step.loss) }), judged, t("curve.rate.at", { rate: few(step.rate) })].filter(Boolean).join(" · ");
  }

  /** Tells of the step under the pointer. */
  _point(event) {
    this.pointed = Boolean(event);
    this.line.hidden = !event;
    if (!event) return this.steps.length && this._say(this.steps.at(-1));
    const box = this.box.getBoundingClientRect();
    const part = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    const wanted = part * this.total;
    const step = this.steps.reduce((best, one) => (Math.abs(one.step - wanted) < Math.abs(best.step - wanted) ? one : best), this.steps[0]);
    paint(this.line, { left: `${(100 * step.step) / Math.max(1, this.total)}%` });
    this._say(step);
  }
}

const path = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** Not more of a list than can be seen, the last of it in any case. */
function thin(list) {
  const every = Math.ceil(list.length / MOST);
  return every === 1 ? list : list.filter((_, index) => index % every === 0 || index === list.length - 1);
}

/** The loss as it goes, each step weighed less the longer ago it was: what one batch has is mostly chance. */
function smoothed(steps) {
  const keep = Math.min(SMOOTH, 1 - 4 / Math.max(8, steps.length));
  let [sum, weight] = [0, 0];
  return steps.map((one) => {
    sum = sum * keep + one.loss;
    weight = weight * keep + 1;
    return [one.step, sum / weight];
  });
}
