// The strip of what was made today and what is being made, newest first; a job's tile becomes its output's.

import { fill, h, paint } from "../../dom.js";
import { addWords, t } from "../../words.js";
import { icon } from "../icons.js";

addWords({
  en: {
    "strip.label": "Today, newest first", "strip.label.earlier": "Made earlier, newest first", "strip.waiting": "Waiting: {prompt}", "strip.running": "Being made: {prompt}", "strip.failed": "Failed: {prompt}",
    "strip.cancel": "Take out of the queue", "strip.stop": "Stop", "strip.rest": "{n} more", "strip.dismiss": "Dismiss",
  },
  zh: {
    "strip.label": "今天的作品，最新在前", "strip.label.earlier": "之前的作品，最新在前", "strip.waiting": "等待中：{prompt}", "strip.running": "生成中：{prompt}", "strip.failed": "失败：{prompt}",
    "strip.cancel": "移出队列", "strip.stop": "停止", "strip.rest": "还有 {n} 张", "strip.dismiss": "忽略",
  },
});

const HIGH = 84; // px of a tile
const WIDEST = 2.2; // times its height
const SHOWN = 6; // pictures of one job that get tiles before they are made

export class Strip {
  /** `choose(item)` hears what is chosen, `cancel(job)` and `dismiss(job)` what shall go, `more()` that the end is near. */
  constructor({ choose, cancel, dismiss, more }) {
    Object.assign(this, { choose, cancel, dismiss });
    this.tiles = new Map();
    this.element = h("div", { class: "recent-box" }, this.list = h("ul", {
      class: "recent", on: {
        keydown: (event) => this._key(event),
        scroll: () => { if (this.list.scrollLeft + this.list.clientWidth * 2 > this.list.scrollWidth) more(); },
      },
    }));
    this.list.addEventListener("wheel", (event) => {
      if (Math.abs(event.deltaY) <= Math.abs(event.deltaX) || this.list.scrollWidth <= this.list.clientWidth) return;
      event.preventDefault();
      this.list.scrollLeft += event.deltaY;
    }, { passive: false });
  }

  /** Shows jobs (newest first) and outputs (newest first); `chosen` is the key of the one that is looked at. */
  draw(jobs, outputs, chosen, { earlier = false } = {}) {
    this.list.setAttribute("aria-label", t(earlier ? "strip.label.earlier" : "strip.label"));
    const made = new Set(outputs.map((output) => keyOf(output)));
    const items = [];
    for (const job of jobs) {
      const recipe = job.recipe ?? {};
      const count = recipe.count ?? 1;
      const left = Array.from({ length: count }, (_, index) => index).filter((index) => !made.has(`${job.id}-${index}`));
      const shown = job.state === "failed" ? left.slice(0, 1) : left.slice(0, SHOWN);
      const rest = job.state === "failed" ? 0 : left.length - shown.length;
      shown.reverse().forEach((index, place) => items.push({ key: `${job.id}-${index}`, job, index, recipe, rest: place === 0 ? rest : 0 }));
    }
    // How many pictures come first, so that a waiting tile can say when its turn is.
    let ahead = 0;
    for (const item of [...items].reverse()) {
      if (item.job.state === "failed") continue;
      item.ahead = ahead;
      ahead += 1 + item.rest;
    }
    for (const output of outputs) items.push({ key: keyOf(output), output });
    this.items = items;
    const keep = new Set();
    items.forEach((item, place) => {
      let tile = this.tiles.get(item.key);
      if (!tile) this.tiles.set(item.key, tile = this._tile(item));
      keep.add(item.key);
      this._show(tile, item, chosen);
      const there = this.list.children[place];
      if (there !== tile.element) this.list.insertBefore(tile.element, there ?? null);
    });
    for (const [key, tile] of this.tiles) if (!keep.has(key)) { tile.element.remove(); this.tiles.delete(key); }
    const reachable = items.some((item) => item.key === chosen) ? chosen : items[0]?.key;
    for (const [key, tile] of this.tiles) tile.button.tabIndex = key === reachable ? 0 : -1;
  }

