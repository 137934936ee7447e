// The room where models are taught: pictures and settings on the left, the trainings with their curves and samples on the right.

import { fill, h, put } from "../dom.js";
import { compare } from "../parts/beside.js";
import { complain as mark } from "../parts/controls.js";
import { icon } from "../parts/icons.js";
import { Pace } from "../parts/jobs.js";
import { modelPicker } from "../parts/picker.js";
import { sure } from "../parts/popover.js";
import { Curve } from "../parts/train/curve.js";
import { Pictures } from "../parts/train/pictures.js";
import { TrainingSettings } from "../parts/train/settings.js";
import { bytes, duration, inLine, moment, number } from "../words.js";

const KINDS = ["lora", "embedding", "hypernetwork", "full"];
const KEEP_AFTER = 200; // ms
const CHECK_AFTER = 900;
const FEW_PICTURES = 200; // so many are looked at by themselves; more when somebody asks
const TRAININGS = 50;
const CATCH_UP = 1000; // ms between two looks at the log of a training of which steps were missed
const USUAL_MODEL = "starter-image";
const TRIED_SEED = 1;
const EMPTY = { kind: "lora", dataset: null, model: null, word: "", name: "", samples: "", values: {} };
const OVER = new Set(["done", "failed", "cancelled"]);
const going = new Set(); // the ids of datasets that are deleted as soon as nobody can undo it any more
let here = null; // the room, while it is open

