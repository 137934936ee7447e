// The room where things are made: what is asked for on the left, what comes of it on the right.

import { fill, h, paint, put } from "../dom.js";
import { compare } from "../parts/beside.js";
import { complain, fold, stepper } from "../parts/controls.js";
import { icon } from "../parts/icons.js";
import { Adapters, usedIn, without } from "../parts/make/adapters.js";
import { draftOf, EMPTY, inputsOf, presets, recipeOf, sizeOf, takes } from "../parts/make/draft.js";
import { Result } from "../parts/make/result.js";
import { Settings } from "../parts/make/settings.js";
import { catchPictures, offer, Start } from "../parts/make/start.js";
import { Easel } from "../parts/mask.js";
import { modelPicker } from "../parts/picker.js";
import { menu } from "../parts/popover.js";
import { PromptField } from "../parts/prompt.js";
import { recipeOf as madeFrom, recipeView } from "../parts/recipe.js";

/** What this room asks for first; see the frame's. */
export const early = ["/api/outputs?limit=60", "/api/forms"];

const KEEP_AFTER = 200; // ms after the last change
const PLAN_AFTER = 500;
const PLAN_AGAIN = 3000; // where the server had no time, or could not be reached
const LARGEST_SEED = 2n ** 63n - 1n;
const DRAWN = 2 ** 32; // seeds that the dice draws from, as A1111's do
const MOST = 64; // pictures of one job
const MOST_VAES = 200;
const TAG = /^<(\w+):([^<>]*)>: (.*)$/s; // how the server names a tag of the prompt that something is wrong with
const USUAL_MODEL = "starter-image"; // until somebody chooses another one

const words = {
  en: {
    "room.make": "Make",
    "make.prompt": "Prompt", "make.prompt.hint": "What shall it show?", "make.negative": "Negative prompt", "make.negative.hint": "What shall it not show?", "make.negative.none": "none",
    "make.size": "Size", "make.width": "Width", "make.height": "Height", "make.swap": "Swap width and height", "make.shapes": "Shapes", "make.shape.default": "As the model likes it",
    "make.count": "How many", "make.seed": "Seed", "make.seed.random": "random", "make.dice": "A random seed each time", "make.seed.keep": "Take the seed of this picture",
    "make.go": "Make", "make.stop": "Stop", "make.ask": "What to make",
    "make.key.make": "Make it", "make.key.stop": "Stop what is being made", "make.key.prompt": "Write in the prompt", "make.key.weight": "Make the words at the cursor weigh more or less",
    "make.key.before": "The picture to the left", "make.key.after": "The picture to the right", "make.key.compare": "Compare two pictures", "make.key.recipe": "Show the recipe", "make.key.delete": "Delete the picture", "make.key.zoom": "Zoom", "make.key.model": "Choose a model",
    "make.gone": "The model {name} is not on the shelf; the chosen one stays", "make.taken": "Settings taken from the picture", "make.taken.words": "Only the words were taken from the picture", "make.unmade": "This model starts from no picture", "make.toolong": "The text {name} of this picture is too long to be read as a recipe", "make.recipe": "Recipe", "make.nomodel": "No model on the shelves runs; get one in the Library", "make.nomodel.without": "No model on the shelves runs; whoever runs this server can get one",
    "make.without": "Your key is for looking around; whoever runs this server can give you one that makes.",
    "make.looking": "Looking through the shelves for the first time …", "make.mask.left": "The painted mask is not used", "make.mask.first": "A mask is being painted; use it or cancel it first",
  },
  zh: {
    "room.make": "创作",
    "make.prompt": "提示词", "make.prompt.hint": "想看到什么？", "make.negative": "负面提示词", "make.negative.hint": "不想看到什么？", "make.negative.none": "无",
    "make.size": "尺寸", "make.width": "宽", "make.height": "高", "make.swap": "交换宽和高", "make.shapes": "形状", "make.shape.default": "模型的默认尺寸",
    "make.count": "数量", "make.seed": "种子", "make.seed.random": "随机", "make.dice": "每次随机种子", "make.seed.keep": "使用这张图片的种子",
    "make.go": "生成", "make.stop": "停止", "make.ask": "要生成什么",
    "make.key.make": "生成", "make.key.stop": "停止生成", "make.key.prompt": "编辑提示词", "make.key.weight": "调整光标处词语的权重",
    "make.key.before": "左边的图片", "make.key.after": "右边的图片", "make.key.compare": "比较两张图片", "make.key.recipe": "显示配方", "make.key.delete": "删除图片", "make.key.zoom": "缩放", "make.key.model": "选择模型",
    "make.gone": "书架上没有模型 {name}；保留当前模型", "make.taken": "已采用图片的设置", "make.taken.words": "仅采用了图片的提示词", "make.unmade": "这个模型不能从图片开始", "make.toolong": "这张图片中的文本 {name} 过长，无法作为配方读取", "make.recipe": "配方", "make.nomodel": "书架上没有可运行的模型；请到“模型库”获取", "make.nomodel.without": "书架上没有可运行的模型；请联系服务器的管理员获取",
    "make.without": "你的密钥只能查看；想要创作，请向服务器的管理员索取可以创作的密钥。",
    "make.looking": "正在首次查看书架……", "make.mask.left": "未使用涂抹的蒙版", "make.mask.first": "正在涂抹蒙版；请先使用或取消它",
  },
};

