// The library: every model on the shelves, what it is and why, how it is used, and what is put right by hand.

import { h, fill, fresh, put } from "../dom.js";
import { endpaper } from "../parts/endpaper.js";
import { copyButton, facts, hash, section } from "../parts/facts.js";
import { icon } from "../parts/icons.js";
import { cancel, Pace } from "../parts/jobs.js";
import { categoryText, extraText, familyText, kindText, mediumText, verdictText } from "../parts/models.js";
import { nothing, troubled } from "../parts/nothing.js";
import { Pages } from "../parts/pages.js";
import { modelPicker } from "../parts/picker.js";
import { dialog, menu } from "../parts/popover.js";
import { cells, Window } from "../parts/window.js";
import { bytes, duration, moment, number } from "../words.js";

/** What this room asks for first; see the frame's. */
export const early = ["/api/models?sort=name&offset=0&limit=100"];

const CARD = { least: 168, height: (width) => width * 0.72 + 52, gap: 12 };
const ROW = { least: 1, height: () => 36, gap: 0, most: 1 };
const FACETS = ["kind", "family", "medium", "verdict", "tag"];
const MARKS = { favourite: "star", runs: "check", missing: "warn" }; // what can be asked for by itself, and its drawing
const NARROWED_BY = ["q", ...FACETS, ...Object.keys(MARKS)];
const MOST_NAMES = 200; // of one kind that the server names of what goes with a model
const FOLDED = 8; // entries of a facet that are shown before "more"
const WORK = new Set(["scan", "get", "convert", "merge", "hash"]);
const OVER = ["done", "failed", "cancelled"];
const SORTS = ["name", "kind", "size", "date"];
const KINDS = [
  "checkpoint", "lora", "embedding", "hypernetwork", "vae", "controlnet", "t2i_adapter", "ip_adapter", "diffusion_model",
  "text_encoder", "image_encoder", "motion_module", "upscaler", "language_model", "unknown",
];
const CATEGORIES = ["base", "full fine-tune", "lightweight fine-tune", "part"];
const METHODS = ["weighted", "add-difference", "slerp", "ties", "dare"];
const TAKES_C = new Set(["add-difference", "ties", "dare"]);
// What a licence says of a model, in the words of the library.
const FORBIDS = new Set(["none", "may not be shared", "not allowed: the same terms"]);
const ALLOWS = new Set(["not needed", "may be shared", "allowed"]);
const DTYPES = ["keep", "fp32", "fp16", "bf16", "fp8"];