const words = {
  en: {
    "room.train": "Train",
    "train.form": "What to teach", "train.kind": "What to train", "train.kind.lora": "LoRA", "train.kind.embedding": "Embedding", "train.kind.hypernetwork": "Hypernetwork", "train.kind.full": "Whole model",
    "train.kind.lora.what": "A small file that changes the weights: for a style, a person, a thing.", "train.kind.embedding.what": "A new word: the smallest, and the model stays as it is.", "train.kind.hypernetwork.what": "Small networks beside the attention, for a style.", "train.kind.full.what": "All the weights: the most memory, the largest file.",
    "train.data": "Pictures", "train.data.new": "New dataset", "train.data.name": "Name of the dataset", "train.data.first": "My pictures", "train.data.line": "{n} pictures", "train.data.delete": "Delete the dataset", "train.data.deleted": "{name} and its {n} pictures are deleted", "train.data.delete.needed": "Trainings that learn from it and are not done: {n}. Without it they can't go on.",
    "train.base": "Base model", "train.word": "Word that it shall learn", "train.word.hint": "put before captions without it", "train.name": "Name of the result", "train.name.hint": "as the word", "train.samples": "Sample prompts", "train.samples.hint": "one a line; made as it goes, always with the same seeds",
    "train.check": "Check", "train.checking": "Looking at the pictures …", "train.ready": "{n} pictures · {sizes} · {memory}", "train.size": "{n} of {width} × {height}", "train.start": "Start training", "train.started": "The training is in the queue", "train.picture": "picture {n}", "train.nothing": "Choose pictures first",
    "train.without": "Teaching models takes a key that may manage them; whoever runs this server can give you one.",
    "train.list": "Trainings", "train.none.without": "Nothing has been taught yet.", "train.none": "Nothing has been taught yet. Choose pictures of one thing or one style, say in a caption what each shows, and press Start training: the curve and the samples stand here.",
    "train.state.waiting": "waits", "train.state.paused": "paused", "train.state.running": "running", "train.state.done": "done", "train.state.failed": "failed", "train.state.cancelled": "stopped", "train.stopping": "stopping",
    "train.step": "step {done} of {total}", "train.left": "{time} left", "train.stop": "Stop", "train.resume": "Go on", "train.resumed": "It goes on where it was", "train.stopped": "It stops after this step; what it has learned is kept",
    "train.samples.title": "Samples", "train.samples.none": "No sample yet", "train.sample.step": "step {step}", "train.sample.alt": "{prompt}, after {step} steps",
    "train.try": "Try it beside the base", "train.try.prompt": "Prompt", "train.try.go": "Make both", "train.try.making": "Making both …", "train.try.failed": "One of the two failed", "train.use": "Use in Make", "train.library": "Show in the Library",
    "train.settings": "Its settings", "train.again": "Put them into the form", "train.taken": "Settings taken from {name}", "train.key.start": "Start training", "train.key.stop": "Stop the training that is shown",
  },
  zh: {
    "room.train": "训练",
    "train.form": "要教什么", "train.kind": "训练类型", "train.kind.lora": "LoRA", "train.kind.embedding": "嵌入", "train.kind.hypernetwork": "超网络", "train.kind.full": "整个模型",
    "train.kind.lora.what": "改变权重的小文件：适合风格、人物或物体。", "train.kind.embedding.what": "一个新词：最小，模型保持不变。", "train.kind.hypernetwork.what": "注意力旁的小网络，适合风格。", "train.kind.full.what": "全部权重：内存最多，文件最大。",
    "train.data": "图片", "train.data.new": "新数据集", "train.data.name": "数据集名称", "train.data.first": "我的图片", "train.data.line": "{n} 张图片", "train.data.delete": "删除数据集", "train.data.deleted": "已删除 {name} 及其中 {n} 张图片", "train.data.delete.needed": "使用它且尚未完成的训练：{n} 个。没有它，这些训练将无法继续。",
    "train.base": "基础模型", "train.word": "要学会的词", "train.word.hint": "会加在没有它的说明前", "train.name": "结果的名称", "train.name.hint": "与词相同", "train.samples": "采样提示词", "train.samples.hint": "每行一个；训练中用固定种子生成",
    "train.check": "检查", "train.checking": "正在查看图片……", "train.ready": "{n} 张图片 · {sizes} · {memory}", "train.size": "{n} 张 {width} × {height}", "train.start": "开始训练", "train.started": "训练已加入队列", "train.picture": "第 {n} 张", "train.nothing": "请先选择图片",
    "train.without": "训练需要可以管理模型的密钥；请向服务器的管理员索取。",
    "train.list": "训练记录", "train.none.without": "还没有训练过。", "train.none": "还没有训练过。选择同一物体或同一风格的图片，写下每张的内容，然后按“开始训练”：曲线和样图会出现在这里。",
    "train.state.waiting": "等待", "train.state.paused": "已暂停", "train.state.running": "进行中", "train.state.done": "完成", "train.state.failed": "失败", "train.state.cancelled": "已停止", "train.stopping": "正在停止",
    "train.step": "第 {done} / {total} 步", "train.left": "还需 {time}", "train.stop": "停止", "train.resume": "继续", "train.resumed": "从停下的地方继续", "train.stopped": "这一步之后停止；已学到的会保留",
    "train.samples.title": "样图", "train.samples.none": "还没有样图", "train.sample.step": "第 {step} 步", "train.sample.alt": "{prompt}，第 {step} 步后",
    "train.try": "与基础模型对比试用", "train.try.prompt": "提示词", "train.try.go": "生成两张", "train.try.making": "正在生成两张……", "train.try.failed": "其中一张失败了", "train.use": "用于创作", "train.library": "在模型库中显示",
    "train.settings": "它的设置", "train.again": "放进表单", "train.taken": "已采用 {name} 的设置", "train.key.start": "开始训练", "train.key.stop": "停止所显示的训练",
  },
};

class Train {
  constructor(element, context) {
    Object.assign(this, { element, context, t: context.t, trainings: [], shown: null, pace: new Pace() });
    this.draft = { ...structuredClone(EMPTY), ...context.store.get("draft", {}) };
  }

