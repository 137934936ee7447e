// The gallery: everything that was made, found again by its words, its recipe and its day, and looked at closely.

import { h, fill, plainly, put } from "../dom.js";
import { asked, withWish } from "../parts/asked.js";
import { compare } from "../parts/beside.js";
import { endpaper } from "../parts/endpaper.js";
import { icon } from "../parts/icons.js";
import { Look } from "../parts/look.js";
import { nothing, troubled } from "../parts/nothing.js";
import { Pages } from "../parts/pages.js";
import { menu, popover } from "../parts/popover.js";
import { fieldName } from "../parts/recipe.js";
import { justified, Window } from "../parts/window.js";
import { dated, number } from "../words.js";

/** What this room asks for first; see the frame's. */
export const early = ["/api/outputs?offset=0&limit=100"];

const SIZES = [120, 160, 220, 300, 420]; // px that a row is about high
const GAP = 6; // px between two pictures
const LATEST = 4e9; // the last second that the server knows
const DATED = 300; // ms until the day is said: its words take as long as the first pictures
const MOST = 1000; // outputs that one request may name
const KNOWN = new Set([
  "model", "task", "since", "until", "seed", "steps", "sampler", "schedule", "guidance", "strength", "width", "height",
  "clip_skip", "eta", "format", "quality",
]);

const words = {
  en: {
    "room.gallery": "Gallery",
    "gallery.search": "Search {n} outputs, or seed:7, model:name …",
    "gallery.search.label": "Search by words, seed:7, model:name …",
    "gallery.all": "All", "gallery.favourites": "Favourites", "gallery.trash": "Trash", "gallery.folders": "Folder",
    "gallery.folder.none": "No folder", "gallery.folder.new": "New folder …", "gallery.folder.name": "Name of the folder",
    "gallery.folder.put": "Put it there", "gallery.folder.moved": "{n} in {folder}", "gallery.folder.out": "{n} taken out of their folder",
    "gallery.filter": "Narrow down", "gallery.filter.model": "Model", "gallery.filter.sampler": "Sampler", "gallery.filter.seed": "Seed",
    "gallery.filter.since": "From", "gallery.filter.until": "To", "gallery.filter.field": "Any other field",
    "gallery.filter.value": "value", "gallery.filter.clear": "Clear", "gallery.filter.help": "It all stands in the search field, and can be typed there.",
    "gallery.larger": "Larger pictures", "gallery.smaller": "Smaller pictures",
    "gallery.select": "Select", "gallery.selected": "{n} selected", "gallery.deselect": "Select none",
    "gallery.favourite": "Favourite", "gallery.export": "Export", "gallery.delete": "Delete",
    "gallery.restore": "Restore", "gallery.compare": "Compare",
    "gallery.deleted": "{n} deleted", "gallery.restored": "{n} restored", "gallery.exporting": "Packing {n} …",
    "gallery.many": "Only the first {n} are selected",
    "gallery.empty": "What you make hangs here, with the recipe that made it.",
    "gallery.empty.looker": "What is made in your name hangs here, with the recipe that made it.", "gallery.empty.make": "Make the first picture",
    "gallery.none": "Nothing that was made is like that.", "gallery.none.clear": "Clear the search",
    "gallery.trash.empty": "The trash is empty.", "gallery.favourites.empty": "Mark a picture with F, and it is found here.",
    "gallery.list": "Outputs, newest first", "gallery.gone": "The file is gone",
    "gallery.keys.search": "Search", "gallery.keys.favourite": "Favourite", "gallery.keys.select": "Select",
    "gallery.keys.all": "Select all", "gallery.keys.delete": "Delete", "gallery.keys.compare": "Compare two that are selected",
    "gallery.badDate": "{value} is no day: write it as 2026-01-31",
  },
  zh: {
    "room.gallery": "画廊",
    "gallery.search": "搜索 {n} 件作品，或 seed:7、model:名称……",
    "gallery.search.label": "搜索文字、seed:7、model:名称……",
    "gallery.all": "全部", "gallery.favourites": "收藏", "gallery.trash": "回收站", "gallery.folders": "文件夹",
    "gallery.folder.none": "不在文件夹中", "gallery.folder.new": "新建文件夹……", "gallery.folder.name": "文件夹名称",
    "gallery.folder.put": "放入", "gallery.folder.moved": "{n} 件已放入 {folder}", "gallery.folder.out": "{n} 件已移出文件夹",
    "gallery.filter": "筛选", "gallery.filter.model": "模型", "gallery.filter.sampler": "采样器", "gallery.filter.seed": "种子",
    "gallery.filter.since": "从", "gallery.filter.until": "到", "gallery.filter.field": "其他字段",
    "gallery.filter.value": "值", "gallery.filter.clear": "清除", "gallery.filter.help": "这些条件都写在搜索框里，也可以直接输入。",
    "gallery.larger": "放大图片", "gallery.smaller": "缩小图片",
    "gallery.select": "选择", "gallery.selected": "已选 {n} 件", "gallery.deselect": "取消选择",
    "gallery.favourite": "收藏", "gallery.export": "导出", "gallery.delete": "删除",
    "gallery.restore": "恢复", "gallery.compare": "比较",
    "gallery.deleted": "已删除 {n} 件", "gallery.restored": "已恢复 {n} 件", "gallery.exporting": "正在打包 {n} 件……",
    "gallery.many": "只选中了前 {n} 件",
    "gallery.empty": "你的作品会挂在这里，并附上它们的配方。",
    "gallery.empty.looker": "以你的名义制作的作品会挂在这里，并附上它们的配方。", "gallery.empty.make": "制作第一张图片",
    "gallery.none": "没有符合条件的作品。", "gallery.none.clear": "清除搜索",
    "gallery.trash.empty": "回收站是空的。", "gallery.favourites.empty": "按 F 收藏图片，就能在这里找到。",
    "gallery.list": "作品，最新的在前", "gallery.gone": "文件不见了",
    "gallery.keys.search": "搜索", "gallery.keys.favourite": "收藏", "gallery.keys.select": "选择",
    "gallery.keys.all": "全选", "gallery.keys.delete": "删除", "gallery.keys.compare": "比较选中的两件",
    "gallery.badDate": "{value} 不是日期：请写成 2026-01-31",
  },
};

