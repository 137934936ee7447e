// One output as large as the window, its recipe and what came of what beside it; the arrows go to its neighbours.

import { h, fill, put } from "../dom.js";
import { addWords, bytes, duration, moment, number } from "../words.js";
import { compare } from "./beside.js";
import { facts, hash, section } from "./facts.js";
import { icon } from "./icons.js";
import { lineageGraph } from "./lineage.js";
import { menu } from "./popover.js";
import { recipeOf, recipeView } from "./recipe.js";
import { Stage } from "./stage.js";

const VARIATION = 0.35; // how far the four that "vary" makes are from this one
const VARIED = 4;

addWords({
  en: {
    "look.close": "Back to the gallery", "look.of": "{n} of {total}", "look.next": "Next", "look.before": "Before",
    "look.again": "Make again", "look.vary": "Vary", "look.start": "Use as start", "look.edit": "Open in Make",
    "look.star": "Favourite", "look.folder": "Folder", "look.compare": "Compare", "look.download": "Download", "look.delete": "Delete",
    "look.restore": "Restore", "look.recipe": "Recipe", "look.more": "What can be done with it",
    "look.compare.older": "With the one made before", "look.compare.newer": "With the one made after", "look.compare.pick": "Pick another …",
    "look.queued": "Queued", "look.queue": "See the queue",
    "look.lineage": "What came of what", "look.lineage.alone": "Made from words alone; nothing was made from it yet.",
    "look.edge.init": "started from it", "look.edge.mask": "masked by it", "look.edge.variation": "another variation of the same recipe",
    "look.edge.replay": "the same recipe once more", "look.edge.seed": "the same recipe with another seed", "look.lineage.more": "and {n} more",
    "look.file": "File", "look.made": "Made", "look.took": "Took", "look.format": "Format", "look.bytes": "Size of the file",
    "look.digest": "Recipe digest", "look.gone": "The file is no longer in the outputs folder; its recipe is still here, and can make it again.",
    "look.missing": "This output is not here any more.", "look.keys.zoom": "Zoom", "look.keys.fit": "Whole picture",
    "look.input": "A picture that was given",
  },
  zh: {
    "look.close": "返回画廊", "look.of": "第 {n} 件，共 {total} 件", "look.next": "下一件", "look.before": "上一件",
    "look.again": "再做一次", "look.vary": "变化", "look.start": "以此为起点", "look.edit": "在创作中打开",
    "look.star": "收藏", "look.folder": "文件夹", "look.compare": "比较", "look.download": "下载", "look.delete": "删除",
    "look.restore": "恢复", "look.recipe": "配方", "look.more": "可以做什么",
    "look.compare.older": "与前一件比较", "look.compare.newer": "与后一件比较", "look.compare.pick": "另选一件……",
    "look.queued": "已加入队列", "look.queue": "查看队列",
    "look.lineage": "来龙去脉", "look.lineage.alone": "仅由文字生成；还没有由它衍生的作品。",
    "look.edge.init": "以此为起点", "look.edge.mask": "以此为蒙版", "look.edge.variation": "同一配方的另一变体",
    "look.edge.replay": "同一配方再次制作", "look.edge.seed": "同一配方，另一种子", "look.lineage.more": "还有 {n} 件",
    "look.file": "文件", "look.made": "制作于", "look.took": "用时", "look.format": "格式", "look.bytes": "文件大小",
    "look.digest": "配方摘要", "look.gone": "文件已不在输出文件夹中；配方还在，可以再做一次。",
    "look.missing": "这件作品已不在这里。", "look.keys.zoom": "缩放", "look.keys.fit": "完整图片",
    "look.input": "给定的图片",
  },
});

export class Look {
  /**
   * @param {object} context  what the frame gives to rooms
   * @param {object} host  the room: `pages`, `ratios`, `window`, `state`, `element`, `go(changes)`, and what it can do
   *   with outputs: `favour`, `remove`, `restore`, `folderMenu`, `choose`
   */
  constructor(context, host) {
    Object.assign(this, { context, host, t: context.t, item: null, index: -1 });
    const only = (run) => (event) => (this.isOpen ? run(event) : false);
    const { t } = this;
    context.keys({
      right: { text: t("look.next"), run: only(() => this.step(1)) },
      left: { text: t("look.before"), run: only(() => this.step(-1)) },
      esc: { run: only(() => this.leave()) },
      f: { needs: "generate", run: only(() => this.host.favour([this.item])) },
      i: { text: t("look.recipe"), run: only(() => this.toggleSide()) },
      m: { text: t("look.again"), needs: "generate", run: only(() => this.again()) },
      v: { text: t("look.vary"), needs: "generate", run: only(() => this.vary()) },
      s: { text: t("look.start"), needs: "generate", run: only(() => this.start()) },
      "+": { text: t("look.keys.zoom"), run: only(() => this.stage?.zoom(1.5)) },
      "=": { run: only(() => this.stage?.zoom(1.5)) },
      "-": { run: only(() => this.stage?.zoom(1 / 1.5)) },
      0: { text: t("look.keys.fit"), run: only(() => this.stage?.fit()) },
      delete: { needs: "generate", run: only(() => this.remove()) },
      x: { run: only(() => undefined) },
      c: { run: only(() => this.compareWith(1)) },
      "ctrl+a": { run: (event) => (this.isOpen ? undefined : false) },
    });
  }