  async open() {
    try {
      return await this.load();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  async load() {
    const { api, store } = this.context;
    this.build();
    this.keys();
    this.unwatch = this.context.jobs.watch((job, event) => this.hear(job, event));
    const [forms, sets, trainings] = await Promise.all([api.get("/api/trainings/forms"), api.get("/api/datasets"), api.get("/api/trainings", { limit: TRAININGS }), this.context.met]);
    Object.assign(this, { forms, sets: sets.items.filter((one) => !going.has(one.id)), trainings: trainings.items });
    for (const job of this.trainings) this.context.jobs.take(job);
    if (!this.sets.some((one) => one.id === this.draft.dataset)) this.draft.dataset = this.sets[0]?.id ?? null;
    this.drawKind();
    this.drawSets();
    await Promise.all([this.loadSet(), this.loadModel()]);
    const wanted = this.context.state.training ?? store.get("shown");
    await this.choose(this.trainings.some((one) => one.id === wanted) ? wanted : this.trainings[0]?.id ?? null);
    this.drawList();
    here = this;
    return { unmount: () => this.close(), show: (state) => state.training && this.choose(state.training) };
  }

  close() {
    here = null;
    this.keep();
    this.unwatch();
    for (const timer of [this.keeping, this.checking, this.catching, this.sampling]) clearTimeout(timer);
  }

  // --------------------------------------------------------------------------------------------------------- the form

  build() {
    const { t, context, draft } = this;
    const { api, store } = context;
    this.kinds = h("div", { class: "tabs train-kinds", role: "group", aria: { label: t("train.kind") } });
    this.kindWhat = h("p", { class: "small soft" });
    this.picker = modelPicker({ label: t("train.base"), find: (q, limit) => api.get("/api/models", { q, limit, runs: true, medium: "image" }), familyName: (model) => model.family_title ?? "", chosen: (model) => { this.draft.model = plain(model); this.picker.wrong(""); this.changed(); } });
    this.set = h("select", { aria: { label: t("train.data") }, on: { change: () => this.chooseSet(this.set.value) } });
    this.dropSet = h("button", { type: "button", class: "quiet square", title: t("train.data.delete"), aria: { label: t("train.data.delete") }, on: { click: () => this.deleteSet() } }, icon("trash", 14));
    this.pictures = new Pictures({ api, toast: context.toast, complain: context.complain, saying: context.saying, dataset: () => this.anySet(), changed: (count) => { this.count = count; this.changed(); } });
    const field = (name, element, hint) => {
      const wrong = h("p", { class: "wrong", hidden: true });
      element.id = `train-${name}`;
      if (hint) element.placeholder = hint;
      element.value = draft[name];
      element.addEventListener("input", () => { this.draft[name] = element.value; mark(element, wrong, ""); this.changed(); });
      return { element: h("div", { class: "field" }, h("label", { class: "label", for: element.id, text: t(`train.${name}`) }), element, wrong), input: element, wrong: (text) => mark(element, wrong, text), focus: () => element.focus() };
    };
    this.word = field("word", h("input", { type: "text", autocomplete: "off", spellcheck: "false" }), t("train.word.hint"));
    this.name = field("name", h("input", { type: "text", autocomplete: "off", spellcheck: "false" }), t("train.name.hint"));
    this.samples = field("samples", h("textarea", { rows: "2" }), t("train.samples.hint"));
    this.settings = new TrainingSettings({ store, changed: () => this.changed() });
    this.told = h("div", { class: "train-told", role: "status" });
    this.wrongPlace = h("p", { class: "wrong", role: "alert", hidden: true });
    this.go = h("button", { type: "submit", class: "main go", aria: { keyshortcuts: "Control+Enter" } }, h("span", { text: t("train.start") }));
    this.checkButton = h("button", { type: "button", class: "stop", text: t("train.check"), on: { click: () => this.check() } });
    this.ask = h("form", { class: "ask", data: { needs: "manage" }, novalidate: true, aria: { label: t("train.form") }, on: { submit: (event) => { event.preventDefault(); this.start(); } } },
      h("div", { class: "ask-body" },
        h("div", { class: "field" }, h("span", { class: "label", text: t("train.kind") }), this.kinds, this.kindWhat),
        h("div", { class: "field" }, h("span", { class: "label", text: t("train.data") }), h("div", { class: "row" }, h("span", { class: "choice grow" }, this.set, icon("chevron")), this.dropSet), this.pictures.element),
        this.picker.element, this.word.element, this.name.element, this.settings.element, this.samples.element),
      h("div", { class: "ask-foot" }, this.told, this.wrongPlace, h("div", { class: "row" }, this.go, this.checkButton)));
    this.list = h("ul", { class: "trainings", aria: { label: t("train.list") } });
    this.view = h("div", { class: "training" });
    this.element.append(this.ask, h("p", { class: "looking", data: { without: "manage" }, text: t("train.without") }), h("section", { class: "train-side", aria: { label: t("train.list") } }, this.list, this.view));
  }

  drawKind() {
    const { t, draft } = this;
    fill(this.kinds, KINDS.map((kind) => h("button", { type: "button", class: "tab", aria: { pressed: String(kind === draft.kind) }, text: t(`train.kind.${kind}`), on: { click: () => { draft.kind = kind; this.drawKind(); this.changed(); } } })));
    this.kindWhat.textContent = t(`train.kind.${draft.kind}.what`);
    this.settings.draw(this.forms, draft.kind, draft.values);
  }

  drawSets() {
    fill(this.set, this.sets.map((one) => h("option", { value: one.id, text: one.name })), h("option", { value: "", text: `${this.t("train.data.new")} …` }));
    this.set.value = this.draft.dataset ?? "";
    this.dropSet.hidden = !this.draft.dataset;
  }

  chooseSet(id) {
    this.draft.dataset = id || null;
    this.drawSets();
    return this.loadSet().catch((error) => this.context.complain(error));
  }

  async loadSet() {
    const id = this.draft.dataset;
    const told = id ? await this.context.api.get(`/api/datasets/${id}`) : null;
    if (this.draft.dataset === id) this.pictures.show(told);
  }

  /** The id of the chosen dataset; a new one where there is none. */
  async anySet() {
    if (this.draft.dataset) return this.draft.dataset;
    const made = await this.context.api.post("/api/datasets", { name: this.draft.word.trim() || `${this.t("train.data.first")} ${this.sets.length + 1}` });
    this.sets.unshift(made);
    this.draft.dataset = made.id;
    this.pictures.id = made.id;
    this.drawSets();
    this.changed();
    return made.id;
  }

  /** Deletes the chosen dataset: from the page at once, on the server when nobody can undo it any more. */
  async deleteSet() {
    const one = this.sets.find((each) => each.id === this.draft.dataset);
    if (!one) return;
    const { t } = this;
    const { api, toast, complain } = this.context;
    try {
      const { count, unfinished } = await api.get(`/api/datasets/${one.id}`);
      if (unfinished > 0 && !await sure(t("train.data.delete"), t("train.data.delete.needed", { n: number(unfinished) }))) return;
      if (going.has(one.id)) return; // it was pressed twice
      going.add(one.id);
      this.sets = this.sets.filter((each) => each !== one);
      const back = () => { going.delete(one.id); here?.bring(one); };
      toast({
        text: t("train.data.deleted", { name: one.name, n: number(count) }), undo: back,
        done: () => api.delete(`/api/datasets/${one.id}`, { keepalive: true }).catch((error) => {
          complain(error);
          if (error.status !== 404) back(); // else somebody else has deleted it
        }),
      });
      await this.chooseSet(this.sets[0]?.id ?? "");
    } catch (error) { complain(error); }
  }

  /** A dataset that was to be deleted is among the others again, and chosen. */
  bring(one) {
    this.sets = [...this.sets, one].sort((a, b) => b.created - a.created);
    return this.chooseSet(one.id);
  }

  async loadModel() {
    if (!this.draft.model) {
      const { items } = await this.context.api.get("/api/models", { runs: true, medium: "image", limit: 50 });
      const model = items.find((one) => one.name === USUAL_MODEL) ?? items[0];
      if (!model) return;
      this.draft.model = plain(model);
    }
    this.picker.set(this.draft.model);
  }

  changed() {
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => this.keep(), KEEP_AFTER);
    clearTimeout(this.checking);
    this.asked = null;
    if (this.count && this.count <= FEW_PICTURES && this.context.may("manage")) this.checking = setTimeout(() => this.check(), CHECK_AFTER);
    else if (!this.count) fill(this.told);
  }

  keep() { this.context.store.set("draft", this.draft); }

  /** What the server is asked to teach. */
  training() {
    const { draft } = this;
    const samples = draft.samples.split("\n").map((line) => line.trim()).filter(Boolean);
    return {
      kind: draft.kind, ...(draft.model ? { model: { id: draft.model.id } } : {}), data: draft.dataset ? [draft.dataset] : [],
      ...(draft.word.trim() ? { word: draft.word.trim() } : {}), ...(samples.length ? { samples } : {}), ...this.settings.told(),
    };
  }

  /** Has the pictures looked at, and says what will come of them. */
  async check() {
    const mine = this.asked = {};
    const { t } = this;
    fill(this.told, h("p", { class: "small soft", text: t("train.checking") }));
    try {
      const told = await this.context.api.post("/api/trainings/check", { training: this.training() });
      if (this.asked !== mine) return;
      this.right();
      const sizes = told.buckets.map((one) => t("train.size", { n: one.pictures, width: one.width, height: one.height })).slice(0, 4).join(", ");
      fill(this.told, h("p", { class: "small", text: t("train.ready", { n: number(told.pictures), sizes, memory: bytes(told.memory.needed) }) }),
        !told.memory.fits && h("p", { class: "small plan" }, icon("warn", 14), h("span", { text: told.memory.words })),
        told.notes.length > 0 && h("ul", { class: "train-notes small" }, told.notes.map((note) => h("li", { text: this.named(note) }))));
    } catch (error) {
      if (this.asked !== mine) return;
      fill(this.told);
      this.tell(error);
    }
  }

  /** What is said of pictures, which have the names of their bytes on the server, with their places here. */
  named(text) {
    return text.replace(/([0-9a-f]{12,64})(\.\w+)?/g, (whole, id) => {
      const at = this.pictures.items.findIndex((one) => one.id.startsWith(id));
      return at < 0 ? whole : this.t("train.picture", { n: at + 1 });
    });
  }

  async start() {
    const { t, context } = this;
    clearTimeout(this.checking);
    this.asked = null;
    this.right();
    if (!this.count) { this.pictures.wrong(t("train.nothing")); return this.pictures.focus(); }
    this.go.disabled = true;
    try {
      await this.pictures.settled();
      const job = await context.api.post("/api/trainings", { training: this.training(), name: this.draft.name.trim() || this.draft.word.trim() }, { headers: { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) } });
      context.jobs.take(job);
      context.say(t("train.started"));
      if (!this.trainings.some((one) => one.id === job.id)) this.trainings.unshift(job);
      await this.choose(job.id);
      if (getComputedStyle(this.element).display === "flex") this.view.scrollIntoView({ block: "start" });
    } catch (error) {
      this.tell(error, true);
    } finally { this.go.disabled = false; }
  }