export default {
  id: "gallery",
  order: 3,
  words,
  mount(element, context) {
    const room = new Gallery(element, context);
    return { show: (state) => room.show(state), search: () => room.search(), unmount: () => room.close() };
  },
};

class Gallery {
  constructor(element, context) {
    Object.assign(this, { element, context, t: context.t });
    this.selected = new Map();
    this.selecting = false;
    this.state = null;
    this.ratios = [];
    this.size = context.store.get("size", 2);
    this.pages = new Pages(
      (offset, limit, signal) => context.api.get("/api/outputs", { ...this.wishes, offset, limit }, { signal }),
      (first, last) => this.arrived(first, last),
      { failed: (error) => this.failed(error) },
    );
    this.build();
    this.window = new Window(this.scroller, {
      label: this.t("gallery.list"),
      layout: (width) => justified(this.ratios, width, { height: this.rowHeight(width), gap: GAP }),
      draw: (index) => this.piece(index),
      seen: () => this.drawDay(),
      near: (first, last) => this.pages.want(first, last),
      open: (index, event) => this.opened(index, event),
      key: (event, index) => this.pressed(event, index),
    });
    this.window.box.setAttribute("aria-multiselectable", "true");
    // Which of them a key is for has to be known at once; what is looked at (below) hears keys before the list does.
    const onMeant = (run) => () => (this.meant().length ? run() : false);
    context.keys({
      f: { text: this.t("gallery.keys.favourite"), needs: "generate", run: onMeant(() => this.favour()) },
      x: { text: this.t("gallery.keys.select"), run: () => this.toggle(this.window.active) },
      "ctrl+a": { text: this.t("gallery.keys.all"), run: () => this.selectAll() },
      c: { text: this.t("gallery.keys.compare"), run: () => this.compareSelected() },
      delete: { text: this.t("gallery.keys.delete"), needs: "generate", run: onMeant(() => this.remove()) },
      esc: { run: () => (this.selecting ? this.deselect() : false) },
    });
    this.look = new Look(context, this);
    context.listen((event) => {
      if (event.kind === "made" || event.kind === "done") this.soonNewer();
    });
    this.unwatch = context.outputs.watch(({ gone, back }) => {
      const away = this.state.view === "trash" ? back : gone;
      if (away) this.takeOut(away);
      else this.renewed();
    });
    this.show(context.state);
  }