  /** Gives a job that the server now knows the tiles that it had before. */
  rename(before, after) {
    for (const [key, tile] of [...this.tiles]) {
      if (!key.startsWith(`${before}-`)) continue;
      this.tiles.delete(key);
      const now = `${after}-${key.slice(before.length + 1)}`;
      if (this.tiles.has(now)) tile.element.remove();
      else this.tiles.set(now, tile);
    }
  }

  /** Puts a preview or the progress of a job into its tile. */
  live(job, index, { source, share }) {
    const tile = this.tiles.get(`${job.id}-${index}`);
    if (!tile) return;
    if (source) tile.picture.src = source;
    if (source) tile.picture.hidden = false;
    if (share !== undefined) paint(tile.bar, { width: `${share * 100}%` });
  }

  reveal(key) { this.tiles.get(key)?.element.scrollIntoView({ block: "nearest", inline: "nearest" }); }

  _tile(item) {
    const picture = h("img", { alt: "", loading: "lazy", decoding: "async", hidden: true, draggable: "true" });
    const bar = h("i", { class: "print-bar" });
    const sign = h("span", { class: "print-sign" });
    const tile = { picture, bar, sign, shown: "" };
    tile.button = h("button", { type: "button", class: "print", on: { click: () => this.choose(tile.item) } }, picture, sign, bar);
    tile.close = h("button", { type: "button", class: "print-close", tabindex: "-1", hidden: true, on: { click: () => (tile.item.job.state === "failed" ? this.dismiss(tile.item.job) : this.cancel(tile.item.job)) } }, icon("close", 12));
    tile.element = h("li", {}, tile.button, tile.close);
    return tile;
  }

  _show(tile, item, chosen) {
    tile.item = item;
    const { job, output, recipe } = item;
    const size = output ?? recipe?.size ?? { width: 1, height: 1 };
    paint(tile.button, { width: `${Math.round(HIGH * Math.min(WIDEST, Math.max(0.5, size.width / size.height)))}px`, height: `${HIGH}px` });
    tile.button.setAttribute("aria-pressed", String(item.key === chosen));
    const state = output ? "made" : job.state;
    tile.element.className = `is-${state}`;
    const prompt = (output ?? recipe)?.prompt ?? "";
    tile.picture.alt = prompt || item.key;
    tile.button.setAttribute("aria-label", output ? prompt || item.key : t(state === "failed" ? "strip.failed" : state === "running" ? "strip.running" : "strip.waiting", { prompt }));
    tile.button.title = prompt;
    tile.close.hidden = Boolean(output) || Boolean(job.local);
    if (!output) tile.close.setAttribute("aria-label", t(state === "failed" ? "strip.dismiss" : state === "running" ? "strip.stop" : "strip.cancel"));
    if (state === "failed") delete tile.close.dataset.needs; // a failure is dismissed on this page alone
    else tile.close.dataset.needs = "generate";
    tile.close.title = tile.close.getAttribute("aria-label") ?? "";
    fill(tile.sign, item.rest ? `+${item.rest}` : output ? null : state === "failed" ? icon("warn") : state === "paused" ? icon("pause") : item.ahead ? String(item.ahead) : null);
    if (output && tile.shown !== output.id) {
      tile.shown = output.id;
      tile.picture.src = `/api/outputs/${output.id}/thumbnail?size=256`;
      tile.picture.hidden = false;
    }
  }

  _key(event) {
    const tiles = [...this.list.querySelectorAll(".print")];
    const at = tiles.indexOf(document.activeElement);
    if (at < 0) return;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tiles.length - 1 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") {
      const item = this.items[at];
      if (!item.job) return;
      (item.job.state === "failed" ? this.dismiss : this.cancel)(item.job);
    } else if (to === undefined) return;
    else if (tiles[to]) { tiles[to].focus(); tiles[to].click(); tiles[to].scrollIntoView({ block: "nearest", inline: "nearest" }); }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** The name of an output's tile; a picture of a job has it before it is made: the job's id and the picture's number. */
export const keyOf = (output) => output.id;