  /** Says what is wrong beside its field; `focus` goes to the first. */
  tell(error, focus = false) {
    const rest = [];
    let first = null;
    for (const { field, what, remedy } of error.problems ?? []) {
      const text = this.named([what, remedy].filter(Boolean).join("; "));
      const name = field.replace(/^training\./, "").split(".")[0];
      const place = { word: this.word, name: this.name, samples: this.samples, model: this.picker, data: this.pictures }[name] ?? this.settings.fields.get(name);
      if (!place) { rest.push(text); continue; }
      if (place.fold) place.fold.open = true;
      place.wrong(text);
      first ??= place;
    }
    if (!error.problems?.length) rest.push(this.context.saying(error));
    this.wrongPlace.hidden = !rest.length;
    fill(this.wrongPlace, rest.length > 0 && [icon("warn", 14), h("span", { text: rest.join(" · ") })]);
    if (focus) first?.focus();
  }

  right() {
    this.wrongPlace.hidden = true;
    for (const place of [this.word, this.name, this.samples, this.picker, this.pictures, ...this.settings.fields.values()]) place.wrong("");
  }

  // --------------------------------------------------------------------------------------------------- the trainings

  job(id) { return this.context.jobs.get(id) ?? this.trainings.find((one) => one.id === id); }

  drawList() {
    const { t } = this;
    fill(this.list, this.trainings.map((one) => {
      const job = this.job(one.id);
      return h("li", {}, h("button", { type: "button", class: "training-tab", data: { id: one.id }, aria: { pressed: String(one.id === this.shown?.id) }, on: { click: () => this.choose(one.id).catch((error) => this.context.complain(error)) } },
        h("span", { class: "cut", text: job.title || one.id, title: job.title }), h("span", { class: "small soft number cut", text: [this.stateText(job), moment(job.created)].join(" · ") })));
    }));
    this.list.hidden = !this.trainings.length;
    if (!this.trainings.length) fill(this.view, h("div", { class: "nothing" }, h("p", { text: t(this.context.may("manage") ? "train.none" : "train.none.without") })));
  }

