// A window on a list of any length: only what is near the screen exists, and the arrow keys walk all of it.

const NEAR = 0.5; // of a screen above and below that is drawn too
const BUDGET = 4; // ms of a frame that drawing may take; what is left over is drawn in the next one
const FIRST = 30; // ms of the first one, in which nothing moves yet
const FEW = 4; // pictures that one frame begins to fetch: many at once keep the next one waiting
const FAST = 120; // ms in which more than FAR goes by only where somebody passes through, who arrives with as long a rest
const FAR = 0.6; // of a screen
const LEAST = 480; // px that are far at least: on a low screen a gentle push goes by more than that one

/**
 * Equal cells in as many columns as fit.
 *
 * @param {number} count  cells
 * @param {number} width  px that there are
 * @param {{least: number, height: (width: number) => number, gap: number, most?: number}} wish  the least width of a
 *   cell, its height for its width, the space between two (all px), and the most columns
 */
export function cells(count, width, { least, height, gap, most = Infinity }) {
  const columns = Math.max(1, Math.min(most, Math.floor((width + gap) / (least + gap))));
  const wide = (width - gap * (columns - 1)) / columns;
  const high = Math.round(height(wide));
  const rows = Math.ceil(count / columns);
  return {
    count,
    height: Math.max(0, rows * (high + gap) - gap),
    between(top, bottom) {
      const first = Math.max(0, Math.floor(top / (high + gap))) * columns;
      return [Math.min(first, count), Math.min(count, (Math.floor(bottom / (high + gap)) + 1) * columns)];
    },
    place: (index) => [
      (index % columns) * (wide + gap),
      Math.floor(index / columns) * (high + gap),
      wide,
      high,
    ],
    below: (index) => (index + columns < count ? index + columns : index),
    above: (index) => (index >= columns ? index - columns : index),
  };
}

/**
 * Rows of pictures in their own proportions, each row as wide as there is room.
 *
 * @param {ArrayLike<number>} ratios  width over height of each picture
 * @param {number} width  px that there are
 * @param {{height: number, gap: number}} wish  about how high a row is, and the space between two pictures (px)
 */
