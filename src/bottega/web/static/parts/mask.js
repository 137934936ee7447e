// The easel: paints on a picture which part of it shall be made anew, with mouse, pen, finger or keyboard.

import { fill, fresh, h, paint, put } from "../dom.js";
import { addWords, t } from "../words.js";
import { icon } from "./icons.js";

addWords({
  en: {
    "mask.title": "Paint what shall be made anew", "mask.brush": "Brush", "mask.eraser": "Eraser", "mask.size": "Brush size", "mask.undo": "Undo", "mask.redo": "Redo",
    "mask.invert": "Invert", "mask.clear": "Clear", "mask.done": "Use mask", "mask.cancel": "Cancel",
    "mask.canvas": "Mask. Arrow keys move the brush, Space paints, Shift moves farther, B and E choose brush and eraser, [ and ] its size.",
    "mask.said": "{share} % is painted",
  },
  zh: {
    "mask.title": "涂抹要重新绘制的部分", "mask.brush": "画笔", "mask.eraser": "橡皮", "mask.size": "笔刷大小", "mask.undo": "撤销", "mask.redo": "重做",
    "mask.invert": "反转", "mask.clear": "清除", "mask.done": "使用蒙版", "mask.cancel": "取消",
    "mask.canvas": "蒙版。方向键移动画笔，空格绘制，Shift 移动更远，B 和 E 选择画笔和橡皮，[ 和 ] 改变大小。",
    "mask.said": "已涂抹 {share}%",
  },
});

const PAINT = "#d4552b"; // as the mask is shown; only where it is matters
const MOST = 2048; // px of a mask's longer side: it is scaled to the picture's size anyway
const SIZES = [1, 60]; // of the brush, in hundredths of the picture's shorter side