  stateText(job) {
    if (job.cancelling && !OVER.has(job.state)) return this.t("train.stopping");
    const { done, total, phase } = job.progress ?? {};
    return job.state === "running" && total && phase === "train" ? this.t("train.step", { done: number(done), total: number(total) }) : this.t(`train.state.${job.state}`);
  }

  /** Shows a training. */
  async choose(id) {
    const { api, store } = this.context;
    store.set("shown", id);
    if (!id) return;
    const [told, log] = await Promise.all([api.get(`/api/trainings/${id}`), api.get(`/api/trainings/${id}/log`)]);
    this.shown = told;
    this.curve = new Curve();
    this.curve.set(log.items, told.steps);
    this.drawShown();
    this.drawList();
  }

  drawShown() {
    const { t } = this;
    const { training } = this.shown;
    this.line = h("p", { class: "small soft number", role: "status" });
    this.acts = h("div", { class: "row training-acts" });
    this.samplesPlace = h("section", { class: "samples", aria: { label: t("train.samples.title") } });
    this.tryPlace = h("section", { class: "trying", data: { needs: "generate" }, hidden: true });
    this.why = h("p", { class: "notice is-refused", hidden: true });
    const facts = Object.entries(training).filter(([name, value]) => !["version", "kind", "model", "data", "regularisation", "samples"].includes(name) && value !== "" && !(Array.isArray(value) && !value.length));
    fill(this.view,
      h("header", { class: "training-head" }, h("div", { class: "grow" }, h("h2", { class: "cut", text: this.shown.name, title: this.shown.name }), this.line), this.acts),
      this.why, this.curve.element, this.samplesPlace, this.tryPlace,
      h("details", { class: "recipe-usual" }, h("summary", { text: t("train.settings") }), h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", { text: t(`knob.${name}`, {}, name.replaceAll("_", " ")) }), h("dd", {}, h("span", { class: "fact-value", text: String(value) }))])),
        h("button", { type: "button", class: "quiet", data: { needs: "manage" }, text: t("train.again"), on: { click: () => this.takeBack() } })));
    this.drawSamples();
    this.drawState();
  }