class Make {
  constructor(element, context) {
    Object.assign(this, { element, context, t: context.t, form: null, forms: null, left: new Set() });
    this.draft = { ...structuredClone(EMPTY), ...context.store.get("draft", {}) };
    this.fields = new Map(); // the fields of a recipe by their names, for what the server says is wrong with them
  }

  async open() {
    const { context } = this;
    const heard = (run) => (...given) => run(...given).catch((error) => context.complain(error));
    this.result = new Result(context, {
      reuse: heard((output, what) => this.reuse(output, what)), vary: heard((output, strength, count) => this.vary(output, strength, count)),
      start: heard((output) => this.startFrom(output)), mask: heard((output) => this.startFrom(output, true)), recipe: heard((output) => this.showRecipe(output)),
      compare: (one, other) => compare(context, one, other), example: (prompt, go) => this.example(prompt, go), again: (job) => this.send(job.recipe),
      varies: () => Boolean(this.form?.knobs.some((knob) => knob.name === "variation_strength")), changed: () => this.drawFoot(),
    });
    // What takes the server a moment is asked for before the page is busy drawing.
    const shown = this.result.open();
    const formed = this.loadForm(this.result.listed.catch(() => {}));
    this.build();
    this.element.append(this.ask, h("p", { class: "looking", data: { without: "generate" }, text: this.t("make.without") }), this.result.element);
    this.uncatch = catchPictures(this.element, (given) => this.take(given), (text) => this.start.wrong(text));
    this.keys();
    this.lookedUp = this.lookUp().catch((error) => context.complain(error));
    try {
      await Promise.all([formed, shown]);
    } catch (error) {
      this.close();
      throw error;
    }
    if (this.draft.init) this.measure();
    await this.arrive(context.state);
    if (!matchMedia("(pointer: coarse)").matches && !this.draft.prompt) this.prompt.focus();
    return { unmount: () => this.close(), show: (state) => this.arrive(state) };
  }

  close() {
    this.closed = true;
    this.keep();
    this.uncatch();
    this.result.close();
    this.prompt.close();
    this.negative.close();
    this.easel?.close();
    this.easel = null; // what was painted is kept for the next time
    clearTimeout(this.keeping);
    clearTimeout(this.planning);
    removeEventListener("pagehide", this.keepNow);
  }

  /** Another room, or a link, has sent an output or a model here; or somebody comes back to what they painted. */
  async arrive(state) {
    const painting = this.context.store.get("painting");
    if (painting && !this.easel) this.paintOn(painting);
    if (!state.output && !state.model && !state.adapter) return;
    const { api, complain, go } = this.context;
    go("make", {}, { replace: true });
    await this.context.met;
    if (!this.context.may("generate")) return;
    try {
      if (state.adapter) return this.adapters.take(await api.get(`/api/models/${state.adapter}`));
      if (state.model) return await this.takeModel(await api.get(`/api/models/${state.model}`));
      const output = await api.get(`/api/outputs/${state.output}`);
      if (state.as === "recipe") await this.reuse(output, "all");
      else await this.startFrom(output, state.as === "mask");
    } catch (error) { complain(error); }
  }

  /** From now on it is made with this model. */
  async takeModel(model) {
    this.draft.model = plain(model);
    this.picker.set(this.draft.model);
    this.picker.wrong("");
    const formed = this.loadForm();
    this.changed();
    this.prompt.recount();
    this.negative.recount();
    await formed;
  }

  // --------------------------------------------------------------------------------------------------------- the form