  get isOpen() {
    return Boolean(this.element);
  }

  /** Ask which settings are at their defaults; until that is known, every setting is shown. */
  learn() {
    this.learning ??= this.context.api.get("/api/forms").then((forms) => { this.forms = forms; }, () => { this.learning = null; });
  }

  /** Show an output; it may lie anywhere in the list, or not in it at all. */
  async open(id) {
    this.learn();
    if (this.item?.id === id && this.isOpen) return;
    this.index = this.host.pages.find((item) => item.id === id);
    let item = this.index >= 0 ? this.host.pages.at(this.index) : null;
    if (!this.isOpen) this.build();
    if (!item) {
      try {
        item = await this.context.api.get(`/api/outputs/${id}`);
      } catch (error) {
        this.context.toast({ text: error.status === 404 ? this.t("look.missing") : this.context.saying(error), kind: "error" });
        return this.leave();
      }
      if (!this.isOpen || this.host.state.output !== id) return;
      this.index = this.host.pages.find((other) => other.id === id); // the list may have come meanwhile
    }
    this.show(item);
  }

  /** Leave the output, and go back to where it lies in the list. */
  leave() {
    this.host.go({ output: "" });
  }

  /** Take the view away; the address says already that it is closed. */
  shut() {
    if (!this.isOpen) return;
    for (const other of this.hidden) other.inert = false;
    this.stage?.close();
    this.element.remove();
    this.element = this.stage = this.item = null;
    if (this.index >= 0) this.host.window.focus(this.index);
  }

  close() {
    this.shut();
  }

  /** Items have come: neighbours that were waited for may be among them. */
  arrived() {
    if (!this.isOpen || !this.item) return;
    if (this.index < 0) this.index = this.host.pages.find((item) => item.id === this.item.id);
    const coming = this.coming;
    if (coming !== undefined && this.host.pages.at(coming)) {
      this.coming = undefined;
      this.host.go({ output: this.host.pages.at(coming).id });
    }
    this.drawPlace();
  }

  /** So many new outputs stand before this one now. */
  moved(more) {
    if (this.index >= 0) this.index += more;
    if (this.isOpen) this.drawPlace();
  }

  /** An output is different now. */
  changed(item) {
    if (this.item?.id !== item.id) return;
    this.item = { ...this.item, ...item };
    this.star.setAttribute("aria-pressed", String(Boolean(item.favourite)));
  }

  /** Outputs have gone from the list: the next one is shown, or none. */
  removed(gone) {
    if (!this.isOpen || !gone.has(this.item?.id)) return;
    const at = Math.min(this.index, this.host.ratios.length - 1);
    const next = this.host.pages.at(at);
    this.index = -1;
    if (next) this.host.go({ output: next.id });
    else if (at >= 0) { // its page is asked for again, as one is gone from it
      this.coming = at;
      this.host.pages.want(at, at + 1);
    } else this.leave();
  }