  /** What changes while it runs. */
  drawState() {
    const { t, shown } = this;
    const job = this.job(shown.id) ?? shown;
    const base = shown.training.model?.name;
    const left = job.state === "running" ? this.pace.left(job) : null;
    this.line.textContent = [t(`train.kind.${shown.training.kind}`), base && inLine(base), this.stateText(job), left && t("train.left", { time: duration(left) })].filter(Boolean).join(" · ");
    this.why.hidden = job.state !== "failed";
    fill(this.why, icon("warn"), h("span", { text: [job.error?.what, job.error?.remedy].filter(Boolean).join("; ") }));
    const button = (name, drawing, run, { main = false, needs } = {}) => h("button", { type: "button", class: main && "main", data: { act: name, ...(needs && { needs }) }, on: { click: () => run().catch((error) => this.context.complain(error)) } }, icon(drawing, 14), h("span", { text: t(name) }));
    const key = `${job.state} ${Boolean(job.cancelling)} ${shown.model}`;
    if (this.acts.dataset.key === key) return;
    this.acts.dataset.key = key;
    const focused = this.acts.contains(document.activeElement);
    fill(this.acts,
      !OVER.has(job.state) && !job.cancelling && button("train.stop", "stop", () => this.stop(), { needs: "generate manage" }),
      (job.state === "cancelled" || job.state === "failed") && button("train.resume", "play", () => this.resume(), { main: true, needs: "manage" }),
      shown.model && button("train.use", "brush", async () => this.context.go("make", { [shown.training.kind === "full" ? "model" : "adapter"]: shown.model }), { needs: "generate" }),
      shown.model && button("train.library", "right", async () => this.context.go("library", { model: shown.model })));
    if (focused) (this.acts.querySelector("button") ?? this.view).focus?.();
    this.tryPlace.hidden = !shown.model;
    if (shown.model && !this.tryPlace.children.length) this.drawTry();
  }