  build() {
    const { t, context, draft } = this;
    const { api, store } = context;
    const ask = {
      tokens: (text, signal) => api.post("/api/tokens", { text, ...(this.draft.model ? { model: this.draft.model.id } : {}) }, { signal }),
      names: async (kind, text) => (await api.get("/api/models", { kind, q: text, limit: 8 })).items,
    };
    this.prompt = new PromptField({ label: t("make.prompt"), placeholder: t("make.prompt.hint"), rows: 4, ask, changed: (text) => { this.draft.prompt = text; this.right("prompt"); this.adapters.prompted(); this.changed(); } });
    this.negative = new PromptField({ label: t("make.negative"), placeholder: t("make.negative.hint"), rows: 2, ask, changed: (text) => { this.draft.negative = text; this.right("negative"); this.negativeFold.line(text || t("make.negative.none")); this.changed(); } });
    this.negative.label.classList.add("unseen");
    this.negativeFold = fold(t("make.negative"), { open: store.get("open.negative", false), toggled: (open) => { store.set("open.negative", open); this.negative._grow(); } });
    this.negativeFold.element.classList.add("is-first");
    this.negativeFold.body.append(this.negative.element);
    this.prompt.value = draft.prompt;
    this.negative.value = draft.negative;
    this.negativeFold.line(draft.negative || t("make.negative.none"));

    this.picker = modelPicker({
      find: (q, limit) => api.get("/api/models", { q, limit, runs: true }),
      familyName: (model) => this.forms?.families.find((family) => family.id === model.family)?.title ?? model.family,
      chosen: (model) => { this.takeModel(model).catch((error) => context.complain(error)); },
    });
    if (draft.model) this.picker.set(draft.model);
    this.adapters = new Adapters({
      find: (kind, q, limit) => this.fitting(kind, q, limit), changed: () => this.changed(), toast: this.context.toast,
      insert: (words, negative) => { this.openNegative(negative); (negative ? this.negative : this.prompt).add(words); },
      drop: (words, negative) => this.reword(negative, (text) => without(text, words)),
      untag: (use, row) => this.untag(use, row).catch((error) => context.complain(error)),
      vae: (model) => { this.draft.vae = model.id ? { id: model.id, name: model.name, sha256: model.sha256 ?? null } : { name: model.name }; this.drawForm(); this.changed(); },
      show: (id) => context.go("library", { model: id }),
    });
    this.adapters.draw(draft);
    this.settings = new Settings({ store, changed: () => this.changed() });
    this.start = new Start({ store, take: (blob) => this.take({ blob }), paint: () => this.paintMask(), changed: () => { this.drawSize(); this.changed(); } });
    this.start.draw(draft);

    this.stop = h("button", { type: "button", class: "stop", hidden: true, on: { click: () => this.halt() } }, icon("stop"), h("span", { text: t("make.stop") }), h("kbd", { text: "Esc" }));
    this.go = h("button", { type: "submit", class: "main go", aria: { keyshortcuts: "Control+Enter" } }, h("span", { text: t("make.go") }), h("kbd", { text: `${/Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl"} Enter` }));
    this.wrongPlace = h("p", { class: "wrong", role: "alert", hidden: true });
    this.planPlace = h("p", { class: "plan small", role: "status", hidden: true });
    this.ask = h("form", { class: "ask", data: { needs: "generate" }, novalidate: true, aria: { label: t("make.ask") }, on: { submit: (event) => { event.preventDefault(); this.make(); } } },
      h("div", { class: "ask-body" },
        h("div", { class: "ask-words" }, this.prompt.element, this.negativeFold.element),
        this.picker.element, this.adapters.element, this.sizeAndSeed(), h("div", { class: "folds" }, this.start.element, this.settings.elements)),
      h("div", { class: "ask-foot" }, this.planPlace, this.wrongPlace, h("div", { class: "row" }, this.go, this.stop)));

    const simple = (field) => ({ wrong: (text) => field.wrong(text), focus: () => field.focus() });
    const text = (field, opened) => ({ wrong: (told) => complain(field.text, field.wrong, told), focus: () => field.focus(), fold: opened });
    this.fields = new Map([
      ["prompt", { ...text(this.prompt), name: t("make.prompt") }], ["negative", { ...text(this.negative, this.negativeFold), name: t("make.negative") }],
      ["model", simple(this.picker)], ["count", simple(this.count)],
      ["sampling.seed", simple(this.seed)], ["size", simple(this.size)], ["size.width", simple(this.size)], ["size.height", simple(this.size)],
      ["inputs", { ...simple(this.start), fold: this.start.fold }], ["sampling.strength", { ...simple(this.start.strength), fold: this.start.fold }],
    ]);
    for (const field of [this.prompt, this.negative]) { field.wrong.className = "wrong"; field.wrong.hidden = true; }
    this.keepNow = () => this.keep();
    addEventListener("pagehide", this.keepNow);
  }