  build() {
    const { t, context } = this;
    const act = (name, drawing, run, { text = false, main = false, key = "", needs } = {}) => h("button", {
      type: "button", data: needs && { needs }, class: [main ? "main" : "quiet", !text && "square"], title: key ? `${t(name)} (${key})` : t(name), aria: { label: t(name) }, on: { click: run },
    }, icon(drawing), text && h("span", { class: main ? "" : "wide-only", text: t(name) }));
    this.place = h("span", { class: "look-place number" });
    this.star = act("look.star", "star", () => this.host.favour([this.item]), { key: "F", needs: "generate" });
    const folder = act("look.folder", "folder", () => {});
    const compared = act("look.compare", "compare", () => {});
    const trash = this.host.state.view === "trash";
    this.download = h("a", { class: "button quiet square", title: t("look.download"), aria: { label: t("look.download") } }, icon("download"));
    this.sideButton = act("look.recipe", "recipe", () => this.toggleSide(), { key: "I" });
    this.sideButton.classList.add("look-toggle");
    const head = h("header", { class: "look-head" }, act("look.close", "close", () => this.leave(), { key: "Esc" }), this.place);
    const acts = h("div", { class: "look-acts", role: "toolbar", aria: { label: t("look.more") } },
      trash
        ? act("look.restore", "undo", () => this.host.restore([this.item.id]), { text: true, main: true, needs: "generate" })
        : [
            act("look.again", "reuse", () => this.again(), { text: true, main: true, key: "M", needs: "generate" }),
            act("look.vary", "vary", () => this.vary(), { text: true, key: "V", needs: "generate" }),
            act("look.start", "picture", () => this.start(), { text: true, key: "S", needs: "generate" }),
            act("look.edit", "brush", () => this.edit(), { text: true, needs: "generate" }),
            h("span", { class: "look-line wide-only", data: { needs: "generate" } }), this.star, h("span", { class: "narrow-box", data: { needs: "generate" } }, folder), h("span", { class: "narrow-box" }, compared),
            this.download, act("look.delete", "trash", () => this.remove(), { key: "Del", needs: "generate" }),
          ]);
    this.frame = h("div", { class: "look-frame" });
    const arrow = (name, drawing, step, side) => h("button", {
      type: "button", class: ["quiet", "square", "look-arrow", side], title: t(name), aria: { label: t(name) }, on: { click: () => this.step(step) },
    }, icon(drawing, 20));
    this.arrows = [arrow("look.before", "left", -1, "is-left"), arrow("look.next", "right", 1, "is-right")];
    this.side = h("aside", { class: "look-side scrolls", aria: { label: t("look.recipe") } });
    this.element = h("div", { class: "look", role: "dialog", tabindex: "-1", aria: { modal: "true", label: t("room.gallery") } },
      head, acts, this.sideButton, h("div", { class: "look-body" }, h("div", { class: "look-stage" }, this.frame, this.arrows), this.side));
    if (!trash) this.host.folderMenu(folder, () => [this.item]);
    if (!trash) menu(compared, () => [
      { text: t("look.compare.older"), key: "C", run: () => this.compareWith(1) },
      { text: t("look.compare.newer"), run: () => this.compareWith(-1) },
      "-",
      { text: t("look.compare.pick"), run: () => this.pickOther() },
    ], { side: "end", label: t("look.compare") });
    this.showSide(context.store.get("side", innerWidth > 700));
    this.hidden = [...this.host.element.children, document.querySelector("header.bar")];
    for (const other of this.hidden) other.inert = true;
    this.host.element.append(this.element);
    this.element.focus({ preventScroll: true });
  }

  show(item) {
    const { api } = this.context;
    this.item = item;
    const [width, height] = [item.width || 512, item.height || 512];
    const alt = item.prompt || item.id;
    if (item.missing) {
      this.stage?.close();
      this.stage = null;
      fill(this.frame, h("div", { class: "nothing" }, icon("warn", 20), h("p", { text: this.t("look.gone") })));
    } else {
      if (!this.stage) {
        this.stage = new Stage({ width, height, alt, swiped: (step) => this.step(step) });
        fill(this.frame, this.stage.element);
      }
      this.stage.change({ width, height, alt });
      this.stage.show(`/api/outputs/${item.id}/file`, api.address(`/api/outputs/${item.id}/thumbnail`, { size: 256 }));
    }
    this.element.setAttribute("aria-label", alt);
    this.download.href = `/api/outputs/${item.id}/file`;
    this.download.setAttribute("download", `${item.id}.${item.format || "png"}`);
    this.changed(item);
    this.drawPlace();
    this.prepare();
    this.tell(item);
  }

  /** The recipe, which the list does not carry, and what is known beside it. */
  async tell(item) {
    clearTimeout(this.telling);
    if (item.recipe === undefined) {
      // Whoever walks fast through the pictures asks for no recipe that is gone before it comes.
      await new Promise((resolve) => { this.telling = setTimeout(resolve, 60); });
      if (this.item?.id !== item.id) return;
      try {
        const whole = await this.context.api.get(`/api/outputs/${item.id}`);
        if (this.item?.id !== item.id) return;
        this.item = { ...this.item, ...whole };
      } catch (error) {
        if (this.item?.id === item.id) fill(this.side, h("p", { class: "wrong", text: this.context.saying(error) }));
        return;
      }
    }
    this.drawSide();
  }

  drawPlace() {
    const total = this.host.ratios.length;
    this.place.textContent = this.index >= 0 && total ? this.t("look.of", { n: number(this.index + 1), total: number(total) }) : "";
    this.arrows[0].disabled = this.index <= 0;
    this.arrows[1].disabled = this.index < 0 || this.index >= total - 1;
  }