  build() {
    const { t } = this;
    this.field = h("input", {
      type: "search", class: "search", autocomplete: "off", spellcheck: "false", aria: { label: t("gallery.keys.search") },
      placeholder: t("gallery.search.label"),
      on: { input: () => this.typed(), keydown: (event) => this.fieldKey(event) },
    });
    this.tabs = h("div", { class: "tabs", role: "group" });
    const narrow = h("button", { type: "button", class: "quiet", aria: { label: t("gallery.filter") } }, icon("filter"), h("span", { class: "wide-only", text: t("gallery.filter") }));
    this.day = h("span", { class: "gallery-day", aria: { hidden: "true" } });
    const sized = (step, name, drawing) => h("button", {
      type: "button", class: "quiet square wide-only", title: t(name), aria: { label: t(name) }, on: { click: () => this.resize(step) },
    }, icon(drawing));
    this.chooser = h("button", { type: "button", class: "quiet chooser", title: t("gallery.select"), aria: { label: t("gallery.select"), pressed: "false" }, on: { click: () => this.choosing() } }, icon("check"), h("span", { class: "wide-only", text: t("gallery.select") }));
    this.scroller = h("div", { class: "gallery-scroll scrolls" });
    this.message = h("div", { class: "gallery-message", hidden: true });
    this.strip = h("div", { class: "chosen-bar", role: "toolbar", hidden: true, aria: { label: t("gallery.select") } });
    this.problem = h("p", { class: "field-problem", role: "alert", hidden: true });
    put(this.element, [
      h("h1", { class: "unseen", text: t("room.gallery") }),
      h("div", { class: "room-bar" },
        h("div", { class: "search-box" }, icon("search"), this.field, h("kbd", { class: "search-key", text: "/" })),
        h("div", { class: "narrow-box" }, narrow), this.tabs, h("span", { class: "grow" }), this.day,
        sized(-1, "gallery.smaller", "minus"), sized(1, "gallery.larger", "plus"), this.chooser),
      this.problem, this.message, this.scroller, this.strip,
    ]);
    popover(narrow, (panel) => this.narrowing(panel), { label: t("gallery.filter"), className: "narrowing" });
  }

  rowHeight(width) {
    const high = SIZES[this.size];
    return width < 600 ? Math.min(high, Math.max(90, width / 3)) : high;
  }

  // ---------------------------------------------------------------------------------------------- what is looked for

  /** Show what the address asks for: `q`, `view` (favourites, trash or a folder), `output`. */
  show(state) {
    const before = this.state;
    this.state = { q: state.q || "", view: state.view || "", folder: state.folder || "", output: state.output || "" };
    if (document.activeElement !== this.field) this.field.value = this.state.q;
    const other = !before || ["q", "view", "folder"].some((name) => before[name] !== this.state[name]);
    if (other) this.load();
    if (this.state.output) this.look.open(this.state.output);
    else this.look.shut();
  }

  go(changes, options = { replace: true }) {
    const next = Object.fromEntries(Object.entries({ ...this.state, ...changes }).filter(([, value]) => value));
    return this.context.go("gallery", next, options);
  }

  search() {
    if (this.look.isOpen) this.look.leave();
    this.field.focus();
  }

  typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.go({ q: this.field.value.trim(), output: "" }), 120);
  }

  fieldKey(event) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      this.window.focus();
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (!this.field.value) return this.window.focus();
      this.field.value = "";
      this.typed();
    }
  }

  /** The parameters of a request, from what was typed and which view is chosen; null if a day is none. */
  parameters() {
    const { text, wishes } = asked(this.state.q, KNOWN);
    const told = { q: text };
    for (const [name, value] of wishes) {
      if (name === "model" || name === "task") told[name] = value;
      else if (name === "since" || name === "until") {
        const day = new Date(`${value}T00:00:00`);
        // The 31st of February is the 3rd of March to a browser, and no day to anybody else.
        if (!/^\d{4}-\d{2}-\d{2}$/.test(value) || day.getDate() !== Number(value.slice(8))) throw new RangeError(value);
        day.setDate(day.getDate() + (name === "until"));
        told[name] = Math.max(0, Math.min(LATEST, day.getTime() / 1000));
      } else told[`field.${name}`] = value;
    }
    if (this.state.view === "favourites") told.favourite = true;
    if (this.state.view === "trash") told.deleted = true;
    if (this.state.folder) told.folder = this.state.folder;
    return told;
  }

  async load() {
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    this.drawTabs();
    await this.marking;
    if (ticket !== this.ticket) return;
    let wishes;
    try {
      wishes = this.parameters();
      this.problem.hidden = true;
    } catch (error) {
      this.problem.textContent = this.t("gallery.badDate", { value: error.message });
      this.problem.hidden = false;
      if (!this.folders) this.loadFolders();
      return;
    }
    this.wishes = wishes;
    this.deselect();
    this.pages.clear();
    this.complete = this.broken = false;
    this.ratios = [];
    if (ticket > 1) {
      this.scroller.hidden = false; // else it could not be moved
      this.scroller.scrollTop = 0;
    }
    this.window.active = 0;
    await this.pages.want(0, 1); // what can be seen comes before the shape of all, and before what nobody asked for yet
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    if (!this.folders) this.loadFolders();
    this.look.learn();
    if (ticket !== this.ticket) return;
    let told;
    try {
      told = await this.context.api.get("/api/outputs/ratios", wishes);
    } catch (error) {
      if (ticket === this.ticket) this.failed(error);
      return;
    }
    if (ticket !== this.ticket) return;
    this.complete = true;
    this.ratios = told.ratios.map((ratio) => ratio / 1000);
    this.relay();
    this.look.arrived();
  }

  /** Lay out anew, and say so where there is nothing. */
  relay() {
    this.window.relay();
    const total = this.ratios.length;
    if (!this.state.q && !this.state.view && !this.state.folder) this.field.placeholder = total > 1 ? this.t("gallery.search", { n: number(total) }) : this.t("gallery.search.label");
    if (!this.broken) this.empty(this.complete && !total ? this.nothing() : null);
  }

  empty(said) {
    this.message.hidden = !said;
    this.scroller.hidden = Boolean(said);
    if (said) fill(this.message, said);
  }

  nothing() {
    const { t, state } = this;
    if (state.q) return nothing(t("gallery.none"), [{ text: t("gallery.none.clear"), run: () => this.clear() }]);
    if (state.view === "trash") return nothing(t("gallery.trash.empty"));
    if (state.view === "favourites") return nothing(t(this.context.may("generate") ? "gallery.favourites.empty" : "gallery.none"));
    if (state.folder) return nothing(t("gallery.none"), [{ text: t("gallery.all"), run: () => this.go({ folder: "" }) }]);
    return nothing(t(this.context.may("generate") ? "gallery.empty" :
    "gallery.empty.looker"), [{ text: t("gallery.empty.make"), main: true, needs: "generate", run: () => this.context.go("make") }], endpaper("checkpoint", "bottega"));
  }

  clear() {
    this.field.value = "";
    this.go({ q: "" });
  }

  failed(error) {
    this.broken = this.pages.total === null;
    if (this.broken) this.empty(troubled(this.context.saying(error), () => this.load()));
    else this.context.complain(error);
  }

  arrived(first, last) {
    this.window.redraw(first, last); // what is drawn of them so far are their places
    if (!this.complete) {
      if (first === 0 && last > this.ratios.length) {
        this.ratios = Array.from({ length: last }, (_, index) => ratioOf(this.pages.at(index)));
        this.relay();
      }
    }
    this.look.arrived();
    this.drawDay();
  }

  // ------------------------------------------------------------------------------------------------- what comes new

  soonNewer() {
    clearTimeout(this.newer);
    this.newer = setTimeout(() => this.takeNewer(), 400);
  }

  /** Put before the first what was made since, and leave what is looked at where it is. */
  async takeNewer() {
    if (!this.complete || this.state.view === "trash") return;
    const ticket = this.ticket;
    const wishes = this.wishes;
    const { items, total } = await this.context.api.get("/api/outputs", { ...wishes, offset: 0, limit: this.pages.size });
    if (ticket !== this.ticket) return;
    const more = total - this.ratios.length;
    if (more <= 0) return;
    if (more > items.length || !this.ratios.length) return this.load();
    const fresh = items.slice(0, more).map(ratioOf);
    const [at] = this.window.plan.between(this.scroller.scrollTop, this.scroller.scrollTop + 1);
    const inside = this.scroller.scrollTop - this.window.plan.place(at)[1];
    const moved = this.scroller.scrollTop > 40;
    this.pages.clear();
    this.ratios = [...fresh, ...this.ratios];
    this.window.active += this.window.box.contains(document.activeElement) || moved ? more : 0;
    this.look.moved(more);
    this.window.renew();
    if (moved) this.scroller.scrollTop = this.window.plan.place(at + more)[1] + inside;
    this.window.update();
    this.empty(null);
  }

  // ------------------------------------------------------------------------------------------------- what is drawn

  piece(index) {
    const item = this.pages.at(index);
    if (!item) return h("div", { class: "piece is-coming", aria: { busy: "true" } });
    const chosen = this.selected.has(item.id);
    const own = item.missing
      ? h("span", { class: "piece-gone" }, icon("warn"), h("span", { text: this.t("gallery.gone") }))
      : h("img", { alt: "", decoding: "async", draggable: "false", data: { src: this.thumbnail(item), alt: plainly(item.prompt || item.id) } });
    return h("div", {
      class: ["piece", chosen && "is-selected"], aria: { label: item.prompt || item.id, selected: String(chosen) },
    }, own, h("span", { class: "piece-words", text: item.prompt, title: item.prompt }), item.favourite && h("span", { class: "piece-star" }, icon("star", 14)),
    h("span", { class: "piece-check", data: { check: "" } }, icon("check", 14)));
  }

  thumbnail(item) {
    return `/api/outputs/${item.id}/thumbnail?size=${this.size > 2 || devicePixelRatio > 1.4 ? 512 : 256}`;
  }

  /** Says of which day the topmost pictures are, soon: the pictures themselves come first. */
  drawDay() {
    this.dating ??= setTimeout(() => {
      this.dating = null;
      const { plan, scrolled } = this.window;
      const item = plan?.count && this.pages.at(plan.between(scrolled, scrolled + 1)[0]);
      if (item) this.day.textContent = dated(item.created, { day: "numeric", month: "long", year: "numeric" });
      else if (!plan?.count) this.day.textContent = "";
    }, DATED);
  }

  drawTabs() {
    const { t, state } = this;
    const tab = (text, on, changes) => h("button", {
      type: "button", class: "tab", aria: { pressed: String(on) }, text, on: { click: () => this.go({ view: "", folder: "", output: "", ...changes }) },
    });
    const folders = h("button", { type: "button", class: "tab", aria: { pressed: String(Boolean(state.folder)) } },
      h("span", { text: state.folder || t("gallery.folders") }), icon("chevron", 14));
    fill(this.tabs, tab(t("gallery.all"), !state.view && !state.folder, {}), tab(t("gallery.favourites"), state.view === "favourites", { view: "favourites" }),
      this.folders?.length || state.folder ? folders : null, tab(t("gallery.trash"), state.view === "trash", { view: "trash" }));
    if (folders.isConnected) {
      menu(folders, () => (this.folders ?? []).map((folder) => ({
        text: folder.name, key: number(folder.outputs), checked: folder.name === state.folder, run: () => this.go({ view: "", folder: folder.name, output: "" }),
      })), { label: t("gallery.folders") });
    }
  }

  async loadFolders() {
    this.folders ??= [];
    try {
      const { items } = await this.context.api.get("/api/folders");
      this.folders = items;
    } catch (error) {
      if (!this.folders.length) this.folders = null; // they are asked for again with the list
      this.context.complain(error);
    }
    this.drawTabs();
  }

  resize(step) {
    this.size = Math.max(0, Math.min(SIZES.length - 1, this.size + step));
    this.context.store.set("size", this.size);
    this.window.width = -1; // the same width lays out other rows
    this.window.resized();
  }

  narrowing(panel) {
    const { t } = this;
    const { wishes } = asked(this.field.value, KNOWN);
    const set = (name) => (event) => {
      this.field.value = withWish(this.field.value, name, event.target.value.trim());
      this.typed();
    };
    const row = (label, control) => h("label", { class: "narrow-row" }, h("span", { text: label }), control);
    const text = (name, type = "text") => h("input", { type, value: wishes.get(name) || "", on: { change: set(name) } });
    const other = h("select", { aria: { label: t("gallery.filter.field") } },
      [...KNOWN].filter((name) => !["model", "sampler", "seed", "since", "until"].includes(name)).map((name) => h("option", { value: name, text: fieldName(name) })));
    const value = h("input", {
      type: "text", placeholder: t("gallery.filter.value"), aria: { label: t("gallery.filter.value") },
      on: { change: (event) => set(other.value)(event) },
    });
    put(panel, [
      row(t("gallery.filter.model"), text("model")), row(t("gallery.filter.sampler"), text("sampler")), row(t("gallery.filter.seed"), text("seed")),
      row(t("gallery.filter.since"), text("since", "date")), row(t("gallery.filter.until"), text("until", "date")),
      h("div", { class: "narrow-row" }, other, value),
      h("p", { class: "note", text: t("gallery.filter.help") }),
      h("button", { type: "button", class: "quiet", text: t("gallery.filter.clear"), on: { click: () => this.clear() } }),
    ]);
  }

  // --------------------------------------------------------------------------------------------- what is chosen

  opened(index, event) {
    const item = this.pages.at(index);
    if (!item) return;
    const checked = event?.target.closest?.("[data-check]");
    if (event?.shiftKey && this.selected.size) return this.selectTo(index);
    if (checked || event?.ctrlKey || event?.metaKey || (this.selecting && event?.type === "click")) return this.toggle(index);
    if (event?.key === " ") return this.toggle(index);
    this.go({ output: item.id }, {});
  }

  pressed(event, index) {
    if (event.key === "Escape" && this.selecting) {
      this.deselect();
      return true;
    }
    return event.key === " " && !event.ctrlKey ? (this.toggle(index), true) : false;
  }

  choosing() {
    if (this.selecting) this.deselect();
    else {
      this.selecting = true;
      this.drawStrip();
    }
  }

  toggle(index) {
    const item = this.pages.at(index);
    if (!item) return;
    if (this.selected.has(item.id)) this.selected.delete(item.id);
    else this.selected.set(item.id, item);
    this.last = index;
    this.selecting = this.selected.size > 0;
    this.drawStrip();
  }

  async selectTo(index) {
    const [from, to] = [Math.min(this.last ?? index, index), Math.max(this.last ?? index, index)];
    await this.choose(from, to + 1);
  }

  async selectAll() {
    await this.choose(0, this.ratios.length);
  }

  async choose(from, to) {
    const end = Math.min(to, from + MOST);
    for (let at = from; at < end; at += 1) {
      if (!this.pages.at(at)) {
        const { items } = await this.context.api.get("/api/outputs", { ...this.wishes, offset: at, limit: Math.min(500, end - at) });
        for (const item of items) this.selected.set(item.id, item);
        at += items.length - 1;
        if (!items.length) break;
      } else this.selected.set(this.pages.at(at).id, this.pages.at(at));
    }
    if (end < to) this.context.toast({ text: this.t("gallery.many", { n: number(MOST) }) });
    this.selecting = true;
    this.drawStrip();
  }

  deselect() {
    this.selected.clear();
    this.selecting = false;
    this.drawStrip();
  }

  drawStrip() {
    const { t } = this;
    const ids = [...this.selected.keys()];
    for (const [index, print] of this.window.drawn) {
      const chosen = this.selected.has(this.pages.at(index)?.id);
      print.classList.toggle("is-selected", chosen);
      print.setAttribute("aria-selected", String(chosen));
    }
    this.chooser.setAttribute("aria-pressed", String(this.selecting));
    this.element.classList.toggle("is-selecting", this.selecting);
    this.strip.hidden = !this.selecting;
    if (!this.selecting) return;
    const idle = !ids.length;
    const act = (name, drawing, run, { off = idle, needs } = {}) => h("button", { type: "button", class: "quiet", data: needs && { needs }, title: t(name), aria: { label: t(name) }, disabled: off, on: { click: run } }, icon(drawing), h("span", { class: "wide-only", text: t(name) }));
    const folder = act("gallery.folders", "folder", () => {});
    const trash = this.state.view === "trash";
    fill(this.strip, h("strong", { class: "chosen-count", text: t("gallery.selected", { n: number(ids.length) }) }), h("span", { class: "grow" }),
      trash ? act("gallery.restore", "undo", () => this.restore(ids), { needs: "generate" }) : [
        act("gallery.compare", "compare", () => this.compareSelected(), { off: ids.length !== 2 }),
        act("gallery.favourite", "star", () => this.favour(), { needs: "generate" }), h("span", { class: "narrow-box", data: { needs: "generate" } }, folder),
        act("gallery.export", "download", () => this.export(ids)), act("gallery.delete", "trash", () => this.remove(), { needs: "generate" }),
      ],
      h("button", { type: "button", class: "quiet square", aria: { label: t("gallery.deselect") }, title: t("gallery.deselect"), on: { click: () => this.deselect() } }, icon("close")));
    if (!trash) this.folderMenu(folder, () => [...this.selected.values()]);
  }

  /** A menu by which outputs are put into a folder, or taken out of theirs. */
  folderMenu(button, chosen) {
    const { t } = this;
    popover(button, (panel, close) => {
      panel.classList.add("menu");
      const into = (folder) => {
        close();
        this.put(chosen(), folder);
      };
      const name = h("input", { type: "text", placeholder: t("gallery.folder.new"), aria: { label: t("gallery.folder.name") }, maxlength: "80" });
      put(panel, [
        ...(this.folders || []).map((folder) => h("button", { type: "button", class: "menu-item", on: { click: () => into(folder.name) } }, icon("folder"), h("span", { class: "grow", text: folder.name }))),
        h("button", { type: "button", class: "menu-item", on: { click: () => into("") } }, icon("close"), h("span", { class: "grow", text: t("gallery.folder.none") })),
        h("form", { class: "menu-form", on: { submit: (event) => { event.preventDefault(); if (name.value.trim()) into(name.value.trim()); } } }, name,
          h("button", { type: "submit", text: t("gallery.folder.put") })),
      ]);
    }, { side: "end", label: t("gallery.folders") });
  }

  compareSelected() {
    const [one, other] = [...this.selected.values()];
    if (this.selected.size !== 2) return false;
    return compare(this.context, one, other);
  }

  /** Those that an act is for: what is selected, else the active one. */
  meant() {
    if (this.selected.size) return [...this.selected.values()];
    const item = this.pages.at(this.window.active);
    return item && this.window.box.contains(document.activeElement) ? [item] : [];
  }

  async favour(items = this.meant()) {
    const favourite = !items.every((item) => item.favourite);
    await this.mark(items, { favourite });
  }

  async put(items, folder) {
    await this.mark(items, { folder });
    if (this.state.folder && folder !== this.state.folder) {
      this.takeOut(items.map((item) => item.id));
      this.focusList();
    }
    this.context.toast({ text: folder ? this.t("gallery.folder.moved", { n: number(items.length), folder }) : this.t("gallery.folder.out", { n: number(items.length) }) });
    await this.loadFolders();
  }

  /** Say something of outputs; a list that is loaded next knows of it. */
  mark(items, changes) {
    const written = this.written(items, changes);
    this.marking = Promise.all([this.marking, written]);
    return written;
  }

  /** Changes outputs at once on the page, and on the server; back again where that fails. */
  async written(items, changes) {
    const before = items.map((item) => ({ ...item }));
    for (const item of items) this.change({ ...item, ...changes });
    try {
      for (const item of items) await this.context.api.patch(`/api/outputs/${item.id}`, changes);
      this.context.outputs.changed();
    } catch (error) {
      for (const item of before) this.change(item);
      this.context.complain(error);
    }
  }

  /** An output as it is now. */
  change(item) {
    if (this.selected.has(item.id)) this.selected.set(item.id, item);
    const index = this.pages.find((each) => each.id === item.id);
    if (index >= 0) {
      this.pages.put(index, item);
      this.window.redraw(index);
      this.window.update();
    }
    this.look.changed(item);
  }

  async remove(items = this.meant()) {
    if (this.state.view === "trash") return;
    const ids = items.map((item) => item.id);
    try {
      await this.context.outputs.delete(ids);
    } catch (error) {
      this.context.complain(error);
      return;
    }
    this.focusList();
    this.context.toast({ text: this.t("gallery.deleted", { n: number(ids.length) }), undo: () => this.restore(ids) });
  }

  async restore(ids) {
    try {
      await this.context.outputs.restore(ids);
    } catch (error) {
      return this.context.complain(error);
    }
    if (this.state.view === "trash") this.focusList();
    this.context.toast({ text: this.t("gallery.restored", { n: number(ids.length) }) });
  }

  /** Take outputs out of the list where they stand in it; what is below moves up. */
  takeOut(ids) {
    const gone = new Set(ids);
    const places = new Set();
    for (const [index, item] of this.pages.here()) if (gone.has(item.id)) places.add(index);
    for (const id of ids) this.selected.delete(id);
    this.selecting = this.selected.size > 0;
    this.drawStrip();
    if (places.size < gone.size) return this.renewed();
    this.ratios = Array.from(this.ratios).filter((_, index) => !places.has(index));
    this.pages.remove(places);
    this.window.renew();
    this.empty(this.ratios.length ? null : this.nothing());
    this.look.removed(gone);
  }

  focusList() {
    if (this.ratios.length && !this.look.isOpen) this.window.focus();
  }

  /** The same list, asked for again; what is looked at stays as far as it can. */
  async renewed() {
    const top = this.scroller.scrollTop;
    const active = this.window.active;
    await this.load();
    this.scroller.scrollTop = top;
    this.window.active = Math.min(active, Math.max(0, this.ratios.length - 1));
    this.window.renew();
  }

  async export(ids) {
    this.context.toast({ text: this.t("gallery.exporting", { n: number(ids.length) }) });
    try {
      const zip = await this.context.api.post("/api/outputs/export", { ids });
      const address = URL.createObjectURL(zip);
      const link = h("a", { href: address, download: `bottega-${new Date().toISOString().slice(0, 10)}-${ids.length}.zip` });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      this.context.complain(error);
    }
  }

  close() {
    clearTimeout(this.typing);
    clearTimeout(this.newer);
    clearTimeout(this.dating);
    this.ticket = -1;
    this.unwatch();
    this.pages.clear();
    this.look.close();
    this.window.close();
  }
}

const ratioOf = (item) => (item.width && item.height ? item.width / item.height : 1);
