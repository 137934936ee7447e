// A picture that can be looked at closely: wheel, pinch and keys zoom, dragging moves it.

import { h } from "../dom.js";

const MOST = 16; // times its own size, or four times as large as fits
const SWIPE = 50; // px that a finger goes to swipe
const SMOOTH = 3; // from this scale on, pixels are shown as squares

export class Stage {
  /**
   * @param {{width: number, height: number, alt: string, moved?: (view: object) => void,
   *   swiped?: (step: number) => void}} picture  its size in its own
   *   pixels, and the text for who can't see it; `moved` hears of every change of the view, to keep two in step;
   *   `swiped` of a finger that goes to the next picture (1) or the one before (-1)
   */
  constructor({ width, height, alt, moved = () => {}, swiped = () => {} }) {
    Object.assign(this, { width, height, moved, swiped });
    this.picture = h("img", { class: "stage-picture", alt, draggable: "false", decoding: "async" });
    this.element = h("div", { class: "stage" }, this.picture);
    this.view = { scale: 0, x: 0, y: 0 }; // scale 0: as large as fits; x, y: of the middle, in shares of the picture
    this.pointers = new Map();
    this.element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.element.addEventListener("dblclick", (event) => this.#toggle(event));
    this.element.addEventListener("pointerdown", (event) => this.#down(event));
    this.element.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) this.element.addEventListener(end, (event) => this.#up(event));
    this.observer = new ResizeObserver(() => this.#put());
    this.observer.observe(this.element);
  }

  /** Show an address, with another one of the same picture until it is there. */
  show(address, meanwhile = "") {
    this.picture.src = meanwhile || address;
    if (!meanwhile) return;
    const whole = new Image();
    whole.decoding = "async";
    whole.src = address;
    this.coming = whole;
    whole.decode().then(
      () => {
        if (this.coming === whole) this.picture.src = address;
      },
      () => {
        // What is too large to be decoded at once is there all the same; what is gone leaves its small picture.
        if (this.coming === whole && whole.naturalWidth) this.picture.src = address;
      },
    );
  }

  /** Another picture in the same place, from the beginning. */
  change({ width, height, alt }) {
    Object.assign(this, { width, height });
    this.picture.alt = alt;
    this.fit();
  }

  /** The whole picture. */
  fit() {
    this.look({ scale: 0, x: 0, y: 0 });
  }

  /** Nearer (above 1) or farther (below 1), around a point of the stage (px from its middle). */
  zoom(factor, x = 0, y = 0) {
    const before = this.#scale();
    const least = this.#fitting();
    const after = Math.min(Math.max(MOST, least * 4), Math.max(least, before * factor));
    if (after <= least * 1.001) return this.fit();
    const share = (point, size) => point / (size * before) - point / (size * after);
    this.look({
      scale: after,
      x: this.view.x + share(x, this.width),
      y: this.view.y + share(y, this.height),
    });
  }

  /** One pixel of the picture on one of the screen, or the whole picture again. */
  toggle(x = 0, y = 0) {
    if (this.view.scale) this.fit();
    else this.zoom(Math.max(1 / devicePixelRatio, this.#fitting() * 2) / this.#scale(), x, y);
  }

  /** See it as another stage does. */
  look(view, { tell = true } = {}) {
    this.view = { ...view };
    this.#put();
    if (tell) this.moved(this.view);
  }

  /** Stop watching its size. */
  close() {
    this.observer.disconnect();
  }

  #fitting() {
    const { clientWidth, clientHeight } = this.element;
    return Math.min(clientWidth / this.width, clientHeight / this.height, Math.max(1, 512 / Math.max(this.width, this.height)) * 2) || 1;
  }

  #scale() {
    return this.view.scale || this.#fitting();
  }

  #put() {
    const scale = this.#scale();
    const { clientWidth, clientHeight } = this.element;
    const room = (size, there) => Math.max(0, (size * scale - there) / 2 / (size * scale));
    const within = (value, most) => Math.max(-most, Math.min(most, value));
    this.view.x = within(this.view.x, room(this.width, clientWidth));
    this.view.y = within(this.view.y, room(this.height, clientHeight));
    const left = clientWidth / 2 - (0.5 + this.view.x) * this.width * scale;
    const top = clientHeight / 2 - (0.5 + this.view.y) * this.height * scale;
    const style = this.picture.style;
    style.width = `${this.width * scale}px`;
    style.height = `${this.height * scale}px`;
    style.transform = `translate(${left}px, ${top}px)`;
    this.picture.classList.toggle("is-close", this.view.scale > 0 && scale * devicePixelRatio >= SMOOTH);
    this.element.classList.toggle("is-zoomed", this.view.scale > 0);
  }

  #from(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...this.#from(event));
  }

  #toggle(event) {
    this.toggle(...this.#from(event));
  }

  #down(event) {
    if (event.button) return;
    this.element.setPointerCapture(event.pointerId);
    this.began = this.pointers.size ? null : [event.clientX, event.clientY];
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (other) {
      const far = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      this.zoom(far(now) / far(before), ...this.#from(event));
    } else if (this.view.scale) {
      const scale = this.#scale();
      this.look({
        scale,
        x: this.view.x - (now[0] - before[0]) / (this.width * scale),
        y: this.view.y - (now[1] - before[1]) / (this.height * scale),
      });
    }
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.began || this.view.scale || event.pointerType === "mouse" || event.type === "pointercancel") return;
    const [across, down] = [event.clientX - this.began[0], event.clientY - this.began[1]];
    if (Math.abs(across) > SWIPE && Math.abs(across) > 2 * Math.abs(down)) this.swiped(across < 0 ? 1 : -1);
  }
}