  sizeAndSeed() {
    const { t } = this;
    const side = (name) => h("input", {
      type: "number", class: "number", min: "64", max: "8192", step: "8", inputmode: "numeric", aria: { label: t(`make.${name}`) },
      on: {
        input: (event) => { const value = Number(event.target.value); if (value) { this.draft.size = { ...sizeOf(this.draft, this.form), [name]: value }; this.size.wrong(""); this.drawShape(); this.changed(); } },
        change: () => this.drawSize(),
        keydown: (event) => {
          const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
          if (!sign || event.ctrlKey) return;
          event.preventDefault();
          const now = sizeOf(this.draft, this.form);
          this.draft.size = { ...now, [name]: Math.min(8192, Math.max(64, Math.round(now[name] / 8) * 8 + sign * (event.shiftKey ? 64 : 8))) };
          this.drawSize();
          this.changed();
        },
      },
    });
    const [width, height] = [side("width"), side("height")];
    const wrong = h("p", { class: "wrong", hidden: true });
    const shapes = h("button", { type: "button", class: "shapes", title: t("make.shapes"), aria: { label: t("make.shapes") } });
    const swap = h("button", { type: "button", class: "quiet", title: t("make.swap"), aria: { label: t("make.swap") }, on: { click: () => { const now = sizeOf(this.draft, this.form); this.setSize({ width: now.height, height: now.width }); } } }, icon("swap", 14));
    const box = h("div", { class: "joined" }, width, swap, height);
    this.size = { width, height, shapes, wrong: (text) => { complain(width, wrong, text); }, focus: () => width.focus() };
    menu(shapes, () => [
      { text: `${t("make.shape.default")}`, checked: !this.draft.size, run: () => this.setSize(null) },
      ...presets(this.form).map((one) => ({ text: one.shape, note: `${one.width} × ${one.height}`, checked: Boolean(this.draft.size) && this.draft.size.width === one.width && this.draft.size.height === one.height, run: () => this.setSize({ width: one.width, height: one.height }) })),
    ], { label: t("make.shapes"), className: "number" });

    this.count = stepper({ label: t("make.count"), low: 1, high: MOST, changed: (value) => { this.draft.count = value; this.count.wrong(""); this.changed(); } });
    this.count.element.classList.add("count-field");
    this.count.set(this.draft.count);

    const seedWrong = h("p", { class: "wrong", hidden: true });
    const seed = h("input", {
      type: "text", class: "number", inputmode: "numeric", id: "make-seed", placeholder: t("make.seed.random"), autocomplete: "off", spellcheck: "false",
      on: {
        input: () => { const told = seedOf(seed.value); this.draft.seed = told; this.seed.wrong(""); drawDice(); this.changed(false); },
        change: () => { if (this.draft.seed === null) seed.value = ""; },
        keydown: (event) => {
          const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
          if (!sign || event.ctrlKey || this.draft.seed === null || typeof this.draft.seed === "string") return;
          event.preventDefault();
          this.setSeed(seedOf(String(BigInt(this.draft.seed) + BigInt(sign))) ?? 0);
        },
      },
    });
    const dice = h("button", { type: "button", class: "quiet", title: t("make.dice"), aria: { label: t("make.dice") }, on: { click: () => this.setSeed(null) } }, icon("dice"));
    const keepSeed = h("button", { type: "button", class: "quiet", title: t("make.seed.keep"), aria: { label: t("make.seed.keep") }, on: { click: () => { const output = this.result.shown?.output; if (output) this.setSeed(output.seed); } } }, icon("reuse"));
    const drawDice = () => dice.setAttribute("aria-pressed", String(this.draft.seed === null));
    this.seed = { input: seed, draw: () => { seed.value = this.draft.seed ?? ""; drawDice(); }, wrong: (text) => complain(seed, seedWrong, text), focus: () => seed.focus(), keepSeed };
    this.seed.draw();
    return h("div", { class: "measures" },
      h("div", { class: "field size-field" }, h("span", { class: "label", text: t("make.size") }), h("div", { class: "row size-row" }, box, shapes), wrong),
      this.count.element,
      h("div", { class: "field seed-field" }, h("label", { class: "label", for: "make-seed", text: t("make.seed") }), h("div", { class: "joined" }, seed, dice, keepSeed), seedWrong));
  }

  setSize(size) { this.draft.size = size; this.size.wrong(""); this.drawSize(); this.changed(); }

  setSeed(seed) { this.draft.seed = seed; this.seed.draw(); this.seed.wrong(""); this.changed(); }

  drawSize() {
    const size = sizeOf(this.draft, this.form);
    this.size.width.value = size.width;
    this.size.height.value = size.height;
    this.drawShape();
  }

  drawShape() {
    const size = sizeOf(this.draft, this.form);
    const shape = h("span", { class: "shape" });
    const scale = 16 / Math.max(size.width, size.height);
    paint(shape, { width: `${Math.max(4, size.width * scale)}px`, height: `${Math.max(4, size.height * scale)}px` });
    fill(this.size.shapes, h("span", { class: "shape-box" }, shape), icon("chevron", 12));
  }

  /** Puts a whole draft into the form. */
  fillIn(draft) {
    this.draft = draft;
    this.prompt.value = draft.prompt;
    this.negative.value = draft.negative;
    this.negativeFold.line(draft.negative || this.t("make.negative.none"));
    this.adapters.draw(draft);
    this.count.set(draft.count);
    this.seed.draw();
    if (draft.model) this.picker.set(draft.model);
    this.drawForm();
    this.right();
    this.changed();
  }

  drawForm() {
    const able = !this.form || takes(this.form, "init");
    this.start.draw(this.draft, { able });
    this.start.element.hidden = !able && !this.draft.init;
    if (this.form) this.settings.draw(this.form, this.forms, this.draft, this.vaes ?? []);
    this.drawSize();
  }

  /** Asks what can be set for the model, and draws it; the longer part of that when `before` is done. */
  async loadForm(before = null) {
    const { api } = this.context;
    try {
      const listed = this.draft.model ? { items: [] } : api.get("/api/models", { runs: true, limit: 50 });
      const [forms, models] = await Promise.all([this.forms ?? api.get("/api/forms"), listed]);
      this.forms = forms;
      if (!this.draft.model) {
        const items = models.items.filter((one) => !this.left.has(one.id));
        const model = items.find((one) => one.name === USUAL_MODEL) ?? items[0];
        if (!model) return this.lookForModels();
        this.draft.model = plain(model);
      }
      this.picker.set(this.draft.model);
      await before;
      const wanted = this.draft.model.id;
      const [form, vaes] = await Promise.all([api.get(`/api/models/${wanted}/form`), this.fitting("vae", "", MOST_VAES)]);
      if (this.draft.model.id !== wanted) return;
      this.form = form;
      this.vaes = vaes.items;
    } catch (error) {
      if (error.status !== 404 || !this.draft.model) throw error;
      this.left.add(this.draft.model.id); // the shelf, though no scan has seen it yet
      this.draft.model = null;
      return this.loadForm();
    }
    this.drawForm();
    this.result.caption();
    this.prompt.recount();
    if (this.draft.prompt) this.plan(); // which hashes the model where nobody has used it yet: not for a look at this room
  }