  drawSide() {
    const { item, t } = this;
    const { copy } = this.context;
    const recipe = recipeOf(item);
    const lineage = h("div", { class: "look-lineage" });
    fill(this.side, recipeView(recipe, copy, this.forms),
      section(t("look.lineage"), lineage),
      section(t("look.file"), facts([
        [t("look.made"), moment(item.created), new Date(item.created * 1000).toISOString()],
        [t("look.took"), item.seconds ? duration(item.seconds) : null, String(item.seconds)],
        [t("look.format"), item.format && `${item.format.toUpperCase()}, ${item.width} × ${item.height}`],
        [t("look.bytes"), item.bytes && bytes(item.bytes), String(item.bytes)],
        ["SHA-256", item.sha256 && hash(item.sha256), item.sha256],
        [t("look.digest"), item.digest && hash(item.digest), item.digest],
      ], copy)));
    this.side.scrollTop = 0;
    this.drawLineage(lineage);
  }

  async drawLineage(place) {
    const { item, t } = this;
    let graph;
    try {
      graph = await this.context.api.get(`/api/outputs/${item.id}/lineage`);
    } catch (error) {
      return fill(place, h("p", { class: "wrong", text: this.context.saying(error) }));
    }
    if (!place.isConnected) return;
    if (graph.nodes.length < 2) return fill(place, h("p", { class: "soft small", text: t("look.lineage.alone") }));
    fill(place, lineageGraph(graph, item.id, (node) => ({
      picture: node.kind === "input" ? `/api/inputs/${node.sha256}` : this.context.api.address(`/api/outputs/${node.id}/thumbnail`, { size: 256 }),
      name: node.prompt || (node.kind === "input" ? t("look.input") : node.id),
      open: node.kind === "input" || node.id === item.id ? undefined : () => this.host.go({ output: node.id }),
    }), (kind) => t(`look.edge.${kind}`, {}, kind)), graph.left_out > 0 && h("p", { class: "soft small", text: t("look.lineage.more", { n: number(graph.left_out) }) }));
  }

  /** Have the neighbours ready. */
  prepare() {
    for (const step of [1, -1]) {
      const near = this.index >= 0 && this.host.pages.at(this.index + step);
      if (near && !near.missing) new Image().src = `/api/outputs/${near.id}/file`;
    }
    if (this.index >= 0) this.host.pages.want(Math.max(0, this.index - 2), Math.min(this.host.ratios.length, this.index + 3));
  }

  step(by) {
    const to = this.index + by;
    if (this.index < 0 || to < 0 || to >= this.host.ratios.length) return;
    const item = this.host.pages.at(to);
    if (item) {
      this.host.window.active = to;
      this.host.go({ output: item.id });
    } else {
      this.coming = to;
      this.host.pages.want(to, to + 1);
    }
  }

  toggleSide() {
    this.showSide(this.side.hidden);
    this.context.store.set("side", !this.side.hidden);
  }

  showSide(shown) {
    this.side.hidden = !shown;
    this.sideButton.setAttribute("aria-pressed", String(shown));
    this.element?.classList.toggle("has-side", shown);
  }

  // ------------------------------------------------------------------------------------------- what can be made of it

  /** The same once more. */
  again() {
    return this.queue(draftOf(recipeOf(this.item)));
  }

  /** Four that are like it and not the same. */
  vary() {
    const recipe = draftOf(recipeOf(this.item));
    const seed = Math.floor(Math.random() * 2 ** 31);
    const knobs = "variation_strength" in (recipe.knobs ?? {})
      ? { ...recipe.knobs, variation_strength: VARIATION, variation_seed: seed }
      : recipe.knobs;
    const sampling = knobs === recipe.knobs ? { ...recipe.sampling, seed } : recipe.sampling;
    return this.queue({ ...recipe, count: VARIED, knobs, sampling });
  }

  async queue(recipe) {
    const { api, toast, go, complain } = this.context;
    try {
      await api.post("/api/jobs", { recipe });
      toast({ text: this.t("look.queued"), action: { text: this.t("look.queue"), run: () => go("queue") } });
    } catch (error) {
      complain(error);
    }
  }

  /** The room Make, with this picture as what it starts from. */
  start() {
    this.context.go("make", { output: this.item.id, as: "start" });
  }

  /** The room Make, with this recipe. */
  edit() {
    this.context.go("make", { output: this.item.id, as: "recipe" });
  }

  remove() {
    return this.host.remove([this.item]);
  }

  compareWith(step) {
    const other = this.index >= 0 && this.host.pages.at(this.index + step);
    if (!other) return false;
    compare(this.context, step > 0 ? other : this.item, step > 0 ? this.item : other);
  }

  /** Back to the list with this one selected, so that another one can be picked. */
  pickOther() {
    const at = this.index;
    this.leave();
    if (at >= 0) this.host.choose(at, at + 1);
  }
}

/** A recipe as it can be asked for once more. */
function draftOf(recipe) {
  const { made, ...draft } = recipe;
  return draft;
}