const words = {
  en: {
    "room.library": "Library",
    "library.search": "Search {n} models", "library.search.label": "Search the models",
    "library.list": "Models", "library.count": "{n} models", "library.count.one": "1 model",
    "library.facet.kind": "Kind", "library.facet.family": "Family", "library.facet.medium": "Medium",
    "library.facet.verdict": "Safety", "library.facet.tag": "Tags", "library.more": "{n} more", "library.less": "fewer",
    "library.mark.favourite": "Favourites", "library.mark.runs": "Runs here", "library.mark.missing": "Gone", "library.filters": "Filters",
    "library.clear": "Clear all",
    "library.cards": "Cards", "library.table": "Table", "library.sort": "Order",
    "library.sort.name": "Name", "library.sort.kind": "Kind", "library.sort.size": "Largest first", "library.sort.date": "Newest first", "library.sort.best": "Best match",
    "library.column.name": "Name", "library.column.kind": "Kind", "library.column.family": "Family", "library.column.size": "Size",
    "library.column.category": "Category", "library.column.format": "Format", "library.column.date": "Changed",
    "library.scan": "Scan", "library.scan.what": "Look through the shelves for models that are new or changed",
    "library.get": "Get a model", "library.merge": "Merge", "library.add": "Add",
    "library.empty": "No model is known yet. Bottega reads the folders that you have already, and leaves them as they are.",
    "library.empty.scan": "Scan the shelves",
    "library.none": "No model is like that.", "library.none.clear": "Clear the search",
    "library.use": "Use in Make", "library.close": "Close", "library.favourite": "Favourite",
    "library.what": "What it is", "library.why": "Why", "library.how": "How to use it", "library.from": "Where it is from",
    "library.right": "Put right", "library.tags": "Tags", "library.note": "Note", "library.hashes": "Hashes", "library.file": "File",
    "library.licence": "Licence", "library.licence.none": "Nothing is said about a licence.",
    "library.guess": "The header alone cannot decide this; it is the best guess.",
    "library.triggers": "Trigger words", "library.triggers.all": "all trigger words", "library.weight": "Weight", "library.resolution": "Resolution",
    "library.base": "Made from", "library.author": "Author", "library.version": "Version", "library.date": "Date", "library.page": "Page",
    "library.title": "Title", "library.description": "Description", "library.preview": "Preview of {name}",
    "library.fits": "Goes with", "library.fits.none": "Nothing on the shelves goes with it yet.",
    "library.kind": "Kind", "library.category": "Category", "library.family": "Family", "library.variant": "Variant",
    "library.said": "The header says: {value}", "library.said.nothing": "nothing", "library.as.header": "As the header says",
    "library.corrected": "{field} is {value} now", "library.uncorrected": "{field} is as the header says now",
    "library.tag.add": "Add a tag", "library.tag.remove": "Remove the tag {tag}", "library.tag.removed": "The tag {tag} is removed", "library.note.hint": "Anything worth remembering about it",
    "library.noted": "The note is kept", "library.unkept": "Not kept yet", "library.keep": "Keep it", "library.unknown": "There is no such model here.", "library.overtaken": "Somebody else has written meanwhile: {note}",
    "library.format": "Format", "library.dtype": "Numbers", "library.parameters": "Parameters", "library.size": "Size",
    "library.missing": "Its file is not on the shelf any more. It may come back: what you said of it is kept.",
    "library.forget": "Forget all that is gone", "library.forgetting": "Will be forgotten, with your tags and notes: {n}",
    "library.hash": "Compute", "library.hash.none": "Not computed yet.",
    "library.convert": "Convert …", "library.verdict": "Safety", "library.names": "It names",
    "library.stop": "Stop", "library.started.scan": "Scanning", "library.started.hash": "Hashing {name}",
    "library.done": "Done: {what}", "library.failed": "{what}: {why}", "library.see": "See it",
    "library.get.what": "Which model", "library.get.help": "civitai:123, hf:org/name, or any https address. Every byte is checked, nothing in it is run.",
    "library.get.file": "Which file of it", "library.get.file.help": "Only where there are several", "library.get.sha256": "SHA-256, to refuse any other bytes",
    "library.get.more": "More", "library.get.unusual": "Also a pickle with unusual names; they are never run",
    "library.get.go": "Get it", "library.optional": "optional",
    "library.merge.title": "Merge models", "library.merge.a": "A", "library.merge.b": "B", "library.merge.c": "C", "library.merge.method": "How",
    "library.merge.weight": "Weight", "library.merge.name": "Name of the new model", "library.merge.go": "Merge",
    "library.merge.pick": "Choose a checkpoint", "library.merge.search": "Search checkpoints", "library.merge.none": "No checkpoint has this name", "library.merge.empty": "There is no checkpoint on the shelves",
    "library.method.weighted": "Weighted: A (1 − w) + B w", "library.method.add-difference": "Add difference: A + (B − C) w",
    "library.method.slerp": "From A to B on an arc", "library.method.ties": "TIES: only the largest differences", "library.method.dare": "DARE: a random share of the differences",
    "library.convert.title": "Convert {name}", "library.convert.dtype": "Store the numbers as", "library.convert.layout": "Layout",
    "library.convert.prune": "Leave out what training left in it", "library.replace": "Replace what has this name", "library.convert.name": "Name of the new model", "library.convert.go": "Convert",
    "library.layout.single": "One .safetensors", "library.layout.diffusers": "A diffusers folder",
    "library.dtype.keep": "As they are", "library.dtype.fp32": "32 bits", "library.dtype.fp16": "16 bits", "library.dtype.bf16": "bfloat16", "library.dtype.fp8": "8 bits",
    "library.keys.star": "Favourite", "library.keys.use": "Use in Make", "library.keys.view": "Cards or table",
    "library.stranger": "Made for {family}; the model in Make, {model}, is {other}.",
    "library.idle": "Nothing here makes anything with it yet.", "library.requires": "It needs {what} beside it.",
    "permit.,": ", ",
  },
  zh: {
    "room.library": "模型库",
    "library.search": "搜索 {n} 个模型", "library.search.label": "搜索模型",
    "library.list": "模型", "library.count": "{n} 个模型", "library.count.one": "1 个模型",
    "library.facet.kind": "类型", "library.facet.family": "系列", "library.facet.medium": "媒介",
    "library.facet.verdict": "安全检查", "library.facet.tag": "标签", "library.more": "还有 {n} 项", "library.less": "收起",
    "library.mark.favourite": "收藏", "library.mark.runs": "可在此运行", "library.mark.missing": "已不在原处", "library.filters": "筛选",
    "library.clear": "全部清除",
    "library.cards": "卡片", "library.table": "表格", "library.sort": "排序",
    "library.sort.name": "名称", "library.sort.kind": "类型", "library.sort.size": "最大的在前", "library.sort.date": "最新的在前", "library.sort.best": "最匹配",
    "library.column.name": "名称", "library.column.kind": "类型", "library.column.family": "系列", "library.column.size": "大小",
    "library.column.category": "类别", "library.column.format": "格式", "library.column.date": "修改时间",
    "library.scan": "扫描", "library.scan.what": "在各个模型文件夹中查找新增或改动的模型",
    "library.get": "获取模型", "library.merge": "合并", "library.add": "添加",
    "library.empty": "还没有任何模型。Bottega 直接读取你已有的文件夹，不会改动它们。",
    "library.empty.scan": "扫描文件夹",
    "library.none": "没有符合条件的模型。", "library.none.clear": "清除搜索",
    "library.use": "用于创作", "library.close": "关闭", "library.favourite": "收藏",
    "library.what": "这是什么", "library.why": "依据", "library.how": "如何使用", "library.from": "来源",
    "library.right": "更正", "library.tags": "标签", "library.note": "备注", "library.hashes": "哈希值", "library.file": "文件",
    "library.licence": "许可", "library.licence.none": "没有关于许可的说明。",
    "library.guess": "仅凭文件头无法确定，这是最可能的判断。",
    "library.triggers": "触发词", "library.triggers.all": "全部触发词", "library.weight": "权重", "library.resolution": "分辨率",
    "library.base": "基于", "library.author": "作者", "library.version": "版本", "library.date": "日期", "library.page": "页面",
    "library.title": "标题", "library.description": "简介", "library.preview": "{name} 的预览图",
    "library.fits": "可搭配", "library.fits.none": "目前没有可与它搭配的模型。",
    "library.kind": "类型", "library.category": "类别", "library.family": "系列", "library.variant": "变体",
    "library.said": "文件头显示：{value}", "library.said.nothing": "无", "library.as.header": "以文件头为准",
    "library.corrected": "{field}已改为{value}", "library.uncorrected": "{field}已恢复为文件头所示",
    "library.tag.add": "添加标签", "library.tag.remove": "删除标签 {tag}", "library.tag.removed": "标签 {tag} 已删除", "library.note.hint": "任何值得记下的内容",
    "library.noted": "备注已保存", "library.unkept": "尚未保存", "library.keep": "保存", "library.unknown": "这里没有这个模型。", "library.overtaken": "其间有人写下了：{note}",
    "library.format": "格式", "library.dtype": "数值类型", "library.parameters": "参数量", "library.size": "大小",
    "library.missing": "文件已不在原处。它可能会回来：你记下的内容都还在。",
    "library.forget": "忘掉所有已不在原处的模型", "library.forgetting": "即将忘掉 {n} 个，连同你的标签和备注",
    "library.hash": "计算", "library.hash.none": "尚未计算。",
    "library.convert": "转换……", "library.verdict": "安全检查", "library.names": "其中引用了",
    "library.stop": "停止", "library.started.scan": "正在扫描", "library.started.hash": "正在计算 {name} 的哈希值",
    "library.done": "完成：{what}", "library.failed": "{what}：{why}", "library.see": "查看",
    "library.get.what": "哪个模型", "library.get.help": "civitai:123、hf:org/name，或任意 https 地址。每个字节都会校验，其中的内容不会运行。",
    "library.get.file": "其中哪个文件", "library.get.file.help": "仅在有多个文件时需要", "library.get.sha256": "SHA-256，内容不符则拒绝",
    "library.get.more": "更多", "library.get.unusual": "也接受含异常名称的 pickle；它们永远不会运行",
    "library.get.go": "获取", "library.optional": "可选",
    "library.merge.title": "合并模型", "library.merge.a": "A", "library.merge.b": "B", "library.merge.c": "C", "library.merge.method": "方式",
    "library.merge.weight": "权重", "library.merge.name": "新模型的名称", "library.merge.go": "合并",
    "library.merge.pick": "请选择一个主模型", "library.merge.search": "搜索主模型", "library.merge.none": "没有叫这个名字的主模型", "library.merge.empty": "书架上没有主模型",
    "library.method.weighted": "加权：A (1 − w) + B w", "library.method.add-difference": "叠加差值：A + (B − C) w",
    "library.method.slerp": "沿弧线从 A 到 B", "library.method.ties": "TIES：只保留最大的差异", "library.method.dare": "DARE：随机保留部分差异",
    "library.convert.title": "转换 {name}", "library.convert.dtype": "数值存储为", "library.convert.layout": "布局",
    "library.convert.prune": "去掉训练留下的内容", "library.replace": "替换同名的模型", "library.convert.name": "新模型的名称", "library.convert.go": "转换",
    "library.layout.single": "单个 .safetensors", "library.layout.diffusers": "diffusers 文件夹",
    "library.dtype.keep": "保持不变", "library.dtype.fp32": "32 位", "library.dtype.fp16": "16 位", "library.dtype.bf16": "bfloat16", "library.dtype.fp8": "8 位",
    "library.keys.star": "收藏", "library.keys.use": "用于创作", "library.keys.view": "卡片或表格",
    "library.stranger": "适用于 {family}；“创作”里的模型 {model} 是 {other}。",
    "library.idle": "目前这里还不能用它创作。", "library.requires": "还需要{what}。",
    "permit.,": "、", "permit.credit": "署名", "permit.not needed": "不需要", "permit.the author must be named": "必须注明作者",
    "permit.commercial use": "商业用途", "permit.none": "不允许", "permit.selling what it makes": "出售生成的内容",
    "permit.running it as a service on Civitai": "在 Civitai 上作为服务运行", "permit.running it as a service": "作为服务运行",
    "permit.selling it or merges of it": "出售模型或合并后的模型", "permit.merges and changes": "合并与改动",
    "permit.may be shared": "可以分享", "permit.may not be shared": "不可分享", "permit.other terms on merges": "合并后更换条款",
    "permit.allowed": "允许", "permit.not allowed: the same terms": "不允许：须用相同条款",
  },
};

const ATTACHED = new Set(["lora", "embedding", "hypernetwork", "vae"]); // kinds that Make can use beside a model
const SAME_VAE = new Set(["sd1", "sd2"]); // families that share theirs

export default {
  id: "library",
  order: 2,
  words,
  mount(element, context) {
    const room = new Library(element, context);
    return { show: (state) => room.show(state), search: () => room.field.focus(), unmount: () => room.close() };
  },
};