export class Easel {
  /**
   * `done(blob)` gets the mask as PNG, white where the picture is made anew (null: nothing is painted); `left()` hears of
   * leaving without; `changed()` of every act. `acts` are those `kept` of an easel before, with the same picture and mask.
   */
  constructor({ width, height, source, alt, mask = null, acts = mask ? [{ kind: "sheet" }] : [], size = 12, done, left, changed, sized = () => {} }) {
    const scale = Math.min(1, MOST / Math.max(width, height));
    Object.assign(this, { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)), done, left, changed, sized });
    this.acts = acts; // what was done, to be done again from the start after an undo
    this.undone = [];
    this.erasing = false;
    this.brush = size;
    this.at = [this.width / 2, this.height / 2];
    this.canvas = h("canvas", {
      class: "easel-mask", width: this.width, height: this.height, tabindex: "0", role: "application", aria: { label: t("mask.canvas") },
      on: {
        pointerdown: (event) => this._down(event), pointermove: (event) => this._move(event), pointerup: (event) => this._up(event),
        pointercancel: (event) => this._up(event), pointerleave: () => this._aim(null), keydown: (event) => this._key(event),
        focus: () => this._aim(this.at), blur: () => this._aim(null),
      },
    });
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.cursor = h("span", { class: "easel-cursor", hidden: true });
    this.board = h("div", { class: "easel-board" }, h("img", { src: source, alt, draggable: "false" }), this.canvas, this.cursor);
    this.place = h("div", { class: "easel-place" }, this.board);
    const tool = (name, erasing) => h("button", { type: "button", class: "square", title: `${t(`mask.${name}`)} (${name[0].toUpperCase()})`, aria: { label: t(`mask.${name}`), pressed: String(erasing === this.erasing) }, on: { click: () => this._take(erasing) } }, icon(name));
    this.tools = [tool("brush", false), tool("eraser", true)];
    const act = (name, run, key) => h("button", { type: "button", class: "quiet square", title: key ? `${t(`mask.${name}`)} (${key})` : t(`mask.${name}`), aria: { label: t(`mask.${name}`) }, on: { click: run } }, icon(name === "clear" ? "trash" : name));
    this.undoButton = act("undo", () => this.undo(), "Ctrl+Z");
    this.redoButton = act("redo", () => this.redo(), "Ctrl+Y");
    const id = fresh("size");
    this.slider = h("input", { type: "range", id, min: SIZES[0], max: SIZES[1], step: "1", value: this.brush, on: { input: () => this._resize(Number(this.slider.value)) } });
    this.element = h("div", { class: "easel", role: "group", aria: { label: t("mask.title") } }, this.place,
      h("div", { class: "easel-bar" },
        h("div", { class: "row easel-tools" }, this.tools, h("label", { for: id, class: "unseen", text: t("mask.size") }), this.slider),
        h("div", { class: "row" }, this.undoButton, this.redoButton, act("invert", () => this._act({ kind: "invert" }), "I"), act("clear", () => this._act({ kind: "clear" }))),
        h("span", { class: "grow" }),
        h("div", { class: "row" }, h("button", { type: "button", class: "quiet", text: t("mask.cancel"), on: { click: () => this.left() } }),
          h("button", { type: "button", class: "main", text: t("mask.done"), on: { click: () => this.finish() } }))));
    this.observer = new ResizeObserver(() => this._fit());
    this.observer.observe(this.place);
    this._again();
    const first = acts.find((act) => act.kind === "sheet");
    this.loaded = first && this._load(mask, first);
  }

  focus() { this.canvas.focus({ preventScroll: true }); }

  close() { this.observer.disconnect(); }

  /** What was done, as plain data; null where there is nothing but the mask that was there before. */
  get kept() {
    if (this.acts.every((act) => act.kind === "sheet")) return null;
    return this.acts.map(({ sheet, ...act }) => act);
  }

  undo() {
    if (!this.acts.length) return;
    this._lift();
    this.undone.push(this.acts.pop());
    this._again();
  }

  redo() {
    if (!this.undone.length) return;
    this._lift();
    this.acts.push(this.undone.pop());
    this._again();
  }

  /** Hands over the mask. */
  async finish() {
    await this.loaded; // else the mask that was there would be lost
    const share = this.share();
    if (!share) return this.done(null);
    const flat = h("canvas", { width: this.width, height: this.height });
    const seen = this.pen.getImageData(0, 0, this.width, this.height);
    for (let at = 0; at < seen.data.length; at += 4) {
      const value = seen.data[at + 3] > 127 ? 255 : 0;
      seen.data.set([value, value, value, 255], at);
    }
    flat.getContext("2d").putImageData(seen, 0, 0);
    this.done(await new Promise((resolve) => flat.toBlob(resolve, "image/png")));
  }

  /** How much of the picture is painted, from 0 to 1. */
  share() {
    const { data } = this.pen.getImageData(0, 0, this.width, this.height);
    let painted = 0;
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) painted += 1;
    return painted / (data.length / 4);
  }

  async _load(address, act) {
    const picture = new Image();
    picture.src = address;
    try {
      await picture.decode();
    } catch { // a mask that is gone is painted again
      this.acts = this.acts.filter((one) => one !== act);
      return this._draw();
    }
    const sheet = new OffscreenCanvas(this.width, this.height);
    const pen = sheet.getContext("2d");
    pen.drawImage(picture, 0, 0, this.width, this.height);
    const seen = pen.getImageData(0, 0, this.width, this.height);
    for (let at = 0; at < seen.data.length; at += 4) seen.data[at + 3] = seen.data[at] > 127 ? 255 : 0;
    pen.putImageData(seen, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = PAINT;
    pen.fillRect(0, 0, this.width, this.height);
    act.sheet = sheet;
    this._again();
  }

  _fit() {
    const { clientWidth, clientHeight } = this.place;
    const scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    if (!scale) return;
    paint(this.board, { width: `${this.width * scale}px`, height: `${this.height * scale}px` });
    this.scale = scale;
    this._aim(this.aimed);
  }

  get radius() { return Math.max(0.5, (this.brush / 200) * Math.min(this.width, this.height)); }

  _take(erasing) {
    this.erasing = erasing;
    this.tools[0].setAttribute("aria-pressed", String(!erasing));
    this.tools[1].setAttribute("aria-pressed", String(erasing));
  }

  _resize(size) {
    this.brush = Math.min(SIZES[1], Math.max(SIZES[0], size));
    this.slider.value = this.brush;
    paint(this.slider, { "--fill": `${((this.brush - SIZES[0]) / (SIZES[1] - SIZES[0])) * 100}%` });
    this.sized(this.brush);
    this._aim(this.aimed);
  }

  // ------------------------------------------------------------------------------------------------------- painting

  _act(act) {
    this._lift();
    this.acts.push(act);
    this.undone = [];
    this._do(act);
    this._draw();
    this.changed();
  }

  _again() {
    this.pen.clearRect(0, 0, this.width, this.height);
    for (const act of this.acts) this._do(act);
    this._draw();
    this.changed();
  }

  _do(act) {
    const { pen } = this;
    pen.globalCompositeOperation = "source-over";
    if (act.kind === "clear") pen.clearRect(0, 0, this.width, this.height);
    else if (act.kind === "sheet") act.sheet && pen.drawImage(act.sheet, 0, 0);
    else if (act.kind === "invert") {
      pen.globalCompositeOperation = "xor";
      pen.fillStyle = PAINT;
      pen.fillRect(0, 0, this.width, this.height);
    } else for (let index = 0; index < act.points.length; index += 1) this._dab(act, index);
  }

  _dab(act, index) {
    const { pen } = this;
    const [x, y] = act.points[index];
    const [fromX, fromY] = act.points[Math.max(0, index - 1)];
    pen.globalCompositeOperation = act.erasing ? "destination-out" : "source-over";
    pen.strokeStyle = PAINT;
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = act.radius * 2;
    pen.beginPath();
    pen.moveTo(fromX, fromY);
    pen.lineTo(x + (x === fromX && y === fromY ? 0.01 : 0), y);
    pen.stroke();
  }

  _draw() {
    this.undoButton.disabled = !this.acts.length;
    this.redoButton.disabled = !this.undone.length;
    paint(this.slider, { "--fill": `${((this.brush - SIZES[0]) / (SIZES[1] - SIZES[0])) * 100}%` });
  }

  _point(event) {
    const box = this.canvas.getBoundingClientRect();
    const tenth = (value) => Math.round(value * 10) / 10; // of a pixel: strokes are kept as text
    return [tenth(((event.clientX - box.left) / box.width) * this.width), tenth(((event.clientY - box.top) / box.height) * this.height)];
  }

  _down(event) {
    if (event.button > 0 && event.button !== 5) return;
    if (!event.isPrimary) return this._drop(); // nobody paints with two fingers: they meant something else
    if (this.stroke) return; // a palm beside the pen
    this.canvas.setPointerCapture(event.pointerId);
    this.focus();
    const erasing = this.erasing || event.button === 5 || event.altKey;
    const stroke = { kind: "stroke", erasing, radius: this.radius, points: [this._point(event)] };
    this._act(stroke);
    Object.assign(this, { stroke, pointer: event.pointerId });
  }

  _move(event) {
    if (this.stroke ? event.pointerId !== this.pointer : !event.isPrimary) return;
    this._aim(this._point(event));
    if (!this.stroke) return;
    for (const part of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      this.stroke.points.push(this._point(part));
      this._dab(this.stroke, this.stroke.points.length - 1);
    }
  }

  _up(event) { if (event.pointerId === this.pointer) this._lift(); }

  /** Ends the stroke that goes on: what is done next must not be mixed with it. */
  _lift() {
    if (this.stroke || this.held) this.changed();
    this.stroke = this.held = null;
  }

  /** Takes back the stroke that goes on. */
  _drop() {
    if (!this.stroke) return;
    this.acts.pop();
    this._lift();
    this._again();
  }

  /** Shows where the brush is, and how large. */
  _aim(point) {
    this.aimed = point;
    this.cursor.hidden = !point || !this.scale;
    if (!point || !this.scale) return;
    this.at = point;
    const side = this.radius * 2 * this.scale;
    paint(this.cursor, { width: `${side}px`, height: `${side}px`, transform: `translate(${point[0] * this.scale - side / 2}px, ${point[1] * this.scale - side / 2}px)` });
  }

  _key(event) {
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    const way = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[key];
    const step = Math.max(1, Math.min(this.width, this.height) * (event.shiftKey ? 0.1 : 0.02));
    if (way) {
      const to = [Math.min(this.width, Math.max(0, this.at[0] + way[0] * step)), Math.min(this.height, Math.max(0, this.at[1] + way[1] * step))];
      this._aim(to);
      if (this.held) { this.held.points.push(to); this._dab(this.held, this.held.points.length - 1); }
    } else if (key === " ") {
      if (!this.held && !event.repeat) {
        const stroke = { kind: "stroke", erasing: this.erasing, radius: this.radius, points: [this.at] };
        this._act(stroke);
        this.held = stroke;
        this.canvas.addEventListener("keyup", () => this._lift(), { once: true });
      }
    } else if (command && key === "z") event.shiftKey ? this.redo() : this.undo();
    else if (command && key === "y") this.redo();
    else if (command && key === "enter") this.finish();
    else if (command || event.altKey) return;
    else if (key === "b") this._take(false);
    else if (key === "e") this._take(true);
    else if (key === "i") this._act({ kind: "invert" });
    else if (key === "[") this._resize(this.brush - 2);
    else if (key === "]") this._resize(this.brush + 2);
    else if (key === "enter") this.finish();
    else if (key === "escape") this.left();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