  drawSamples() {
    const { t, shown } = this;
    const prompts = shown.training.samples ?? [];
    fill(this.samplesPlace, prompts.length > 0 && [
      h("h3", { text: t("train.samples.title") }), !shown.samples.length && h("p", { class: "small soft", text: t("train.samples.none") }),
      prompts.map((prompt, at) => {
        const of = shown.samples.filter((one) => one.number === at).reverse();
        return of.length > 0 && h("div", { class: "sample-row" }, h("p", { class: "small soft cut", text: prompt, title: prompt }),
          h("ul", { class: "sample-list", tabindex: "0", aria: { label: prompt } }, of.map((one) => h("li", {}, h("img", { src: `/api/trainings/${shown.id}/samples/${one.name}`, alt: t("train.sample.alt", { prompt, step: one.step }), loading: "lazy", decoding: "async" }), h("span", { class: "small soft number", text: t("train.sample.step", { step: number(one.step) }) })))));
      }),
    ]);
  }

  async stop() {
    const job = await this.context.api.post(`/api/jobs/${this.shown.id}/cancel`);
    this.context.say(this.t("train.stopped"));
    this.context.jobs.take(job);
  }

  async resume() {
    const job = await this.context.api.post(`/api/jobs/${this.shown.id}/retry`);
    this.context.say(this.t("train.resumed"));
    this.context.jobs.take(job);
  }

  takeBack() {
    const { version, kind, model, data, regularisation, samples, word, ...values } = this.shown.training;
    const form = this.forms.kinds.find((one) => one.id === kind);
    const known = new Map(this.forms.settings.map((setting) => [setting.name, setting.default]));
    const changed = Object.entries(values).filter(([name, value]) => form.settings.includes(name) && value !== null && JSON.stringify(known.get(name)) !== JSON.stringify(value) && !(name === "steps" && value === form.steps) && !(name === "rate" && value === form.rate));
    Object.assign(this.draft, { kind, word: word ?? "", samples: (samples ?? []).join("\n"), values: Object.fromEntries(changed) });
    this.word.input.value = this.draft.word;
    this.samples.input.value = this.draft.samples;
    this.drawKind();
    this.takeModel(model).catch((error) => this.context.complain(error));
    if (data[0] && this.sets.some((one) => one.id === data[0])) this.chooseSet(data[0]);
    this.changed();
    this.context.toast({ text: this.t("train.taken", { name: this.shown.name }) });
  }

  /** Chooses the base that a training had, if it is still on the shelves. */
  async takeModel({ name, sha256 }) {
    const { items } = await this.context.api.get("/api/models", { q: name, runs: true, medium: "image", limit: 50 });
    const found = items.find((item) => item.sha256 === sha256) ?? items.find((item) => item.name === name);
    if (!found) return;
    this.draft.model = plain(found);
    this.picker.set(found);
    this.changed();
  }

  // ------------------------------------------------------------------------------------------------- what happens

  hear(job, event) {
    if (!job || job.kind !== "train") return;
    if (!this.trainings.some((one) => one.id === job.id)) { this.trainings.unshift(job); return this.drawList(); }
    const tab = this.list.querySelector(`[data-id="${CSS.escape(job.id)}"] .small`);
    if (tab) tab.textContent = [this.stateText(job), moment(job.created)].join(" · ");
    if (job.id !== this.shown?.id || !this.curve) return;
    if (event?.kind === "learned") {
      this.pace.hear(job, { ...job.progress, at: event.at });
      const { step, loss, rate, validation } = event;
      if (!this.curve.add({ step, loss, rate, validation }, event.total)) this.catchUp();
    } else if (["sampled", "trained", "done", "result", "cancelled", "failed", "started", "retried"].includes(event?.kind)) this.lookAgain();
    this.drawState();
  }

  /** Steps were left out on the way here: the log has them all. */
  catchUp() {
    this.catching ??= setTimeout(async () => {
      this.catching = null;
      const { shown, curve } = this;
      try {
        const log = await this.context.api.get(`/api/trainings/${shown.id}/log`);
        if (this.curve === curve && log.items.length >= curve.steps.length) curve.set(log.items, shown.steps);
      } catch { /* the next step tries again */ }
    }, CATCH_UP);
  }