class Library {
  constructor(element, context) {
    Object.assign(this, { element, context, t: context.t, state: null, entry: null, pace: new Pace() });
    this.view = context.store.get("view", "cards");
    this.open = new Set(context.store.get("open", []));
    this.known = new Map(); // the models that were open, as the server last told of them
    this.unkept = new Map(); // why what was typed is not kept, by model and field
    for (const [id, typed] of Object.entries(context.store.get("typed", {}))) for (const name of Object.keys(typed)) this.unkept.set(`${id} ${name}`, { text: this.t("library.unkept") });
    this.pages = new Pages(
      (offset, limit, signal) => context.api.get("/api/models", { ...this.wishes, offset, limit }, { signal }),
      (first, last) => this.arrived(first, last),
      { failed: (error) => this.failed(error) },
    );
    this.build();
    this.makeWindow();
    context.keys({
      f: { text: this.t("library.keys.star"), needs: "manage", run: () => this.favour() },
      u: { text: this.t("library.keys.use"), needs: "generate", run: () => this.entry && this.usable && this.use() },
      t: { text: this.t("library.keys.view"), run: () => this.setView(this.view === "cards" ? "table" : "cards") },
      esc: { always: true, run: () => (this.state.model ? this.go({ model: "" }) : false) },
    });
    this.tabs = new BroadcastChannel("bottega.models");
    this.tabs.onmessage = ({ data }) => this.changedElsewhere(data);
    this.told = new Set([...context.jobs.known.values()].filter((job) => OVER.includes(job.state)).map((job) => job.id));
    this.unwatch = context.jobs.watch((job, event) => {
      if (job && event?.kind === "step") this.pace.hear(job, event);
      this.worked(job);
    });
    this.drawWork();
    this.show(context.state);
  }

  build() {
    const { t } = this;
    this.field = h("input", {
      type: "search", class: "search", autocomplete: "off", spellcheck: "false", placeholder: t("library.search.label"),
      aria: { label: t("library.search.label") }, on: { input: () => this.typed(), keydown: (event) => this.fieldKey(event) },
    });
    this.count = h("span", { class: "soft small number library-count", role: "status" });
    this.sort = h("button", { type: "button", class: "quiet" });
    this.cardsButton = this.viewButton("cards", "grid");
    this.tableButton = this.viewButton("table", "table");
    const act = (name, drawing, run, more = {}) => h("button", { type: "button", data: { needs: "manage" }, title: more.title ?? t(name), aria: { label: t(name) }, on: { click: run } }, icon(drawing), h("span", { class: "wide-only", text: t(name) }));
    this.filters = h("button", { type: "button", class: "quiet narrow-only", aria: { expanded: "false", label: t("library.filters") }, on: { click: () => this.toggleRail() } }, icon("filter"), h("span", { class: "filters-name", text: t("library.filters") }));
    this.rail = h("nav", { class: "rail scrolls", aria: { label: t("library.filters") } });
    this.work = h("div", { class: "library-work", role: "status" });
    this.scroller = h("div", { class: "library-scroll scrolls" });
    this.head = h("div", { class: "library-head", role: "row" });
    this.message = h("div", { class: "library-message", hidden: true });
    this.drawer = h("aside", {
      class: "library-drawer scrolls", hidden: true, tabindex: "-1", aria: { label: t("library.what") },
      on: { focusout: () => { if (this.late) requestAnimationFrame(() => this.late && this.entry && this.drawEntry(this.entry)); } },
    });
    put(this.element, [
      h("h1", { class: "unseen", text: t("room.library") }),
      this.rail,
      h("div", { class: "library-main" },
        h("div", { class: "room-bar" },
          h("div", { class: "search-box" }, icon("search"), this.field, h("kbd", { class: "search-key", text: "/" })),
          this.filters, this.count, h("span", { class: "grow" }),
          h("span", { class: "narrow-box" }, this.sort), h("div", { class: "tabs", role: "group" }, this.cardsButton, this.tableButton),
          act("library.scan", "reuse", () => this.scan(), { title: t("library.scan.what") }), act("library.merge", "side", () => this.merging()),
          act("library.get", "download", () => this.getting())),
        this.work, this.head, this.message, this.scroller),
      this.drawer,
    ]);
    menu(this.sort, () => (this.state.q ? ["best", ...SORTS] : SORTS).map((name) => ({
      text: t(`library.sort.${name}`), checked: this.sorting() === name, run: () => this.go({ sort: name }),
    })), { side: "end", label: t("library.sort") });
  }

  /** Every family that a model can be said to be of: those that run, and those on the shelves. */
  async learnFamilies() {
    const { api, complain } = this.context;
    try {
      const [forms, facets] = await Promise.all([api.get("/api/forms"), api.get("/api/models/facets")]);
      this.families = [...new Set([...forms.families.map((family) => family.id), ...Object.keys(facets.family).filter(Boolean)])].sort();
    } catch (error) {
      complain(error);
    }
    if (this.entry?.because) this.drawEntry(this.entry);
  }

  viewButton(name, drawing) {
    const label = this.t(`library.${name}`);
    return h("button", { type: "button", class: "tab", title: label, aria: { label }, on: { click: () => this.setView(name) } }, icon(drawing));
  }

  makeWindow() {
    this.window?.close();
    const cards = this.view === "cards";
    this.window = new Window(this.scroller, {
      label: this.t("library.list"),
      layout: (width) => cells(this.pages.total ?? 0, width, cards ? CARD : ROW),
      draw: (index) => (cards ? this.card(index) : this.row(index)),
      near: (first, last) => { if (this.pages.total !== null) this.pages.want(first, last); },
      open: (index) => this.chosen(index),
    });
    this.cardsButton.setAttribute("aria-pressed", String(cards));
    this.tableButton.setAttribute("aria-pressed", String(!cards));
    this.element.classList.toggle("is-table", !cards);
    this.drawHead();
  }

  setView(view) {
    this.view = view;
    this.context.store.set("view", view);
    this.makeWindow();
    this.window.renew();
  }

  // ---------------------------------------------------------------------------------------------- what is looked for

  /** Show what the address asks for: the search, the filters, and the model that is open. */
  show(state) {
    const before = this.state;
    this.state = Object.fromEntries([...NARROWED_BY, "sort", "model"].map((name) => [name, state[name] || ""]));
    if (document.activeElement !== this.field) this.field.value = this.state.q;
    const other = !before || Object.keys(this.state).some((name) => name !== "model" && before[name] !== this.state[name]);
    if (other) this.load();
    if (!before || before.model !== this.state.model) this.openDrawer();
  }

  go(changes, options = { replace: true }) {
    return this.context.go("library", Object.fromEntries(Object.entries({ ...this.state, ...changes }).filter(([, value]) => value)), options);
  }

  typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.go({ q: this.field.value.trim() }), 100);
  }

  fieldKey(event) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      this.window.focus(0);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (!this.field.value) return this.window.focus();
      this.field.value = "";
      this.typed();
    }
  }

  sorting() {
    return this.state.sort && (this.state.sort !== "best" || this.state.q) ? this.state.sort : this.state.q ? "best" : "name";
  }

  /** What the models are to be like, as the API is asked for it. */
  wanted() {
    return Object.fromEntries(NARROWED_BY.map((name) => [name, this.state[name] && (name in MARKS || this.state[name])]));
  }

  /** Asks for the list; it is shown from its beginning, or from where `place` was. */
  async load(place = { top: 0, active: 0 }) {
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    this.place = place;
    const wanted = this.wanted();
    this.wishes = { ...wanted, sort: this.sorting() };
    fill(this.sort, h("span", { class: "soft sort-name", text: this.t("library.sort") }), h("span", { text: this.t(`library.sort.${this.sorting()}`) }), icon("chevron", 14));
    this.drawHead();
    this.pages.clear();
    this.pages.stale = true;
    await this.pages.want(0, 1); // what can be seen comes before what could be
    if (ticket !== this.ticket) return;
    try {
      const facets = await this.context.api.get("/api/models/facets", wanted);
      if (ticket !== this.ticket) return;
      this.facets = facets;
      this.drawRail();
      if (!this.families) this.learnFamilies();
    } catch (error) {
      if (ticket === this.ticket) this.failed(error);
    }
  }

  /** The same list asked for again, in place. */
  refresh() {
    return this.load({ top: this.scroller.scrollTop, active: this.window.active });
  }

  arrived(first, last) {
    const { t } = this;
    if (this.pages.stale) {
      this.pages.stale = false;
      const focused = this.window.box.contains(document.activeElement);
      this.scroller.scrollTop = this.place.top;
      this.window.active = this.place.active;
      this.window.renew();
      if (focused) this.window.focus();
      const total = this.pages.total;
      this.count.textContent = total === 1 ? t("library.count.one") : t("library.count", { n: number(total) });
      if (!this.isNarrowed()) this.field.placeholder = total > 1 ? t("library.search", { n: number(total) }) : t("library.search.label");
      this.empty(total ? null : this.nothing());
    } else this.window.redraw(first, last);
  }

  isNarrowed() {
    return NARROWED_BY.some((name) => this.state[name]);
  }

  empty(said) {
    this.message.hidden = !said;
    this.scroller.hidden = Boolean(said);
    if (said) fill(this.message, said);
  }

  nothing() {
    const { t } = this;
    if (this.isNarrowed()) return nothing(t("library.none"), [{ text: t("library.none.clear"), run: () => this.clear() }]);
    return nothing(t("library.empty"), [
      { text: t("library.empty.scan"), main: true, needs: "manage", run: () => this.scan() },
      { text: t("library.get"), needs: "manage", run: () => this.getting() },
    ], endpaper("checkpoint", "bottega"));
  }

  clear() {
    this.field.value = "";
    this.go(Object.fromEntries(NARROWED_BY.map((name) => [name, ""])));
  }

  failed(error) {
    if (this.pages.total === null) this.empty(troubled(this.context.saying(error), () => this.load()));
    else this.context.complain(error);
  }

  // --------------------------------------------------------------------------------------------------- what is drawn

  drawRail() {
    const { t, state } = this;
    const entry = (facet, { id, title, count }) => {
      const on = state[facet] === id;
      return h("button", {
        type: "button", class: ["rail-entry", facet === "verdict" && `is-${id}`], aria: { pressed: String(on) }, title,
        on: { click: () => this.go({ [facet]: on ? "" : id }) },
      }, h("span", { class: "cut", text: title }), h("span", { class: "rail-count number", text: number(count) }));
    };
    const group = (facet) => {
      const entries = facetEntries(facet, this.facets?.[facet] ?? this.facets?.[`${facet}s`]);
      if (!entries.length) return null;
      const whole = this.open.has(facet) || entries.length <= FOLDED + 1;
      const shown = whole ? entries : entries.slice(0, FOLDED);
      const chosen = entries.find(({ id }) => id === state[facet]);
      if (chosen && !shown.includes(chosen)) shown.push(chosen);
      const heading = fresh("facet");
      return h("section", { class: "rail-group", role: "group", aria: { labelledby: heading } }, h("h3", { id: heading, text: t(`library.facet.${facet}`) }),
        shown.map((each) => entry(facet, each)),
        entries.length > FOLDED + 1 && h("button", {
          type: "button", class: "rail-entry is-more", text: whole ? t("library.less") : t("library.more", { n: entries.length - FOLDED }),
          on: { click: () => this.unfold(facet) },
        }));
    };
    const mark = ([name, drawing]) => h("button", {
      type: "button", class: "rail-entry", aria: { pressed: String(Boolean(state[name])) }, on: { click: () => this.go({ [name]: state[name] ? "" : "1" }) },
    }, icon(drawing, 14), h("span", { class: "cut", text: t(`library.mark.${name}`) }));
    const top = this.rail.scrollTop;
    fill(this.rail, h("section", { class: "rail-group" }, Object.entries(MARKS).map(mark),
      h("button", { type: "button", class: ["rail-entry", "is-clear", !this.isNarrowed() && "is-idle"], disabled: !this.isNarrowed(), on: { click: () => this.clear() } }, icon("close", 14), h("span", { text: t("library.clear") }))),
    FACETS.map(group));
    this.rail.scrollTop = top;
  }

  unfold(facet) {
    if (!this.open.delete(facet)) this.open.add(facet);
    this.context.store.set("open", [...this.open]);
    this.drawRail();
  }

  toggleRail() {
    const shown = this.element.classList.toggle("has-rail");
    this.filters.setAttribute("aria-expanded", String(shown));
  }

  drawHead() {
    const { t } = this;
    this.head.hidden = this.view === "cards";
    if (this.view === "cards" || !this.state) return;
    const column = (name, sort) => h("span", { class: `cell is-${name}`, role: "columnheader", aria: { sort: sort && this.sorting() === sort ? "ascending" : null } },
      sort ? h("button", { type: "button", class: "quiet head-sort", aria: { pressed: String(this.sorting() === sort) }, text: t(`library.column.${name}`), on: { click: () => this.go({ sort }) } }) : t(`library.column.${name}`));
    fill(this.head, column("name", "name"), column("kind", "kind"), column("family"), column("category"), column("format"), column("size", "size"), column("date", "date"));
  }

  card(index) {
    const item = this.pages.at(index);
    if (!item) return h("div", { class: "card is-coming", aria: { busy: "true" } }, h("div", { class: "card-picture" }), h("div", { class: "card-words" }));
    const what = [kindText(item.kind), item.family && familyText(item.family, item.variant)].filter(Boolean).join(" · ");
    const picture = item.preview
      ? h("img", { alt: "", decoding: "async", draggable: "false", data: { src: `/api/models/${item.id}/preview` } })
      : [endpaper(item.kind, item.name), h("span", { class: "card-family", text: item.family ? familyText(item.family) : "" })];
    return h("div", {
      class: ["card", item.missing && "is-missing", item.verdict !== "clean" && `is-${item.verdict}`],
      aria: { label: `${item.name}, ${what}, ${bytes(item.size)}${item.verdict === "clean" ? "" : `, ${verdictText(item.verdict)}`}`, selected: String(item.id === this.state.model) },
    }, h("div", { class: "card-picture" }, picture, item.favourite && h("span", { class: "card-star" }, icon("star", 14))),
    h("div", { class: "card-words" }, h("strong", { class: "cut", text: item.name, title: item.name }),
      h("span", { class: "card-what" }, h("span", { class: "cut", text: what, title: what }), h("span", { class: "number", text: bytes(item.size) }))));
  }

  row(index) {
    const item = this.pages.at(index);
    if (!item) return h("div", { class: "line is-coming", aria: { busy: "true" } });
    const cell = (name, text, title = text) => h("span", { class: `cell is-${name} cut`, text, title });
    return h("div", {
      class: ["line", item.missing && "is-missing"], aria: { selected: String(item.id === this.state.model) },
    }, h("span", { class: "cell is-name", title: item.name }, item.verdict !== "clean" && h("span", { class: `dot is-${item.verdict}`, title: verdictText(item.verdict) }), h("span", { class: "cut", text: item.name }), item.favourite && icon("star", 12)),
    cell("kind", kindText(item.kind)), cell("family", item.family ? familyText(item.family, item.variant) : ""), cell("category", categoryText(item.category)),
    cell("format", [item.format, item.dtype].filter(Boolean).join(" ")), cell("size", bytes(item.size)), cell("date", moment(item.modified)));
  }

  chosen(index) {
    const item = this.pages.at(index);
    if (!item) return;
    this.returnTo = index;
    this.go({ model: item.id }, { replace: Boolean(this.state.model) });
  }

  // ------------------------------------------------------------------------------------------------------ one model

  async openDrawer() {
    const id = this.state.model;
    for (const element of this.window.drawn.values()) {
      element.setAttribute("aria-selected", String(this.pages.at(Number(element.dataset.index))?.id === id));
    }
    this.element.classList.toggle("has-drawer", Boolean(id));
    const inside = this.drawer.contains(document.activeElement);
    this.drawer.hidden = !id;
    if (!id) {
      this.entry = null;
      fill(this.drawer);
      if (inside && this.returnTo !== undefined) this.window.focus(this.returnTo);
      return;
    }
    const index = this.pages.find((item) => item.id === id);
    if (index >= 0 && this.entry?.id !== id) this.drawEntry(this.pages.at(index));
    try {
      const [entry] = await Promise.all([this.context.api.get(`/api/models/${id}`), this.context.met]);
      this.known.set(id, entry);
      if (this.state.model === id) this.drawEntry(entry);
    } catch (error) {
      if (this.state.model !== id) return;
      if (this.entry?.id === id && this.entry.because) this.context.complain(error); // what is shown stays, and what is typed in it
      else fill(this.drawer, this.drawerHead({ name: "" }), troubled([404, 422].includes(error.status) ? this.t("library.unknown") : this.context.saying(error), () => this.openDrawer()));
    }
  }

  /** An entry that has changed: in the list and in the drawer. */
  changed(entry) {
    const index = this.pages.find((item) => item.id === entry.id);
    if (index >= 0) {
      this.pages.put(index, { ...this.pages.at(index), ...entry });
      this.window.redraw(index);
      this.window.update();
    }
    if (this.entry?.id === entry.id) this.drawEntry({ ...this.entry, ...entry });
  }

  /** Another tab of this browser has said something of a model. */
  async changedElsewhere(id) {
    try {
      const entry = await this.context.api.get(`/api/models/${id}`);
      this.known.set(id, entry);
      this.changed(entry);
    } catch (error) {
      this.context.complain(error);
    }
    this.reload();
  }

  drawerHead(entry) {
    const { t } = this;
    return h("header", { class: "library-drawer-head" }, h("h2", { text: entry.name }),
      entry.id && h("button", {
        type: "button", class: "quiet square", data: { needs: "manage" }, title: `${t("library.favourite")} (F)`, aria: { label: t("library.favourite"), pressed: String(Boolean(entry.favourite)) }, on: { click: () => this.favour() },
      }, icon("star")),
      h("button", { type: "button", class: "quiet square", title: `${t("library.close")} (Esc)`, aria: { label: t("library.close") }, on: { click: () => this.go({ model: "" }) } }, icon("close")));
  }

  drawEntry(entry) {
    const { t } = this;
    const same = this.entry?.id === entry.id;
    this.entry = entry;
    const field = document.activeElement;
    this.late = same && this.drawer.contains(field) && field.matches("textarea, input[type=text]") && field.value !== "";
    if (this.late) return; // what is being typed must not be drawn over; it is drawn when the field is left
    const { copy, may } = this.context;
    const manages = may("manage");
    const about = entry.about ?? {};
    const top = this.drawer.scrollTop;
    const inside = this.drawer.contains(field);
    const focused = inside && field.dataset.keep;
    const sound = !entry.missing && entry.verdict !== "refused";
    const attachable = sound && ATTACHED.has(entry.kind);
    const stranger = attachable && this.strangeTo(entry);
    const usable = this.usable = (entry.runs && sound) || (attachable && !stranger);
    const sort = [kindText(entry.kind ?? ""), entry.family && familyText(entry.family, entry.variant), categoryText(entry.category ?? "")].filter(Boolean).join(" · ");
    fill(this.drawer,
      this.drawerHead(entry),
      h("p", { class: "drawer-sort", text: sort }),
      entry.missing && h("p", { class: "notice is-unusual" }, icon("warn"), h("span", { text: t("library.missing") }),
        manages && h("button", { type: "button", text: t("library.forget"), on: { click: () => this.forgetting() } })),
      entry.verdict && entry.verdict !== "clean" && h("p", { class: `notice is-${entry.verdict}` }, icon("warn"),
        h("span", {}, h("strong", { text: `${verdictText(entry.verdict)}. ` }), entry.error || t(`verdict.${entry.verdict}.why`),
          entry.names?.length > 0 && h("span", { class: "notice-names", text: `${t("library.names")}: ${entry.names.join(", ")}` }))),
      entry.preview && h("img", { class: "drawer-picture", src: `/api/models/${entry.id}/preview`, alt: t("library.preview", { name: entry.name }), decoding: "async" }),
      h("div", { class: "drawer-acts" },
        usable && may("generate") && h("button", { type: "button", class: "main", title: `${t("library.use")} (U)`, on: { click: () => this.use() } }, icon("brush"), h("span", { text: t("library.use") })),
        stranger && h("p", { class: "soft small grow", text: t("library.stranger", { family: familyText(entry.family), model: stranger.name, other: familyText(stranger.family) }) }),
        manages && !entry.missing && entry.verdict !== "refused" && h("button", { type: "button", text: t("library.convert"), on: { click: () => this.converting(entry) } })),
      entry.because && !usable && !entry.missing && entry.verdict !== "refused" && h("p", { class: "soft small", text: [entry.requires?.length && t("library.requires", { what: entry.requires.join(", ") }), !entry.runs && !attachable && t("library.idle")].filter(Boolean).join(" ") }),
      // What only the whole entry tells, and what can be written, is there once the entry is.
      entry.because && [this.howToUse(entry, about),
      (entry.because.length > 0 || entry.guess) && section(t("library.why"), entry.guess && h("p", { class: "soft small", text: t("library.guess") }),
        h("ul", { class: "because" }, entry.because.map((reason) => h("li", { text: reason })))),
      manages && this.putRight(entry),
      manages ? section(t("library.tags"), this.tagField(entry)) : entry.tags?.length > 0 && section(t("library.tags"), h("div", { class: "chips" }, entry.tags.map((tag) => h("span", { class: "chip", text: tag })))),
      manages ? section(t("library.note"), this.typedField(entry, "note", "textarea", { rows: "3", placeholder: t("library.note.hint"), aria: { label: t("library.note") } },
        (note, typed) => this.say(entry.id, () => ({ note }), { text: t("library.noted"), typed }))) : entry.note && section(t("library.note"), h("p", { class: "drawer-prose", text: entry.note })),
      this.licence(about),
      this.origin(entry, about),
      section(t("library.hashes"), facts([
        ["SHA-256", entry.sha256 && hash(entry.sha256, 20), entry.sha256], ["AutoV1", entry.autov1, Boolean(entry.autov1)], ["AutoV2", entry.autov2, Boolean(entry.autov2)],
        ["AutoV3", entry.autov3 && hash(entry.autov3, 12), entry.autov3], ["CRC32", entry.crc32, Boolean(entry.crc32)], ["BLAKE3", entry.blake3 && hash(entry.blake3, 20), entry.blake3],
      ], copy), !entry.sha256 && !entry.missing && h("div", { class: "row" }, h("span", { class: "soft small grow", text: t("library.hash.none") }), manages && h("button", { type: "button", text: t("library.hash"), on: { click: () => this.hashIt(entry) } }))),
      section(t("library.file"), facts([
        [t("library.format"), entry.format], [t("library.dtype"), entry.dtype], [t("library.size"), entry.size !== undefined && bytes(entry.size)],
        [t("library.parameters"), entry.parameters ? compact(entry.parameters) : null], [t("library.verdict"), entry.verdict && verdictText(entry.verdict)],
        ...(entry.notes ?? []).map((text) => ["", text]),
      ], copy))],
    );
    this.showUnkept();
    this.drawer.scrollTop = same ? top : 0;
    if (focused) this.drawer.querySelector(`[data-keep="${focused}"]`)?.focus();
    else if (inside || (!same && innerWidth < 1100)) this.drawer.focus({ preventScroll: true });
  }

  origin(entry, about) {
    const { t } = this;
    const rows = [
      [t("library.title"), about.title !== entry.name && about.title], [t("library.version"), about.version], [t("library.author"), about.author],
      [t("library.base"), about.base_model], [t("library.date"), about.date], [t("library.page"), about.source, Boolean(about.source)],
      ...Object.entries(about.extra ?? {}).map(([name, value]) => [extraText(name), value]),
    ];
    if (!about.description && !rows.some(([, value]) => value)) return null;
    return section(t("library.from"), facts(rows, this.context.copy), about.description && h("p", { class: "drawer-prose", text: about.description }));
  }

  howToUse(entry, about) {
    const { t } = this;
    const triggers = about.triggers ?? [];
    const fits = Object.entries(entry.fits ?? {});
    if (!triggers.length && !about.weight && !about.resolution && !fits.length) return null;
    return section(t("library.how"),
      triggers.length > 0 && h("div", { class: "triggers" }, h("h4", {}, t("library.triggers"), copyButton(t("library.triggers.all"), triggers.join(", "), this.context.copy)),
        h("div", { class: "chips" }, triggers.map((word) => h("button", { type: "button", class: "chip", title: t("frame.copy", { what: word }), text: word, on: { click: () => this.context.copy(word) } })))),
      facts([[t("library.weight"), about.weight && number(about.weight, 2), about.weight ? String(about.weight) : undefined], [t("library.resolution"), about.resolution]], this.context.copy),
      fits.length > 0 && h("details", { class: "fits" }, h("summary", { text: t("library.fits") }),
        fits.map(([kind, names]) => h("div", {}, h("h4", { text: `${kindText(kind)} · ${number(names.length)}${names.length === MOST_NAMES ? "+" : ""}` }), h("ul", {}, names.slice(0, 12).map((name) => h("li", {},
          h("button", { type: "button", class: "link cut", title: name, text: name, on: { click: () => this.find(name, kind) } }))),
        names.length > 12 && h("li", { class: "soft small", text: t("library.more", { n: number(names.length - 12) }) }))))));
  }

  /** Open the model of this name and kind. */
  async find(name, kind) {
    try {
      const { items } = await this.context.api.get("/api/models", { q: name, kind, limit: 50 });
      const found = items.find((item) => item.name === name);
      if (found) this.go({ model: found.id }, {});
    } catch (error) {
      this.context.complain(error);
    }
  }

  /** Corrections in place: each field says what the header says where that is something else. */
  putRight(entry) {
    const { t } = this;
    const families = (this.families ?? []).map((id) => [id, familyText(id)]);
    if (entry.family && !families.some(([id]) => id === entry.family)) families.push([entry.family, familyText(entry.family)]);
    const field = (name, control) => {
      const said = entry.corrected && name in entry.corrected;
      return h("label", { class: ["right-row", said && "is-corrected"] }, h("span", { text: t(`library.${name}`) }), control,
        said && h("span", { class: "right-said small" }, t("library.said", { value: wordFor(name, entry.header_says[name]) || t("library.said.nothing") }),
          h("button", { type: "button", class: "link", text: t("frame.undo"), on: { click: () => this.correct(entry, name, null) } })));
    };
    const choice = (name, options) => h("span", { class: "choice" }, h("select", { data: { keep: name }, on: { change: (event) => this.correct(entry, name, event.target.value) } },
      options.map(([value, text]) => h("option", { value, text, selected: value === (entry[name] ?? "") }))), icon("chevron", 14));
    const withOwn = (options, own) => (options.some(([value]) => value === own) || !own ? options : [[own, wordFor("kind", own)], ...options]);
    return h("details", { class: "part right", open: this.rightOpen ?? false, on: { toggle: (event) => { this.rightOpen = event.target.open; } } },
      h("summary", { text: t("library.right") }),
      field("kind", choice("kind", withOwn(KINDS.map((kind) => [kind, kindText(kind)]), entry.kind))),
      field("category", choice("category", [...(CATEGORIES.includes(entry.category) ? [] : [[entry.category ?? "", "–"]]), ...CATEGORIES.map((each) => [each, categoryText(each)])])),
      field("family", choice("family", [...(entry.family ? [] : [["", "–"]]), ...families])),
      field("variant", this.typedField(entry, "variant", "input", { type: "text" }, (variant, typed) => this.correct(entry, "variant", variant.trim(), typed))));
  }

  /** A field that is typed in. What is not kept yet stays in it, through a reload too, and under it stands why. */
  typedField(entry, name, tag, attributes, keep) {
    const why = h("div", { class: "wrong unkept", id: fresh("unkept"), role: "alert", hidden: true, data: { of: name } });
    const field = h(tag, {
      ...attributes, data: { keep: name }, aria: { ...attributes.aria, describedby: why.id }, value: this.typedOf(entry.id)[name]?.value ?? entry[name] ?? "",
      on: { input: () => this.setTyped(entry.id, name, { was: entry[name], ...this.typedOf(entry.id)[name], value: field.value }), change: () => keep(field.value, { name, value: field.value }) },
    });
    why.addEventListener("click", (event) => { if (event.target.closest("button")) keep(field.value, { name, value: field.value }); });
    return [field, why];
  }

  tagField(entry) {
    const { t } = this;
    const tags = entry.tags ?? [];
    const input = h("input", {
      type: "text", class: "tag-input", data: { keep: "tag" }, placeholder: t("library.tag.add"), aria: { label: t("library.tag.add") }, maxlength: "60",
      on: { keydown: (event) => {
        const tag = input.value.trim();
        if ((event.key === "Enter" || event.key === ",") && tag) {
          event.preventDefault();
          input.value = "";
          this.addTag(entry, tag);
        } else if (event.key === "Backspace" && !input.value && tags.length) this.removeTag(entry, tags.at(-1));
      } },
    });
    return h("div", { class: "tag-field" }, tags.map((tag) => h("span", { class: "chip" }, h("span", { text: tag }),
      h("button", { type: "button", class: "quiet chip-close", aria: { label: t("library.tag.remove", { tag }) }, on: { click: () => this.removeTag(entry, tag) } }, icon("close", 12)))), input);
  }

  licence(about) {
    const { t } = this;
    const permits = Object.entries(about.permissions ?? {});
    return section(t("library.licence"), about.licence ? h("p", { class: "licence-name", text: about.licence }) : h("p", { class: "soft small", text: t("library.licence.none") }),
      permits.length > 0 && h("ul", { class: "permits" }, permits.map(([what, value]) => {
        const told = value.split(", ").map((each) => t(`permit.${each}`, {}, each)).join(t("permit.,"));
        const sort = FORBIDS.has(value) ? "is-refused" : ALLOWS.has(value) ? "is-clean" : "";
        return h("li", { class: sort }, icon(sort === "is-refused" ? "close" : sort ? "check" : "minus", 14), h("span", { text: `${t(`permit.${what}`, {}, what)}: ${told}` }));
      })));
  }

  // --------------------------------------------------------------------------------------------- what is said of it

  /** What was typed of a model and is not kept yet, by the name of its field: `{value, was}`, with what stood there before. */
  typedOf(id) { return this.context.store.get("typed", {})[id] ?? {}; }

  /** Remembers what is typed into a field of a model; undefined forgets it. */
  setTyped(id, name, told) {
    const { [id]: before, ...others } = this.context.store.get("typed", {});
    const typed = { ...before, [name]: told };
    if (told === undefined) delete typed[name];
    this.context.store.set("typed", Object.keys(typed).length ? { ...others, [id]: typed } : others);
  }

  /** Says under each field of the drawer why what stands in it is not kept. */
  showUnkept() {
    for (const place of this.drawer.querySelectorAll(".unkept")) {
      const name = place.dataset.of;
      const typed = this.typedOf(this.entry.id)[name];
      const why = typed && typed.value !== (this.entry[name] ?? "") && this.unkept.get(`${this.entry.id} ${name}`);
      const again = why && h("button", { type: "button", class: "link", data: why.lost && { again: "" }, text: this.t(why.lost ? "frame.broken.again" : "library.keep") });
      fill(place, why && [h("span", { text: why.text }), again]);
      place.hidden = !why;
      place.parentElement.querySelector(`[data-keep="${name}"]`).setAttribute("aria-invalid", String(Boolean(why)));
    }
  }

  /**
   * Says something of a model, whichever is open by then; one thing after the other. `change` makes of what the server
   * knows by then what is said; `typed` is the field that it was typed into, and what. Whether it is kept now.
   */
  say(id, change, { text = "", undo = null, typed = null } = {}) {
    const turn = this.turn = (this.turn ?? 0) + 1;
    this.saying = Promise.resolve(this.saying).then(async () => {
      const kept = await this.handIn(id, change, typed);
      if (kept && text) this.context.toast({ text, undo });
      if (!kept || turn === this.turn || this.entry?.id !== id) this.changed(this.known.get(id)); // else it lacks what was said since
      if (this.entry?.id === id) this.showUnkept();
      if (kept) this.reload();
      return kept;
    });
    return this.saying;
  }

  /** Has the server keep what is said, unless that would undo what somebody else has said since it was read. */
  async handIn(id, change, typed) {
    const key = typed && `${id} ${typed.name}`;
    const known = this.known.get(id);
    const changes = change(known);
    const was = Object.fromEntries(Object.keys(changes).map((name) => [name, this.typedOf(id)[name]?.was ?? known[name]]));
    try {
      this.known.set(id, await this.context.api.patch(`/api/models/${id}`, { ...changes, was }));
      this.tabs.postMessage(id);
    } catch (error) {
      if (error.kind === "Outdated") return this.handInAgain(id, change, typed);
      if (!typed) this.context.complain(error);
      else this.unkept.set(key, { text: error.problems?.map((each) => [each.what, each.remedy].filter(Boolean).join("; ")).join(". ") || this.context.saying(error), lost: error.status === 0 });
      return false;
    }
    if (typed) {
      this.unkept.delete(key);
      const later = this.typedOf(id)[typed.name];
      this.setTyped(id, typed.name, later && later.value !== typed.value ? { ...later, was: this.known.get(id)[typed.name] } : undefined);
    }
    return true;
  }

  /** Somebody else has said something meanwhile: both is kept where it goes together; of two notes, one is chosen. */
  async handInAgain(id, change, typed) {
    try {
      this.known.set(id, await this.context.api.get(`/api/models/${id}`));
    } catch (error) {
      this.context.complain(error);
      return false;
    }
    if (typed?.name !== "note") return this.handIn(id, change, typed);
    const { note } = this.known.get(id);
    this.unkept.set(`${id} note`, { text: this.t("library.overtaken", { note: note || "–" }) });
    this.setTyped(id, "note", { value: typed.value, was: note });
    return false;
  }

  correct(entry, name, value, typed = null) {
    const { t } = this;
    const now = this.known.get(entry.id);
    const field = t(`library.${name}`);
    const undone = value === null || value === now.header_says[name];
    const text = undone ? t("library.uncorrected", { field }) : t("library.corrected", { field, value: wordFor(name, value) });
    const before = now.corrected[name] ?? null;
    const undo = () => this.say(entry.id, correcting(name, before));
    return this.say(entry.id, correcting(name, value), { text, typed, undo });
  }

  async addTag(entry, tag) {
    if (await this.say(entry.id, tagging(tag)) || this.entry?.id !== entry.id) return;
    const field = this.drawer.querySelector(".tag-input");
    if (!field.value) field.value = tag;
  }

  removeTag(entry, tag) {
    const undo = () => this.say(entry.id, tagging(tag));
    return this.say(entry.id, untagging(tag), { text: this.t("library.tag.removed", { tag }), undo });
  }

  favour() {
    const item = this.entry ?? (this.window.box.contains(document.activeElement) ? this.pages.at(this.window.active) : null);
    if (!item) return false;
    const favourite = !item.favourite;
    this.changed({ ...item, favourite });
    this.context.api.patch(`/api/models/${item.id}`, { favourite }).then((told) => {
      this.known.set(item.id, told);
      this.tabs.postMessage(item.id);
    }, (error) => {
      this.changed({ ...item, favourite: !favourite });
      this.context.complain(error);
    });
  }

  /** The counts in the rail, after something has changed. */
  async reload() {
    try {
      this.facets = await this.context.api.get("/api/models/facets", this.wanted());
      this.drawRail();
    } catch (error) {
      this.context.complain(error);
    }
  }

  use() {
    this.context.go("make", { [this.entry.runs ? "model" : "adapter"]: this.entry.id });
  }

  /** The model in Make, if an adapter is made for others than that. */
  strangeTo(entry) {
    const model = this.context.storeOf("make").get("draft")?.model;
    if (!model || !entry.family || entry.family === model.family) return null;
    return entry.kind === "vae" && SAME_VAE.has(entry.family) && SAME_VAE.has(model.family) ? null : model;
  }

  // ------------------------------------------------------------------------------------------------- work on shelves

  async begin(path, body, text, options) {
    try {
      const job = await this.context.api.post(path, body, options);
      this.context.jobs.take(job);
      this.context.say(text);
      return job;
    } catch (error) {
      this.context.complain(error);
      return null;
    }
  }

  scan() {
    return this.begin("/api/models/scan", {}, this.t("library.started.scan"));
  }

  async forgetting() {
    const { t, context } = this;
    if (this.isForgetting) return;
    const settled = () => { this.isForgetting = false; };
    this.isForgetting = true;
    try {
      const { total } = await context.api.get("/api/models", { missing: true, limit: 1 });
      const done = () => this.begin("/api/models/scan", { forget_missing: true }, t("library.started.scan"), { keepalive: true }).finally(settled);
      context.toast({ text: t("library.forgetting", { n: number(total) }), undo: settled, done });
    } catch (error) {
      settled();
      context.complain(error);
    }
  }

  hashIt(entry) {
    return this.begin(`/api/models/${entry.id}/hash`, {}, this.t("library.started.hash", { name: entry.name }));
  }

  /** Work on the shelves has gone on; what is over is told once, however the page came to know of it. */
  worked(job) {
    if (job && !WORK.has(job.kind)) return;
    this.drawWork();
    if (!job || this.told.has(job.id) === OVER.includes(job.state)) return;
    if (!OVER.includes(job.state)) return this.told.delete(job.id); // it was cancelled, and is had back
    this.told.add(job.id);
    const what = workText(this.t, job);
    if (job.state === "done") {
      this.context.toast({ text: this.t("library.done", { what }) });
      this.refresh();
      this.learnFamilies();
      if (this.state.model) this.openDrawer();
    } else if (job.state === "failed") {
      const see = { text: this.t("library.see"), run: () => this.context.go("queue") };
      this.context.toast({ text: this.t("library.failed", { what, why: job.error?.what ?? "" }), kind: "error", action: see });
    }
  }

  /** What is being done to the shelves right now, with how far it is. */
  drawWork() {
    const jobs = this.context.jobs.open().filter((job) => WORK.has(job.kind));
    fill(this.work, jobs.map((job) => {
      const { done = 0, total = 0 } = job.progress ?? {};
      return h("div", { class: "work-line" }, h("span", { class: "cut", text: workText(this.t, job) }),
        h("progress", { max: total || null, value: total ? done : undefined, aria: { label: workText(this.t, job) } }),
        h("span", { class: "soft small number", text: progressText(job, this.pace.left(job)) }),
        h("button", { type: "button", class: "quiet square", data: { needs: "generate manage" }, title: this.t("library.stop"), aria: { label: this.t("library.stop") }, on: { click: () => cancel(this.context, job) } }, icon("close")));
    }));
  }

  // ------------------------------------------------------------------------------------------------------- dialogs

  getting() {
    const { t } = this;
    dialog(t("library.get"), (body, close) => {
      const what = h("input", { type: "text", required: true, autofocus: true, spellcheck: "false", autocomplete: "off", placeholder: "civitai:128713 · hf:org/name · https://…" });
      const file = h("input", { type: "text", placeholder: t("library.get.file.help") });
      const sha256 = h("input", { type: "text", spellcheck: "false", placeholder: t("library.optional"), pattern: "[0-9a-fA-F]{64}" });
      const name = h("input", { type: "text", maxlength: "120", placeholder: t("library.optional") });
      const unusual = h("input", { type: "checkbox", class: "switch" });
      this.form(body, close, t("library.get.go"), [
        labelled(t("library.get.what"), what, t("library.get.help")),
        h("details", {}, h("summary", { text: t("library.get.more") }), labelled(t("library.get.file"), file), labelled(t("library.merge.name"), name), labelled(t("library.get.sha256"), sha256),
          switched(t("library.get.unusual"), unusual)),
      ], { reference: what, file, name, sha256 }, () => ["/api/models/get", compacted({ reference: what.value.trim(), file: file.value.trim(), name: name.value.trim(), sha256: sha256.value.trim(), allow_unusual: unusual.checked || undefined })]);
    });
  }

  merging() {
    const { t } = this;
    dialog(t("library.merge.title"), (body, close) => {
      const models = [this.entry?.kind === "checkpoint" && !this.entry.missing ? this.entry : null, null, null];
      const picks = ["a", "b", "c"].map((name, index) => modelPicker({
        label: t(`library.merge.${name}`), familyName: (model) => familyText(model.family),
        says: { search: t("library.merge.search"), none: t("library.merge.none"), empty: t("library.merge.empty") },
        find: (q, limit) => this.context.api.get("/api/models", { q, limit, kind: "checkpoint" }),
        chosen: (model) => { models[index] = model; picks[index].wrong(""); },
      }));
      picks[0].set(models[0]);
      const weight = h("input", { type: "range", min: "0", max: "1", step: "0.05", value: "0.5" });
      const shown = h("output", { class: "number", text: "0.5" });
      weight.addEventListener("input", () => { shown.textContent = weight.value; });
      const method = h("select", {}, METHODS.map((name) => h("option", { value: name, text: t(`library.method.${name}`) })));
      const name = h("input", { type: "text", required: true, maxlength: "120" });
      const force = h("input", { type: "checkbox", class: "switch" });
      const unforce = () => { force.checked = false; }; // another name is another model
      name.addEventListener("input", unforce);
      const asked = () => (TAKES_C.has(method.value) ? 3 : 2);
      const needed = () => (method.value === "add-difference" ? 3 : 2);
      const needC = () => { picks[2].element.hidden = asked() < 3; };
      method.addEventListener("change", needC);
      needC();
      this.form(body, close, t("library.merge.go"), [
        labelled(t("library.merge.method"), h("span", { class: "choice" }, method, icon("chevron", 14))), picks.map((pick) => pick.element),
        labelled(t("library.merge.weight"), h("span", { class: "row" }, weight, shown)), labelled(t("library.merge.name"), name),
        switched(t("library.replace"), force),
      ], { models: picks[0].element, weight, method, name }, () => {
        const left = models.findIndex((model, index) => index < needed() && !model);
        if (left >= 0) {
          picks[left].wrong(t("library.merge.pick"));
          picks[left].focus();
          return null;
        }
        const chosen = models.slice(0, asked()).filter(Boolean).map((model) => model.id);
        return ["/api/models/merge", { models: chosen, method: method.value, weight: Number(weight.value), name: name.value.trim(), force: force.checked }];
      });
    });
  }

  converting(entry) {
    const { t } = this;
    dialog(t("library.convert.title", { name: entry.name }), (body, close) => {
      const dtype = h("select", {}, DTYPES.map((name) => h("option", { value: name, text: t(`library.dtype.${name}`), selected: name === "fp16" })));
      const layout = h("select", {}, (entry.kind === "checkpoint" ? ["single", "diffusers"] : ["single"]).map((name) => h("option", { value: name, text: t(`library.layout.${name}`) })));
      const prune = h("input", { type: "checkbox", class: "switch", checked: true });
      const force = h("input", { type: "checkbox", class: "switch" });
      const unforce = () => { force.checked = false; }; // another name is another model
      const name = h("input", { type: "text", required: true, maxlength: "120", value: `${entry.name}-fp16` });
      let touched = false;
      name.addEventListener("input", () => { touched = true; unforce(); });
      dtype.addEventListener("change", () => { if (!touched) name.value = dtype.value === "keep" ? `${entry.name}-copy` : `${entry.name}-${dtype.value}`; unforce(); });
      this.form(body, close, t("library.convert.go"), [
        labelled(t("library.convert.dtype"), h("span", { class: "choice" }, dtype, icon("chevron", 14))), labelled(t("library.convert.layout"), h("span", { class: "choice" }, layout, icon("chevron", 14))),
        switched(t("library.convert.prune"), prune), labelled(t("library.convert.name"), name), switched(t("library.replace"), force),
      ], { dtype, layout, name }, () => [`/api/models/${entry.id}/convert`, { name: name.value.trim(), dtype: dtype.value, layout: layout.value, prune: prune.checked, force: force.checked }]);
    });
  }

  /**
   * A form in a dialog: what is wrong is said at the field it belongs to, and what was typed is kept. `request()` gives
   * the path and the body, or null where it has said itself what is missing.
   */
  form(body, close, verb, rows, fields, request) {
    const problem = h("p", { class: "wrong", role: "alert", hidden: true });
    const submit = h("button", { type: "submit", class: "main", text: verb });
    put(body, h("form", { class: "form", on: { submit: async (event) => {
      event.preventDefault();
      problem.hidden = true;
      for (const field of Object.values(fields)) field.removeAttribute("aria-invalid");
      const wanted = request();
      if (!wanted) return;
      submit.disabled = true;
      try {
        this.context.jobs.take(await this.context.api.post(...wanted));
        close();
      } catch (error) {
        for (const { field } of error.problems ?? []) fields[field?.split(".").find((part) => fields[part])]?.setAttribute("aria-invalid", "true");
        problem.textContent = error.problems?.length ? error.problems.map((each) => [each.what, each.remedy].filter(Boolean).join("; ")).join(". ") : this.context.saying(error);
        problem.hidden = false;
        (body.querySelector("[aria-invalid]") ?? submit).focus();
      } finally {
        submit.disabled = false;
      }
    } } }, rows, problem, h("div", { class: "form-acts" }, h("button", { type: "button", class: "quiet", text: this.t("frame.close"), on: { click: () => close() } }), submit)));
  }

  close() {
    clearTimeout(this.typing);
    clearTimeout(this.still);
    this.ticket = -1;
    this.unwatch();
    this.tabs.close();
    this.pages.clear();
    this.window.close();
  }
}