export function justified(ratios, width, { height, gap }) {
  const count = ratios.length;
  const lefts = new Float32Array(count);
  const widths = new Float32Array(count);
  const rowOf = new Uint32Array(count);
  const firsts = [0];
  const tops = [0];
  const heights = [];
  let start = 0;
  let sum = 0;
  for (let index = 0; index < count; index++) {
    sum += shown(ratios[index]);
    const gaps = gap * (index - start);
    const last = index === count - 1;
    if (sum * height + gaps < width && !last) continue;
    // The last row is not blown up to fill the width; it may have to shrink into it.
    const high = Math.min((width - gaps) / sum, last ? height : height * 1.6);
    let left = 0;
    for (let each = start; each <= index; each++) {
      lefts[each] = left;
      widths[each] = shown(ratios[each]) * high;
      rowOf[each] = heights.length;
      left += widths[each] + gap;
    }
    heights.push(high);
    tops.push(tops.at(-1) + high + gap);
    firsts.push(index + 1);
    start = index + 1;
    sum = 0;
  }
  const rowAt = (y) => {
    let low = 0;
    let high = heights.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  const nearest = (row, x) => {
    if (row < 0 || row >= heights.length) return -1;
    let best = firsts[row];
    for (let index = best; index < firsts[row + 1]; index++) {
      if (Math.abs(lefts[index] + widths[index] / 2 - x) < Math.abs(lefts[best] + widths[best] / 2 - x)) best = index;
    }
    return best;
  };
  const beside = (index, step) => {
    const found = nearest(rowOf[index] + step, lefts[index] + widths[index] / 2);
    return found < 0 ? index : found;
  };
  return {
    count,
    height: count ? tops[heights.length] - gap : 0,
    between: (top, bottom) => (count ? [firsts[rowAt(top)], firsts[rowAt(bottom) + 1]] : [0, 0]),
    place: (index) => [lefts[index], tops[rowOf[index]], widths[index], heights[rowOf[index]]],
    below: (index) => beside(index, 1),
    above: (index) => beside(index, -1),
  };
}

/** The proportions in which a picture is shown in a row: extreme ones are cut. */
function shown(ratio) {
  return Math.min(3, Math.max(0.5, ratio || 1));
}

function* range(first, last) {
  for (let index = first; index < last; index++) yield index;
}

export class Window {
  /**
   * @param {HTMLElement} scroller  what scrolls; the window becomes its last child
   * @param {{
   *   label: string, layout: (width: number) => object, draw: (index: number) => HTMLElement,
   *   role?: string, item?: string, seen?: () => void, near?: (first: number, last: number) => void,
   *   open?: (index: number) => void, moved?: (index: number) => void,
   *   key?: (event: KeyboardEvent, index: number) => boolean,
   * }} wish  `layout` is `cells` or `justified` for a width; `draw` makes the element of an item, or of its place while
   *   it is not here; a picture in it whose address stands in `data-src`, and its text in `data-alt`, is fetched when
   *   it does not just pass by;
   *   `seen` is told when other items may be on the screen, `near` which are near it and stay there; `open` is for
   *   Enter and a click, `moved` for another active item; `key` may take a key (true) before the window does
   */
  constructor(scroller, wish) {
    Object.assign(this, { role: "listbox", item: "option", seen() {}, near() {}, open() {}, moved() {}, key: () => false }, wish);
    this.scroller = scroller;
    this.drawn = new Map();
    this.stale = new Set(); // drawn, and to be drawn again
    this.active = 0;
    this.scrolled = 0; // px, when it was last drawn: who asks the scroller has all laid out first
    this.way = []; // when it was drawn in the last FAST ms, and at how many px: the newest last
    this.box = document.createElement("div");
    this.box.className = "window";
    this.box.setAttribute("role", this.role);
    this.box.setAttribute("aria-label", this.label);
    scroller.append(this.box);
    this.frame = 0;
    this.loading = 0;
    this.onScreen = [0, 0];
    this.onscroll = () => this.#goOn();
    scroller.addEventListener("scroll", this.onscroll, { passive: true });
    this.box.addEventListener("keydown", (event) => this.#pressed(event));
    this.box.addEventListener("click", (event) => this.#clicked(event));
    this.box.addEventListener("focusin", (event) => {
      const index = this.indexOf(event.target);
      if (index >= 0 && index !== this.active) this.#activate(index);
    });
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(scroller);
  }

  /** Lay everything out anew: another list, other columns. What is on the screen is drawn again. */
  renew() {
    this.#lay();
    for (const element of this.drawn.values()) element.remove();
    this.drawn.clear();
    this.stale.clear();
    this.active = Math.max(0, Math.min(this.active, this.plan.count - 1));
    this.update();
  }

  /** The same list, of which more is known: what is drawn stays drawn, and is put where it belongs now. */
  relay() {
    this.#lay();
    for (const [index, element] of this.drawn) {
      if (index < this.plan.count) {
        this.#put(index, element);
        element.setAttribute("aria-setsize", this.plan.count);
      } else {
        element.remove();
        this.drawn.delete(index);
      }
    }
    this.update();
  }

  /** The same list at another width: what was at the top stays there. */
  resized() {
    const width = this.#width();
    if (!this.plan || width === this.width) return this.update();
    const [first] = this.plan.between(this.scroller.scrollTop, this.scroller.scrollTop + 1);
    const inside = this.plan.count ? this.scroller.scrollTop - this.plan.place(Math.min(first, this.plan.count - 1))[1] : 0;
    this.#lay();
    if (first > 0) this.scroller.scrollTop = this.plan.place(Math.min(first, this.plan.count - 1))[1] + inside;
    for (const [index, element] of this.drawn) if (index < this.plan.count) this.#put(index, element);
    this.update();
  }

  /** Draw these items again, as far as they are drawn: one at once, many as the frames have time for them. */
  redraw(first, last = first + 1) {
    for (const index of this.drawn.keys()) if (index >= first && index < last) this.stale.add(index);
    if (last === first + 1 && this.stale.delete(first)) {
      this.#redraw(first);
      if (!this.still) this.#load();
    } else if (this.stale.size) this.#goOn();
  }

  /** The item that an element belongs to; -1 for none. */
  indexOf(element) {
    const own = element.closest?.("[data-index]");
    return own && this.box.contains(own) ? Number(own.dataset.index) : -1;
  }

  /** Make an item the active one, bring it on the screen and give it the focus. */
  focus(index = this.active) {
    if (!this.plan?.count) return;
    const wanted = Math.max(0, Math.min(index, this.plan.count - 1));
    this.show(wanted);
    if (!this.drawn.has(wanted)) this.box.append(this.#make(wanted));
    if (wanted !== this.active) this.#activate(wanted);
    this.drawn.get(wanted).focus({ preventScroll: true });
    this.update();
  }

  /** Scroll no further than an item needs to be seen whole. */
  show(index) {
    const [, top, , high] = this.plan.place(index);
    const view = this.scroller;
    const offset = this.box.offsetTop;
    if (top + offset < view.scrollTop) view.scrollTop = Math.max(0, top + offset - 12);
    else if (top + high + offset > view.scrollTop + view.clientHeight) {
      view.scrollTop = top + high + offset + 12 - view.clientHeight;
    }
  }

  /** Draw what has come near the screen and drop what has left it: as much of it as one frame has time for. */
  update() {
    cancelAnimationFrame(this.frame);
    cancelAnimationFrame(this.loading);
    this.frame = 0;
    if (!this.plan) this.#lay();
    const began = performance.now();
    const end = began + (this.drawn.size ? BUDGET : FIRST);
    const high = this.scroller.clientHeight;
    const scrolled = this.scroller.scrollTop;
    const top = scrolled - this.box.offsetTop;
    const [first, last] = this.plan.between(Math.max(0, top - high * NEAR), Math.max(0, top + high * (1 + NEAR)));
    for (const [index, element] of this.drawn) {
      // The focused one stays, or the focus would be lost to the page.
      if ((index < first || index >= last) && !(index === this.active && element.contains(document.activeElement))) {
        element.remove();
        this.drawn.delete(index);
        this.stale.delete(index);
      }
    }
    const [seen, unseen] = this.onScreen = this.plan.between(Math.max(0, top), Math.max(0, top + high));
    const wanted = [...range(seen, unseen), ...range(unseen, last), ...range(first, seen)];
    const fresh = document.createDocumentFragment();
    for (const index of wanted) {
      if (this.drawn.has(index) && !this.stale.has(index)) continue;
      if (performance.now() > end) {
        this.#goOn();
        break;
      }
      if (this.stale.delete(index) && this.drawn.has(index)) this.#redraw(index);
      else fresh.append(this.#make(index));
    }
    this.box.append(fresh);
    this.way = this.way.filter(([time]) => began - time < FAST);
    const far = ([, place]) => Math.abs(scrolled - place) > Math.max(high * FAR, LEAST);
    const passing = this.way.some(far);
    const leaping = passing && far(this.way.at(-1));
    this.scrolled = scrolled;
    this.way.push([began, scrolled]);
    clearTimeout(this.still);
    this.still = passing && setTimeout(() => this.#arrive(first, last), FAST);
    // One who rushes past sees what is there, but no pictures; one who leaps sees nothing of what is between.
    if (!leaping) this.near(first, last);
    if (!passing) this.#load();
    this.seen();
  }

  /** Stop looking at the scroller, and take the window out of it. */
  close() {
    cancelAnimationFrame(this.frame);
    cancelAnimationFrame(this.loading);
    clearTimeout(this.still);
    this.observer.disconnect();
    this.scroller.removeEventListener("scroll", this.onscroll);
    this.box.remove();
  }

  #arrive(first, last) {
    this.still = null;
    this.way = [];
    this.near(first, last);
    this.#load();
  }

  #goOn() {
    this.frame ||= requestAnimationFrame(() => this.update());
  }

  /** Fetch the pictures that wait, those on the screen first; in a tab that nobody sees there are no frames to wait for. */
  #load() {
    const [first, last] = this.onScreen;
    const isSeen = (picture) => first <= this.indexOf(picture) && this.indexOf(picture) < last;
    const waiting = [...this.box.querySelectorAll("img[data-src]")].sort((one, other) => isSeen(other) - isSeen(one));
    const few = document.hidden ? Infinity : FEW;
    for (const picture of waiting.slice(0, few)) {
      const { src, alt = "" } = picture.dataset;
      Object.assign(picture, { src, alt }); // not before: a picture without an address is laid out as its text
      delete picture.dataset.src;
    }
    cancelAnimationFrame(this.loading);
    if (waiting.length > few) this.loading = requestAnimationFrame(() => this.#load());
  }

  #width() {
    const style = getComputedStyle(this.scroller);
    return this.scroller.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  }

  #lay() {
    this.width = this.#width();
    this.plan = this.layout(this.width);
    this.box.style.height = `${this.plan.height}px`;
  }

  #redraw(index) {
    const old = this.drawn.get(index);
    const focused = old.contains(document.activeElement);
    const fresh = this.#make(index);
    old.replaceWith(fresh);
    if (focused) fresh.focus({ preventScroll: true });
  }

  #make(index) {
    const element = this.draw(index);
    element.dataset.index = index;
    element.setAttribute("role", this.item);
    element.setAttribute("aria-posinset", index + 1);
    element.setAttribute("aria-setsize", this.plan.count);
    element.tabIndex = index === this.active ? 0 : -1;
    this.#put(index, element);
    this.drawn.set(index, element);
    return element;
  }

  #put(index, element) {
    const [left, top, wide, high] = this.plan.place(index);
    element.style.transform = `translate(${left}px, ${top}px)`;
    element.style.width = `${wide}px`;
    element.style.height = `${high}px`;
  }

  #activate(index) {
    const before = this.drawn.get(this.active);
    if (before) before.tabIndex = -1;
    this.active = index;
    const now = this.drawn.get(index);
    if (now) now.tabIndex = 0;
    this.moved(index);
  }

  #clicked(event) {
    const index = this.indexOf(event.target);
    if (index < 0 || event.defaultPrevented) return;
    this.focus(index);
    this.open(index, event);
  }

  #pressed(event) {
    const index = this.indexOf(event.target);
    if (index < 0 || event.target.dataset.index === undefined) return;
    if (this.key(event, index)) return event.preventDefault();
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const screen = Math.max(1, Math.floor(this.scroller.clientHeight / (this.plan.place(index)[3] || 1)));
    const steps = (one) => Array.from({ length: screen }).reduce(one, index);
    const moves = {
      ArrowRight: () => index + 1,
      ArrowLeft: () => index - 1,
      ArrowDown: () => this.plan.below(index),
      ArrowUp: () => this.plan.above(index),
      PageDown: () => steps((at) => this.plan.below(at)),
      PageUp: () => steps((at) => this.plan.above(at)),
      Home: () => 0,
      End: () => this.plan.count - 1,
    };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.open(index, event);
    } else if (moves[event.key]) {
      event.preventDefault();
      this.focus(moves[event.key]());
    }
  }
}