  /** Something has come of it: the samples, the state and the course as the server has them. */
  lookAgain() {
    clearTimeout(this.sampling);
    this.sampling = setTimeout(async () => {
      const { shown, curve } = this;
      try {
        const [told, log] = await Promise.all([this.context.api.get(`/api/trainings/${shown.id}`), this.context.api.get(`/api/trainings/${shown.id}/log`)]);
        if (this.shown !== shown) return;
        const more = told.samples.length !== shown.samples.length;
        Object.assign(shown, { samples: told.samples, model: told.model, step: told.step });
        curve.set(log.items, told.steps);
        if (more) this.drawSamples();
        this.drawState();
      } catch { /* it is asked for again with the next event */ }
    }, 150);
  }

  // ------------------------------------------------------------------------------------------------------- trying it

  drawTry() {
    const { t, shown } = this;
    const { kind, samples, word } = shown.training;
    const prompt = h("input", { type: "text", id: "train-try", value: samples?.[0] ?? word ?? "" });
    const said = h("span", { class: "small soft", role: "status" });
    const go = h("button", { type: "submit", text: t("train.try.go") });
    const form = h("form", { class: "try-form", on: { submit: async (event) => {
      event.preventDefault();
      go.disabled = true;
      said.textContent = t("train.try.making");
      try {
        const [base, taught] = await this.makeBoth(kind, prompt.value.trim());
        said.textContent = "";
        if (base && taught) compare(this.context, base, taught);
        else said.textContent = t("train.try.failed");
      } catch (error) { said.textContent = this.context.saying(error); }
      go.disabled = false;
    } } }, h("label", { class: "label", for: "train-try", text: t("train.try.prompt") }), h("div", { class: "row" }, prompt, go), said);
    fill(this.tryPlace, h("h3", { text: t("train.try") }), form);
  }

  /** A picture of the base and one of what was taught, with the same seed; null for one that failed. */
  async makeBoth(kind, prompt) {
    const { shown } = this;
    const { name, sha256 } = shown.training.model;
    const model = { name, sha256 };
    // Only pictures of one size come from the same noise, and a model that was taught may have another size of its own.
    const { size } = (await this.context.api.post("/api/resolve", { recipe: { prompt: prompt || ".", model } })).recipe;
    const recipe = { prompt, model, size, sampling: { seed: TRIED_SEED } };
    // The word of an embedding stands for it; the base is to read it as any other.
    const word = shown.training.word;
    const plainWords = kind === "embedding" ? prompt.replaceAll(word, shown.training.begin_with || "").replace(/\s+/g, " ").trim() || "." : prompt;
    const taught = kind === "full" ? { ...recipe, model: { id: shown.model } } : kind === "embedding" ? recipe : { ...recipe, adapters: [{ kind, ref: { id: shown.model } }] };
    return Promise.all([{ ...recipe, prompt: plainWords }, taught].map((one) => this.makeOne(one)));
  }

  async makeOne(recipe) {
    const { api, jobs } = this.context;
    const job = await jobs.send(recipe, { ...recipe, count: 1 });
    const over = () => OVER.has(jobs.get(job.id)?.state);
    if (!over()) await new Promise((resolve) => { const off = jobs.watch(() => { if (over()) { off(); resolve(); } }); });
    return (await api.get(`/api/jobs/${job.id}`)).outputs[0] ?? null;
  }

  keys() {
    const { t, context } = this;
    context.keys({
      "ctrl+enter": { text: t("train.key.start"), always: true, needs: "manage", run: () => { this.start(); } },
      esc: { text: t("train.key.stop"), needs: "generate manage", run: () => {
        if (document.querySelector(":popover-open") || !this.shown || OVER.has(this.job(this.shown.id)?.state)) return false;
        this.stop().catch((error) => context.complain(error));
      } },
    });
  }
}

/** What the form keeps of a model. */
const plain = ({ id, name, kind, family, family_title, variant, size, preview }) => ({ id, name, kind, family, family_title, variant, size, preview });

export default {
  id: "train",
  order: 3.5,
  words,
  mount: (element, context) => new Train(element, context).open(),
};