// What is said of a model, made of what the server knows of it by then.
const tagging = (tag) => ({ tags }) => ({ tags: [...tags.filter((each) => each !== tag), tag] });
const untagging = (tag) => ({ tags }) => ({ tags: tags.filter((each) => each !== tag) });
const correcting = (name, value) => ({ corrected, header_says: told }) => {
  const { [name]: before, ...others } = corrected;
  return { corrected: value === null || value === told[name] ? others : { ...others, [name]: value } };
};

const switched = (label, box) => h("label", { class: "check-row" }, box, h("span", { text: label }));
const labelled = (label, control, help = "") => h("label", { class: "form-row" }, h("span", { text: label }), control, help && h("small", { class: "soft", text: help }));

const compacted = (body) => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== "" && value !== undefined && value !== null));

/** A count in millions or milliards: 860 M. */
function compact(value) {
  return new Intl.NumberFormat(document.documentElement.lang, { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

function wordFor(field, value) {
  if (!value) return value;
  return { kind: kindText, category: categoryText, family: (each) => familyText(each) }[field]?.(value) ?? value;
}

/** The entries of a facet with their titles, the most frequent first, tags by name. */
function facetEntries(facet, told) {
  const list = Array.isArray(told) ? told : Object.entries(told ?? {}).map(([id, count]) => ({ id, count }));
  const title = { kind: kindText, medium: mediumText, verdict: verdictText, family: (id) => familyText(id) }[facet] ?? ((id) => id);
  return list.filter(({ id }) => id).map(({ id, count, title: own }) => ({ id, count, title: facet === "family" && own ? own : title(id) }));
}

function workText(t, job) {
  return job.kind !== "scan" && job.title ? job.title : t("library.started.scan");
}

function progressText(job, left) {
  const { done, total, phase } = job.progress ?? {};
  if (!total) return phase ?? "";
  const shown = total > 100_000 ? (value) => bytes(value) : (value) => number(value);
  return `${shown(done)} / ${shown(total)}${left ? ` · ${duration(left)}` : ""}`;
}