  /** Has the shelves looked through, which nobody has done yet on a first start; then tries again, once. */
  async lookForModels() {
    const { api, jobs } = this.context;
    await this.context.met;
    if (!this.context.may("manage")) return this.picker.wrong(this.t("make.nomodel.without"));
    if (this.looked) return this.picker.wrong(this.t("make.nomodel"));
    this.looked = true;
    this.picker.say(this.t("make.looking"));
    const job = jobs.take(await api.post("/api/models/scan"));
    const over = () => ["done", "failed", "cancelled"].includes(jobs.get(job.id).state);
    if (!over()) await new Promise((resolve) => { const off = jobs.watch(() => { if (over()) { off(); resolve(); } }); });
    this.picker.say("");
    return this.loadForm();
  }

  // ----------------------------------------------------------------------------------------------------------- keeping

  /** Something of the draft is different: it is kept, and what it takes of memory asked for. */
  changed(plan = true) {
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => this.keep(), KEEP_AFTER);
    if (this.easel && this.draft.init?.sha256 !== this.painted.init.sha256) this.leaveMask();
    if (!plan) return;
    this.planned = null; // what is on its way is said of another draft
    clearTimeout(this.planning);
    this.planning = setTimeout(() => this.plan(), PLAN_AFTER);
  }

  keep() {
    const { store } = this.context;
    store.set("draft", this.draft);
    store.set("painting", this.painting());
  }

  /** Says before the run when it would not fit into memory. */
  async plan() {
    if (!this.form) return;
    const mine = this.planned = {};
    await Promise.all([this.lookedUp, this.context.met]);
    if (this.planned !== mine || !this.context.may("generate")) return;
    const recipe = recipeOf(this.draft, this.form);
    let plan = null;
    try {
      const told = await this.context.api.post("/api/resolve", { recipe: { ...recipe, prompt: recipe.prompt.trim() || "." } });
      if (this.planned !== mine) return;
      plan = told.plan;
      const uses = told.recipe.adapters ?? [];
      // A picture that was made with the model's own VAE is made with that again, whatever lies beside the model by now.
      if (this.ownVae === this.draft && !this.draft.vae && uses.some((use) => use.kind === "vae")) {
        this.draft.vae = { name: "none" };
        this.drawForm();
        return this.changed();
      }
      this.judge([], uses);
    } catch (error) {
      if (this.planned !== mine) return;
      if (error.status === 404 && recipe.adapters) this.lookUp().catch(() => {}); // one of them is not there any more
      if (!error.problems?.length && error.status !== 404 && !this.closed) this.planning = setTimeout(() => this.plan(), PLAN_AGAIN);
      // What is wrong with other fields is said when somebody wants it made.
      this.judge(error.problems ?? [], null);
    }
    this.planPlace.hidden = !plan || plan.fits !== false;
    fill(this.planPlace, icon("warn", 14), h("span", { text: plan?.words ?? "" }));
  }

  // ---------------------------------------------------------------------------------------------------------- adapters

  /** What fits the chosen model: of one kind, or of any that can be attached. */
  fitting(kind, q, limit) {
    return this.context.api.get("/api/models", { q, kind, limit, fits: this.draft.model?.id });
  }

  /** Says of each adapter what is wrong with it for this model, beside it, and of the tags in the prompt. */
  judge(problems, uses) {
    const rows = new Map();
    const tags = new Map();
    for (const { field, what, remedy } of problems) {
      const text = [what, remedy].filter(Boolean).join("; ");
      const row = /^recipe\.adapters\.(\d+)/.exec(field);
      const tag = field === "recipe.prompt" && TAG.exec(what);
      if (row) rows.set(Number(row[1]), text);
      else if (tag) tags.set(`${tag[1]}:${tag[2]}`, [tag[3], remedy].filter(Boolean).join("; "));
    }
    this.adapters.told(rows, uses);
    this.settings.fields.get("vae")?.wrong(rows.get(this.adapters.count) ?? "");
    this.prompt.judge(tags);
  }

  /** Looks the adapters of the draft up once more: their files may have another name by now, or be gone. */
  async lookUp() {
    const { api } = this.context;
    const { draft } = this;
    const known = [...draft.adapters, draft.vae].filter((each) => each?.id);
    if (!known.length) return;
    for (const one of known) {
      try {
        const card = await api.get(`/api/models/${one.id}`);
        Object.assign(one, { name: card.name, sha256: card.sha256 ?? one.sha256 ?? null, ...(one === draft.vae ? {} : { preview: card.preview, triggers: card.triggers }) });
      } catch (error) {
        if (error.status !== 404) throw error;
        Object.assign(one, { id: null, preview: false }); // by its name or its hash it may be found all the same
      }
    }
    if (this.draft !== draft) return;
    this.adapters.draw(draft);
    this.changed();
  }

  /** The card of what a recipe uses; null where it is not on the shelf. */
  async card({ kind, ref }) {
    const { items } = await this.context.api.get("/api/models", { kind, q: ref.name.replace(/\.\w+$/, ""), limit: 50 });
    return items.find((one) => ref.sha256 && one.sha256 === ref.sha256) ?? items.find((one) => one.name === ref.name && !(ref.sha256 && one.sha256)) ?? null;
  }

  /** Puts the adapters of a recipe into a draft: what its words name by themselves needs no row. */
  async takeUses(draft, uses) {
    for (const use of uses) {
      const card = await this.card(use);
      if (use.kind === "vae") draft.vae = { id: card?.id ?? null, name: use.ref.name, sha256: use.ref.sha256 ?? null };
      else if (use.kind !== "embedding" || (use.ref.sha256 && card?.sha256 !== use.ref.sha256)) draft.adapters.push(usedIn(use, card));
    }
  }

  openNegative(open) { if (open) this.negativeFold.open = true; }

  /** Changes one of the prompts as if somebody had typed. */
  reword(negative, change) {
    const field = negative ? this.negative : this.prompt;
    const text = change(field.value);
    if (text !== field.value) field.rewrite(text);
  }

  /** Takes the tag of a use out of the prompt; as `row` it goes on among the rows. */
  async untag(use, row) {
    const tag = new RegExp(`\\s*<(?:${use.kind === "lora" ? "lora|lyco" : "hypernet"}):${use.ref.name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?::[^<>]*)?>`, "giu");
    if (row) {
      this.draft.adapters.push(usedIn(use, await this.card(use)));
      this.adapters.draw(this.draft);
    }
    this.reword(false, (text) => text.replace(tag, "").trimStart());
    this.changed();
  }

  // ------------------------------------------------------------------------------------------------------------ making

  make() {
    if (this.easel) return this.wrong(this.t("make.mask.first"));
    this.right();
    this.keep();
    return this.send(recipeOf(this.draft, this.form));
  }

  /** Queues a recipe; its tile stands there at once. */
  async send(recipe) {
    const { made, ...draft } = recipe;
    const sent = this.context.jobs.send(draft, { ...recipe, size: recipe.size ?? sizeOf(this.draft, this.form) }, (before, after) => {
      this.result.strip.rename(before, after);
      if (this.result.shown?.job === before) this.result.shown.job = after;
    });
    const { chosen } = this.result;
    this.result.follow();
    // In one column the result may be out of sight.
    if (getComputedStyle(this.element).flexDirection === "column-reverse") this.element.parentElement.scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    try {
      await sent;
    } catch (error) {
      this.result.follow(chosen);
      this.tell(error);
    }
  }

  /** Says what is wrong beside the field that it is about. */
  tell(error) {
    if (error.kind === "Unreachable") return this.context.complain(error); // it passes, and must not stand there afterwards
    let first = null;
    const rest = [];
    for (const problem of error.problems ?? []) {
      const field = this.fieldOf(problem.field.replace(/^recipe\./, ""));
      // "has 20,001 characters" says of whom only beside the name of the field.
      const what = /^(is|has|names|does|takes)\b/.test(problem.what) && field?.name ? `${field.name} ${problem.what}` : problem.what;
      const text = [what, problem.remedy].filter(Boolean).join("; ");
      if (!field) { rest.push(`${problem.field}: ${text}`); continue; }
      if (field.fold) field.fold.open = true;
      field.wrong(text);
      first ??= field;
    }
    if (!error.problems?.length) rest.push(this.context.saying(error));
    if (rest.length) this.wrong(rest.join(" · "));
    first?.focus();
  }

  /** Says beside the button that makes what is wrong, where no field is the cause. */
  wrong(text) {
    this.wrongPlace.hidden = false;
    fill(this.wrongPlace, icon("warn", 14), h("span", { text }));
  }

  fieldOf(name) {
    const use = /^adapters\.(\d+)/.exec(name);
    if (use) return this.adapters.field(Number(use[1])) ?? this.settings.fields.get("vae");
    return this.fields.get(name) ?? this.settings.fields.get(name) ?? (name.startsWith("inputs") ? this.fields.get("inputs") : name.startsWith("model") ? this.fields.get("model") : null);
  }

  /** Takes back what was said of one field, or of all. */
  right(name) {
    this.wrongPlace.hidden = true;
    if (name) return this.fields.get(name)?.wrong("");
    for (const field of [...this.fields.values(), ...this.settings.fields.values()]) field.wrong("");
  }

  /** Stops what is being made, else what waits to be made last. */
  halt() {
    const open = this.result.open_jobs().filter((one) => !one.local && !one.cancelling);
    const job = open.find((one) => one.state === "running") ?? open[0];
    if (!job) return false;
    this.result.cancel(job);
    return true;
  }

  drawFoot() { this.stop.hidden = !this.result.open_jobs().length; }

  // --------------------------------------------------------------------------------------------------- what was made

  /** The recipe of an output, which lists leave out. */
  async recipe(output) {
    output.recipe ??= (await this.context.api.get(`/api/outputs/${output.id}`)).recipe;
    return madeFrom(output);
  }

  async reuse(output, what) {
    if (what === "seed") return this.setSeed(output.seed);
    const recipe = await this.recipe(output);
    if (what === "prompt") return this.takeWords(recipe);
    await this.takeRecipe(recipe);
    if (what === "all.noseed") this.setSeed(null);
  }

  takeWords({ prompt = "", negative = "" }) { this.fillIn({ ...this.draft, prompt, negative }); }

  /** Puts a recipe into the form, with its model where it is on the shelf. */
  async takeRecipe(recipe) {
    const { api, toast, complain } = this.context;
    let model = this.draft.model;
    const { sha256 } = recipe.model ?? {};
    // A1111 names a model with the beginning of its hash: "dreamshaper_8 [879db523c3]".
    const [, name, short] = /^(.*?)(?: \[([0-9a-f]+)\])?$/.exec(recipe.model?.name ?? "");
    if (name && name !== model?.name) {
      try {
        const { items } = await api.get("/api/models", { q: name, runs: true, limit: 50 });
        const found = items.find((one) => one.sha256 && (one.sha256 === sha256 || (short && one.sha256.startsWith(short)))) ?? items.find((one) => one.name === name);
        if (found) model = plain(found);
        else toast({ text: this.t("make.gone", { name }) });
      } catch (error) { complain(error); }
    }
    if (model && model.id !== this.draft.model?.id) {
      this.draft.model = model;
      await this.loadForm();
    }
    const draft = draftOf(recipe, this.form, model);
    await this.takeUses(draft, recipe.adapters ?? []);
    this.ownVae = recipe.model?.sha256 && !draft.vae ? draft : null;
    this.fillIn(draft);
    if (draft.init) await this.measure();
    toast({ text: this.t("make.taken") });
  }

  /** The size of the start, where only its hash is known; a start that is not here any more is left out. */
  async measure() {
    const { init } = this.draft;
    if (init.width) return;
    const picture = new Image();
    picture.src = `/api/inputs/${init.sha256}`;
    try {
      await picture.decode();
      Object.assign(init, { width: picture.naturalWidth, height: picture.naturalHeight });
    } catch {
      if (this.draft.init === init) this.draft.init = this.draft.mask = null;
    }
    this.drawForm();
    this.changed();
  }

  async vary(output, strength, count) {
    const recipe = await this.recipe(output);
    const knobs = { ...recipe.knobs, variation_strength: strength, variation_seed: Math.floor(Math.random() * DRAWN) };
    return this.send({ ...recipe, count, knobs });
  }

  async startFrom(output, mask = false) {
    await this.take({ output: output.id, whole: output, only: "picture" });
    if (mask && this.draft.init) this.paintMask();
  }

  /** Takes a picture in: as start, or for its recipe, as whoever gave it chooses. */
  async take({ blob, count = 1, output, only }) {
    const { api, may, toast } = this.context;
    if (!may("generate")) return; // pictures are dropped and pasted anywhere
    if (count > 1) toast({ text: this.t("start.one", { name: blob.name, count }) });
    this.start.wrong("");
    this.start.busy();
    try {
      const content = blob ?? await api.get(`/api/outputs/${output}/file`);
      const told = await api.upload("/api/inputs", content);
      const said = only ? null : told.recipe ?? wordsOf(told.parameters);
      if (!said && !only && told.too_long.length) toast({ text: this.t("make.toolong", { name: told.too_long[0] }) });
      const wish = said ? await offer(said, `/api/inputs/${told.sha256}`, told.refused) : "picture";
      if (wish === "recipe") { this.start.draw(this.draft); return await this.takeRecipe(said); }
      if (wish === "words") {
        this.takeWords(said);
        return toast({ text: this.t("make.taken.words") });
      }
      if (wish === "picture") {
        this.draft.init = { sha256: told.sha256, width: told.width, height: told.height };
        this.draft.mask = null;
        this.draft.size = null;
        this.start.fold.open = true;
      }
      this.drawForm();
      this.changed();
      if (wish === "picture" && this.form && !inputsOf(this.draft, this.form).length) this.start.wrong(this.t("make.unmade"));
    } catch (error) {
      this.start.draw(this.draft);
      this.start.wrong(this.context.saying(error));
    }
  }

  /** Puts the start on the easel; `acts` are what was painted on it before. */
  paintMask(acts) {
    const { init, mask } = this.draft;
    if (!init?.width || this.easel) return;
    const { store, api } = this.context;
    const easel = new Easel({
      width: init.width, height: init.height, source: `/api/inputs/${init.sha256}`, alt: this.t("start.alt"), mask: mask && `/api/inputs/${mask.sha256}`, acts,
      size: store.get("brush", 14), sized: (size) => store.set("brush", size), left: () => this.leaveMask(), changed: () => this.changed(false),
      done: async (blob) => {
        let made;
        try {
          made = blob && { sha256: (await api.upload("/api/inputs", blob)).sha256 };
        } catch (error) { return this.context.complain(error); }
        if (this.easel !== easel) return; // the start is another one by now
        this.draft.mask = made;
        this.drawForm();
        this.clearEasel();
        this.changed();
      },
    });
    this.easel = easel;
    this.painted = { init, mask };
    this.go.disabled = true; // one thing to press at a time
    this.result.place.append(easel.element);
    easel.focus();
  }

  clearEasel() {
    this.easel.close();
    this.easel.element.remove();
    this.easel = null;
    this.go.disabled = false;
    this.wrongPlace.hidden = true; // it may have said that there is a mask to finish
    this.start.focus();
  }

  /** What is painted, with what it is painted on; null where nothing is. */
  painting() {
    const acts = this.easel?.kept;
    return acts ? { ...this.painted, acts } : null;
  }

  /** Leaves the easel without its mask, which can be had back for a moment. */
  leaveMask() {
    const { context } = this;
    const painting = this.painting();
    this.clearEasel();
    this.keep();
    if (!painting) return;
    context.toast({ text: this.t("make.mask.left"), undo: () => {
      if (!this.closed) return this.paintOn(painting);
      context.store.set("painting", painting);
      context.go("make");
    } });
  }

  /** Goes on with a mask where it was left, on the picture that it belongs to. */
  paintOn({ init, mask, acts }) {
    if (this.easel) this.leaveMask();
    Object.assign(this.draft, { init, mask });
    this.drawForm();
    this.changed();
    this.paintMask(acts);
  }

  async showRecipe(output) {
    if (this.drawer) return this.drawer();
    const recipe = await this.recipe(output);
    const before = document.activeElement;
    const shut = () => { drawer.remove(); this.drawer = null; before?.focus?.(); };
    const drawer = h("aside", { class: "drawer", aria: { label: this.t("make.recipe") }, on: { keydown: (event) => { if (event.key === "Escape") { event.stopPropagation(); event.preventDefault(); shut(); } } } },
      h("header", { class: "drawer-head" }, h("h2", { class: "grow", text: this.t("make.recipe") }), h("button", { type: "button", class: "quiet square", aria: { label: this.t("frame.close") }, on: { click: shut } }, icon("close"))),
      h("div", { class: "drawer-body" }, recipeView(recipe, this.context.copy, this.forms)));
    this.drawer = shut;
    this.element.append(drawer);
    drawer.querySelector("button").focus();
  }

  example(prompt, go = false) {
    this.prompt.value = prompt;
    this.draft.prompt = prompt;
    this.right("prompt");
    this.changed();
    if (go) this.make();
    else this.prompt.focus();
  }

  // -------------------------------------------------------------------------------------------------------------- keys

  keys() {
    const { t, context, result } = this;
    const shown = (run) => () => { const output = result.shown?.output; if (!output || this.easel) return false; return run(output); };
    context.keys({
      "ctrl+enter": { text: t("make.key.make"), always: true, needs: "generate", run: () => { this.make(); } },
      esc: { text: t("make.key.stop"), always: true, needs: "generate", run: () => (!document.querySelector(":popover-open") && this.halt() ? undefined : false) },
      p: { text: t("make.key.prompt"), needs: "generate", run: () => this.prompt.focus() },
      m: { text: t("make.key.model"), needs: "generate", run: () => this.picker.open() },
      "ctrl+up": { text: t("make.key.weight"), needs: "generate" },
      left: { text: t("make.key.before"), run: () => result.walk(-1) },
      right: { text: t("make.key.after"), run: () => result.walk(1) },
      c: { text: t("make.key.compare"), run: shown((output) => result.pick(output)) },
      i: { text: t("make.key.recipe"), run: shown((output) => { this.showRecipe(output).catch(context.complain); }) },
      z: { text: t("make.key.zoom"), run: () => result.stage.toggle() },
      delete: { text: t("make.key.delete"), needs: "generate", run: shown((output) => { result.remove(output); }) },
    });
    // Heard before the other: what lies over the result is closed first, and by everybody.
    context.keys({ esc: { always: true, run: () => {
      if (this.drawer) return void this.drawer();
      if (result.comparing) return void result.pick(null);
      return false;
    } } });
  }
}

/** What the form keeps of a model. */
const plain = ({ id, name, kind, family, variant, size, preview }) => ({ id, name, kind, family, variant, size, preview });

/** The prompts of an A1111 text of which nothing else could be made again here; null for none. */
function wordsOf(parameters) {
  if (!parameters) return null;
  const [words] = parameters.split(/\nSteps: /);
  const [prompt, negative = ""] = words.split(/\nNegative prompt: /);
  return { prompt, negative };
}

/** A seed as it was typed: a number, or the text of what is none, for the server to refuse; null for none. */
function seedOf(text) {
  const told = text.trim();
  if (!told || told === "-1") return null;
  if (!/^\d+$/.test(told) || BigInt(told) > LARGEST_SEED) return told;
  return Number.isSafeInteger(Number(told)) ? Number(told) : BigInt(told);
}

export default {
  id: "make",
  order: 1,
  words,
  mount: (element, context) => new Make(element, context).open(),
};
