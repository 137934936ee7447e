// The result: the newest picture, or the one that is being made, in a frame that is reserved for it; what was made below.

import { fill, h, paint, put } from "../../dom.js";
import { addWords, duration, number, t } from "../../words.js";
import { icon } from "../icons.js";
import { cancel, Pace } from "../jobs.js";
import { menu, popover } from "../popover.js";
import { Stage } from "../stage.js";
import { keyOf, Strip } from "./strip.js";

addWords({
  en: {
    "result.title": "Result", "result.loading": "Loading {model}", "result.waiting": "Waiting", "result.waiting.n": "Waiting behind {n}", "result.next": "Next in the queue", "result.paused": "Paused",
    "result.step": "Step {done} of {total}", "result.image": "picture {n} of {count}", "result.left": "{time} left", "result.decode": "Developing", "result.save": "Saving", "result.sending": "Sending …",
    "result.seed": "seed", "result.copy.seed": "Copy the seed", "result.copy.size": "Copy the size", "result.copy.seconds": "Copy the seconds", "result.copy.prompt": "Copy the prompt", "result.reuse": "Reuse", "result.reuse.title": "Put these settings into the form", "result.reuse.all": "All settings", "result.reuse.all.noseed": "All but the seed", "result.reuse.seed": "The seed only", "result.reuse.prompt": "The prompt only",
    "result.vary": "Vary", "result.vary.amount": "How different", "result.vary.count": "How many", "result.vary.go": "Make variations", "result.start": "Start from it", "result.mask": "Mask a part", "result.compare": "Compare", "result.compare.pick": "Choose the other picture below", "result.compare.before": "With the one before",
    "result.recipe": "Recipe", "result.download": "Download", "result.delete": "Delete", "result.deleted": "Deleted", "result.zoom": "Zoom", "result.failed": "This one failed", "result.again": "Try again", "result.dismiss": "Dismiss", "result.more": "More",
    "result.done": "Done in {time}", "result.progress": "Progress", "result.half": "{share} % done", "result.took": "{time}",
    "empty.title": "Say what you want to see", "empty.text": "Write it on the left, or take one of these, and press Make. What comes out stands here.", "empty.first": "Make a first picture", "empty.without": "Nothing was made yet.",
  },
  zh: {
    "result.title": "结果", "result.loading": "正在加载 {model}", "result.waiting": "等待中", "result.waiting.n": "前面还有 {n} 个", "result.next": "下一个就是它", "result.paused": "已暂停",
    "result.step": "第 {done} / {total} 步", "result.image": "第 {n} / {count} 张", "result.left": "还需 {time}", "result.decode": "正在显影", "result.save": "正在保存", "result.sending": "正在发送……",
    "result.seed": "种子", "result.copy.seed": "复制种子", "result.copy.size": "复制尺寸", "result.copy.seconds": "复制秒数", "result.copy.prompt": "复制提示词", "result.reuse": "重用", "result.reuse.title": "把这些设置放进表单", "result.reuse.all": "全部设置", "result.reuse.all.noseed": "除种子外的全部", "result.reuse.seed": "仅种子", "result.reuse.prompt": "仅提示词",
    "result.vary": "变化", "result.vary.amount": "差异程度", "result.vary.count": "数量", "result.vary.go": "生成变体", "result.start": "从它开始", "result.mask": "局部重绘", "result.compare": "比较", "result.compare.pick": "在下方选择另一张图片", "result.compare.before": "与上一张比较",
    "result.recipe": "配方", "result.download": "下载", "result.delete": "删除", "result.deleted": "已删除", "result.zoom": "缩放", "result.failed": "这一张失败了", "result.again": "重试", "result.dismiss": "忽略", "result.more": "更多",
    "result.done": "完成，用时 {time}", "result.progress": "进度", "result.half": "已完成 {share}%", "result.took": "{time}",
    "empty.title": "说出你想看到的", "empty.text": "写在左边，或选用下面的一句，然后按“生成”。结果会出现在这里。", "empty.first": "生成第一张图片", "empty.without": "还没有作品。",
  },
});

const BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=";
const LIST = 60; // outputs fetched at once
const MOST = 500; // that one request may answer
const EARLIER = 24; // shown when nothing was made today
const PATIENCE = 2000; // ms until the room is shown without knowing what runs
const TOLD = 25; // per cent between two announcements
const EXAMPLES = [
  "a red house by the sea at sunset, watercolor",
  "a yellow balloon in the mountains at dawn, flat",
  "a white tower in the snow at night, pixel art",
];

export class Result {
  /**
   * `does` is what the room does with outputs: `reuse(output, what)`, `vary(output, strength, count)`, `start(output)`,
   * `mask(output)`, `recipe(output)`, `compare(one, other)`, `example(prompt)`, `again(job)`, `varies(output)`.
   */
  constructor(context, does) {
    Object.assign(this, { context, does, outputs: [], failed: new Map(), pace: new Pace(), previews: new Map(), earlier: false, next: null });
    this.chosen = context.store.get("chosen"); // the key of an output; null follows the work
    this.place = h("div", { class: "easel-room" });
    this.stage = new Stage({ width: 1, height: 1, alt: "" });
    this.over = h("div", { class: "stage-over" });
    this.frame = h("div", { class: "result-stage" }, this.stage.element, this.over, this.place);
    this.progress = h("div", { class: "progress", role: "progressbar", aria: { label: t("result.progress"), valuemin: 0, valuemax: 100 }, hidden: true }, this.line = h("i"));
    this.facts = h("div", { class: "caption-facts row" });
    this.acts = h("div", { class: "caption-acts row" });
    // Whoever has a menu of this output open goes on with this one; what came meanwhile is shown afterwards.
    this.acts.addEventListener("toggle", (event) => { if (event.newState === "closed") this.draw(); }, true);
    this.strip = new Strip({
      choose: (item) => this.choose(item), cancel: (job) => this.cancel(job), dismiss: (job) => { this.failed.delete(job.id); this.draw(); },
      more: () => this.more(),
    });
    this.element = h("section", { class: "result", aria: { label: t("result.title") } }, this.frame, this.progress,
      h("div", { class: "caption" }, this.facts, this.acts), this.strip.element);
    this.stage.picture.draggable = false;
  }

  async open() {
    const { jobs } = this.context;
    this.unwatch = jobs.watch((job, event) => this.hear(job, event));
    this.unmind = this.context.outputs.watch(({ gone, back }) => {
      if (gone) this.drop(gone);
      else if (back) this.bring(back).catch((error) => this.context.complain(error));
    });
    this.clock = setInterval(() => this.tick(), 500);
    this.listed = this.load(); // the newest outputs
    try {
      await Promise.all([this.listed, Promise.race([jobs.ready, new Promise((resolve) => setTimeout(resolve, PATIENCE))])]);
    } finally {
      this.loaded = true;
      this.draw();
    }
  }

  close() {
    this.unwatch?.();
    this.unmind?.();
    clearInterval(this.clock);
    this.stage.close();
  }

  // ------------------------------------------------------------------------------------------------------- what is

  async load(limit = LIST) {
    const midnight = new Date().setHours(0, 0, 0, 0) / 1000;
    const { api } = this.context;
    const told = await api.get("/api/outputs", { limit });
    const today = told.items.filter((output) => output.created >= midnight);
    this.earlier = !today.length;
    const items = this.earlier ? told.items.slice(0, EARLIER) : today;
    const known = new Set(items.map((output) => output.id));
    this.outputs = [...this.outputs.filter((output) => !known.has(output.id)), ...items].sort((one, other) => other.created - one.created);
    this.next = today.length < told.items.length ? null : told.next;
    this.since = midnight;
  }

  async more() {
    if (!this.next || this.fetching) return;
    this.fetching = true;
    try {
      const told = await this.context.api.get("/api/outputs", { since: this.since, limit: LIST, before: this.next });
      const known = new Set(this.outputs.map((output) => output.id));
      this.outputs.push(...told.items.filter((output) => !known.has(output.id)));
      this.next = told.next;
    } catch { /* the next scroll asks again */ }
    this.fetching = false;
    this.draw();
  }

  /** Jobs that make something and are not done, the one that is done last first. */
  open_jobs() { return this.context.jobs.open().filter((job) => job.kind === "make").reverse(); }

  /** The job that is being made, or will be next; null for none. */
  current() { return this.open_jobs().findLast((job) => job.state === "running") ?? this.open_jobs().at(-1) ?? null; }

  running() { return this.open_jobs().filter((job) => job.state === "running"); }

  /** The output of which a menu is open; null for none. */
  get held() { return this.acts.querySelector(":popover-open") ? this.shown?.output ?? null : null; }

  get output() { return this.outputs.find((output) => keyOf(output) === this.chosen) ?? null; }

  // --------------------------------------------------------------------------------------------------- what happens

  hear(job, event) {
    if (job && job.kind !== "make") return;
    if (event && job) {
      if (event.kind === "preview") this.preview(job);
      else if (event.kind === "step") this.step(job, event);
      else if (event.kind === "made") this.made(job, event);
      else if (event.kind === "failed") this.failed.set(job.id, job);
      else if (event.kind === "done") this.context.say(t("result.done", { time: duration(event.seconds ?? 0) }));
      if (event.kind === "step" || event.kind === "preview") return;
    }
    this.draw();
  }

  step(job, event) {
    this.pace.hear(job, event);
    this.strip.live(job, event.image ?? 0, { share: this.share(job, true) });
    if (this.shown?.job === job.id) this.caption();
    else if (!this.shown) this.draw();
    if (this.isFollowing(job)) this.show_progress();
  }

  /** Fetches the newest preview of a job; one at a time, as a newer one makes those before it worthless. */
  async preview(job) {
    if (this.busy) { this.waiting = job; return; }
    this.busy = true;
    this.seen = (this.seen ?? 0) + 1;
    const image = this.context.jobs.get(job.id)?.progress?.image ?? 0;
    const source = `/api/jobs/${job.id}/preview?seen=${this.seen}`;
    const picture = new Image();
    picture.src = source;
    try {
      await picture.decode();
      const still = this.context.jobs.get(job.id)?.state === "running" && !this.outputs.some((output) => output.id === `${job.id}-${image}`);
      if (still) {
        this.strip.live(job, image, { source });
        this.previews.set(`${job.id}-${image}`, source);
        if (this.isFollowing(job) && !this.held) {
          this.latest = null;
          this.reserve(job, image);
          this.stage.picture.src = source;
          this.caption();
        }
      }
    } catch { /* previews are a courtesy: the next one comes */ }
    this.busy = false;
    const waiting = this.waiting;
    this.waiting = null;
    if (waiting && this.context.jobs.get(waiting.id)?.state === "running") this.preview(waiting);
  }

  async made(job, event) {
    if (this.outputs.some((one) => one.id === event.output)) return;
    const recipe = job.recipe ?? {};
    const output = {
      id: event.output, job: job.id, index: event.image, width: event.width, height: event.height, seed: event.seed, sha256: event.sha256, created: event.at,
      prompt: recipe.prompt, model: recipe.model?.name ?? "", format: recipe.output?.format ?? "png",
    };
    if (this.earlier) { this.outputs = []; this.earlier = false; this.next = null; }
    this.outputs.unshift(output);
    if (this.isFollowing(job)) {
      this.latest = keyOf(output);
      // What is in the frame stays there until its successor can be shown.
      const whole = new Image();
      whole.src = `/api/outputs/${output.id}/file`;
      try { await whole.decode(); } catch { /* shown as it comes, then */ }
    }
    this.draw();
    try {
      Object.assign(output, await this.context.api.get(`/api/outputs/${output.id}`));
    } catch { return; } // what the event told is enough to go on
    if (this.shown?.output === output) this.caption();
  }

  /** Whether this job is what is looked at. */
  isFollowing(job) { return this.chosen === null && (this.looked ? this.looked === job.id : this.shown?.job === job.id || this.current()?.id === job.id); }

  /** From now on the work is looked at, whatever is being made; or, with a key, that output again. */
  follow(chosen = null) {
    Object.assign(this, { chosen, looked: null, latest: null });
    this.context.store.set("chosen", chosen);
    this.draw();
  }

  choose(item) {
    if (this.comparing && item?.output) {
      const one = this.comparing;
      this.pick(null);
      if (item.output.id !== one.id) this.does.compare(one, item.output);
      return;
    }
    this.looked = item?.job ? item.job.id : null;
    this.chosen = item?.output ? item.key : null;
    this.latest = null;
    this.context.store.set("chosen", this.chosen);
    this.draw();
  }

  /** The next output to the left (-1) or right (1) of the one that is looked at. */
  walk(step) {
    const items = this.strip.items ?? [];
    const at = items.findIndex((item) => item.key === this.key());
    const to = items[Math.max(0, Math.min(items.length - 1, (at < 0 ? 0 : at + step)))];
    if (to) { this.choose(to); this.strip.reveal(to.key); }
  }

  cancel(job) {
    if (!job.local && this.context.may("generate")) cancel(this.context, job);
  }

  // ----------------------------------------------------------------------------------------------------- how it looks

  key() {
    if (this.chosen) return this.chosen;
    if (this.shown?.job) return `${this.shown.job}-${this.shown.image}`;
    return this.shown?.output ? keyOf(this.shown.output) : null;
  }

  draw() {
    if (!this.loaded) return; // an empty room is only shown once it is known to be empty
    const jobs = [...this.failed.values(), ...this.open_jobs()].sort((one, other) => (other.created ?? 0) - (one.created ?? 0) || other.position - one.position);
    const output = this.held ?? this.output;
    const looked = this.looked && (this.context.jobs.get(this.looked) ?? null);
    const job = looked && (looked.state === "failed" ? this.failed.has(looked.id) : ["waiting", "running", "paused"].includes(looked.state)) ? looked : this.current();
    const failed = this.chosen === null && !looked && [...this.failed.values()].at(-1);
    if (output) this.show_output(output);
    else if (this.newest) this.show_output(this.newest);
    else if (failed && !job) this.show_failure(failed);
    else if (job?.state === "failed") this.show_failure(job);
    else if (job) this.show_job(job);
    else if (this.outputs.length) this.show_output(this.outputs[0]);
    else this.show_nothing();
    this.strip.draw(jobs, this.outputs, this.key(), { earlier: this.earlier });
    this.strip.element.hidden = !this.strip.items.length;
    this.show_progress();
    this.does.changed?.();
  }

  /** What was made last, which stays in the frame until there is something to see of the next one. */
  get newest() { return this.latest ? this.outputs.find((one) => keyOf(one) === this.latest) : null; }

  show_output(output) {
    this.empty(false);
    const before = this.shown;
    this.shown = { output };
    const source = `/api/outputs/${output.id}/file`;
    fill(this.over);
    if (before?.output?.id !== output.id) {
      this.stage.change({ width: output.width, height: output.height, alt: output.prompt || "" });
      const followed = before?.job === output.job && before?.image === output.index;
      this.stage.show(source, followed ? this.stage.picture.src : `/api/outputs/${output.id}/thumbnail?size=256`);
    }
    this.caption();
  }

  show_job(job) {
    this.empty(false);
    this.reserve(job, job.progress?.image ?? 0);
    fill(this.over);
    this.caption();
  }

  /** Reserves the frame of a job's picture; nothing moves when it comes. */
  reserve(job, image) {
    const recipe = job.recipe ?? {};
    const size = recipe.size ?? { width: 512, height: 512 };
    if (this.shown?.job === job.id && this.shown.image === image) return;
    const same = this.shown?.job === job.id;
    this.shown = { job: job.id, image };
    if (same && this.stage.width === size.width && this.stage.height === size.height) return;
    this.stage.change({ width: size.width, height: size.height, alt: recipe.prompt || "" });
    this.stage.coming = null;
    this.stage.picture.src = this.previews.get(`${job.id}-${image}`) ?? BLANK;
  }

  show_failure(job) {
    this.empty(false);
    this.reserve(job, 0);
    this.stage.picture.src = BLANK;
    const { error } = job;
    fill(this.over, h("div", { class: "failure", role: "alert" }, icon("warn", 20), h("h2", { text: t("result.failed") }),
      h("p", { text: [error?.what, error?.remedy].filter(Boolean).join("; ") }),
      h("div", { class: "row" }, h("button", { type: "button", data: { needs: "generate" }, text: t("result.again"), on: { click: () => { this.failed.delete(job.id); this.does.again(job); } } }),
        h("button", { type: "button", class: "quiet", text: t("result.dismiss"), on: { click: () => { this.failed.delete(job.id); this.looked = null; this.draw(); } } }))));
    this.caption();
  }

  show_nothing() {
    this.shown = null;
    this.empty(true);
    this.caption();
  }

  empty(shown) {
    this.element.classList.toggle("is-empty", shown);
    if (!shown || this.over.querySelector(".empty")) return;
    this.stage.picture.src = BLANK;
    fill(this.over, h("div", { class: "empty", data: { without: "generate" } }, window_drawing(), h("p", { class: "soft prose", text: t("empty.without") })), h("div", { class: "empty", data: { needs: "generate" } }, window_drawing(),
      h("h1", { text: t("empty.title") }), h("p", { class: "soft prose", text: t("empty.text") }),
      h("ul", { class: "examples" }, EXAMPLES.map((words) => h("li", {}, h("button", { type: "button", class: "example", text: words, on: { click: () => this.does.example(words) } })))),
      h("button", { type: "button", text: t("empty.first"), on: { click: () => this.does.example(EXAMPLES[0], true) } })));
  }

  caption() {
    const { shown } = this;
    if (shown?.output) {
      this.caption_facts(shown.output);
      return this.caption_acts(shown.output);
    }
    this.stated = this.captioned = null;
    fill(this.acts);
    const job = shown?.job && this.context.jobs.get(shown.job);
    if (!job || job.state === "failed") return void fill(this.facts);
    fill(this.facts, h("span", { class: "number", text: this.words(job) }));
  }

  caption_facts(output) {
    const { id, seed, width, height, seconds, model } = output;
    const key = [id, seed, width, height, seconds, model].join(" ");
    if (this.stated === key) return;
    this.stated = key;
    const fact = (name, text, exact) => h("button", { type: "button", class: "quiet caption-fact number", title: t(`result.copy.${name}`), text, on: { click: () => this.context.copy(exact) } });
    fill(this.facts,
      fact("seed", `${t("result.seed")} ${seed}`, String(seed)),
      fact("size", `${width} × ${height}`, `${width}x${height}`),
      seconds && fact("seconds", duration(seconds), String(seconds)),
      h("span", { class: "soft cut caption-model", text: model, title: model }));
  }

  /** What can be done with an output; drawn anew only when that is something else, as one of its menus may be open. */
  caption_acts(output) {
    const varies = this.does.varies(output);
    const key = `${output.id} ${this.comparing?.id ?? ""} ${varies}`;
    if (this.captioned === key) return;
    this.captioned = key;
    const { seed } = output;
    const { copy } = this.context;
    if (this.comparing) {
      fill(this.acts, h("span", { class: "small", role: "status", text: t("result.compare.pick") }), h("button", { type: "button", class: "quiet", text: t("frame.close"), on: { click: () => this.pick(null) } }));
      return;
    }
    const act = (name, drawing, run, { worded = true, key: stroke = "", needs } = {}) => h("button", {
      type: "button", class: ["quiet", worded ? "worded" : "square"], data: needs && { needs }, title: t(`result.${name}`) + (stroke ? ` (${stroke})` : ""), aria: { label: t(`result.${name}`) }, on: run ? { click: run } : {},
    }, icon(drawing), worded && h("span", { text: t(`result.${name}`) }));
    const reuse = act("reuse", "reuse", null, { needs: "generate" });
    const vary = varies && act("vary", "vary", null, { needs: "generate" });
    const more = act("more", "more", null, { worded: false });
    fill(this.acts, reuse, vary,
      act("start", "picture", () => this.does.start(output), { needs: "generate" }),
      act("mask", "brush", () => this.does.mask(output), { needs: "generate" }),
      act("compare", "compare", () => this.pick(output), { worded: false, key: "C" }),
      act("recipe", "recipe", () => this.does.recipe(output), { worded: false, key: "I" }),
      h("a", { class: "button quiet square", href: `/api/outputs/${output.id}/file`, download: `${output.id}.${output.format ?? "png"}`, title: t("result.download"), aria: { label: t("result.download") } }, icon("download")),
      more);
    menu(reuse, ["all", "all.noseed", "seed", "prompt"].map((what) => ({ text: t(`result.reuse.${what}`), run: () => this.does.reuse(output, what) })), { label: t("result.reuse.title") });
    if (vary) popover(vary, (panel, close) => varying(panel, (strength, count) => { close(); this.does.vary(output, strength, count); }), { label: t("result.vary"), className: "varying" });
    menu(more, () => [
      { text: t("result.copy.prompt"), icon: "copy", run: () => copy(output.prompt) },
      { text: t("result.copy.seed"), icon: "copy", run: () => copy(String(seed)) },
      { text: t("result.zoom"), icon: "zoom", key: "Z", run: () => this.stage.toggle() },
      ...(this.context.may("generate") ? ["-", { text: t("result.delete"), icon: "trash", key: "Del", run: () => this.remove(output) }] : []),
    ], { side: "end", label: t("result.more") });
  }

  /** Waits for the second picture of a comparison, or no longer. */
  pick(output) {
    this.comparing = output;
    this.element.classList.toggle("is-comparing", Boolean(output));
    this.caption();
  }

  async remove(output) {
    const { outputs, toast, complain } = this.context;
    const at = this.outputs.indexOf(output);
    if (at < 0) return;
    this.drop([output.id]);
    try {
      await outputs.delete([output.id]);
    } catch (error) {
      this.outputs.splice(at, 0, output);
      this.draw();
      return complain(error);
    }
    toast({ text: t("result.deleted"), undo: async () => {
      try {
        await outputs.restore([output.id]);
      } catch (error) { return complain(error); }
      this.chosen = keyOf(output);
    } });
  }

  /** Outputs are gone; where one of them is looked at, its neighbour is from now on. */
  drop(ids) {
    const gone = new Set(ids);
    const at = this.outputs.indexOf(this.shown?.output);
    const lost = at >= 0 && gone.has(this.shown.output.id);
    const next = lost && (this.outputs.slice(at).find((one) => !gone.has(one.id)) ?? this.outputs.slice(0, at).findLast((one) => !gone.has(one.id)));
    this.outputs = this.outputs.filter((one) => !gone.has(one.id));
    if (lost) Object.assign(this, { latest: null, chosen: next ? keyOf(next) : null });
    this.draw();
  }

  /** Outputs are back: they stand among the others again, as many of which are kept as one request answers. */
  async bring(ids) {
    await this.load(Math.min(MOST, Math.max(LIST, this.outputs.length + ids.length)));
    this.draw();
  }

  // ------------------------------------------------------------------------------------------------------- progress

  /** How much of a job is done, from 0 to 1, or of the picture that is being made. */
  share(job, single = false) {
    const { progress } = job;
    const count = job.recipe?.count ?? 1;
    if (!progress?.total) return 0;
    const part = progress.phase === "sample" ? (progress.done / progress.total) * 0.96 : progress.phase === "load" ? 0 : 0.98;
    return single ? part : ((progress.image ?? 0) + part) / count;
  }

  words(job) {
    const recipe = job.recipe ?? {};
    if (job.local) return t("result.sending");
    if (job.state === "paused") return t("result.paused");
    if (job.state === "waiting") {
      const ahead = this.context.jobs.open().findIndex((one) => one.id === job.id);
      return ahead > 0 ? t("result.waiting.n", { n: ahead }) : t("result.next");
    }
    const { phase, done, total, image = 0 } = job.progress ?? {};
    const left = this.pace.left(job);
    const now = phase === "sample" ? t("result.step", { done, total }) : phase === "decode" ? t("result.decode") : phase === "save" ? t("result.save") : t("result.loading", { model: recipe.model?.name ?? "" });
    return [recipe.count > 1 && t("result.image", { n: Math.min(image + 1, recipe.count), count: recipe.count }), now, left !== null && phase !== "load" && t("result.left", { time: duration(Math.max(left, 0.1)) })].filter(Boolean).join(" · ");
  }

  show_progress() {
    const job = this.running()[0];
    this.progress.hidden = false;
    this.progress.classList.toggle("is-on", Boolean(job));
    if (!job) { this.progress.classList.remove("is-unknown"); paint(this.line, { width: "0%" }); this.progress.removeAttribute("aria-valuenow"); return; }
    const share = this.share(job);
    this.progress.classList.toggle("is-unknown", share === 0);
    paint(this.line, { width: `${share * 100}%` });
    this.progress.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    this.progress.setAttribute("aria-valuetext", this.words(job));
    const told = Math.floor((share * 100) / TOLD) * TOLD;
    if (told && (this.told?.job !== job.id || this.told.share !== told)) {
      this.told = { job: job.id, share: told };
      this.context.say(t("result.half", { share: told }));
    }
  }

  tick() { if (this.shown?.job) this.caption(); }
}

/** The panel that asks how far variations may go. */
function varying(panel, go) {
  const amount = h("input", { type: "range", min: "0.02", max: "0.6", step: "0.02", value: "0.2", id: "vary-amount", on: { input: () => draw() } });
  const shown = h("output", { class: "number small", for: "vary-amount" });
  const count = h("input", { type: "number", class: "number", min: "1", max: "16", value: "4", id: "vary-count" });
  const draw = () => { shown.value = amount.value; paint(amount, { "--fill": `${((amount.value - 0.02) / 0.58) * 100}%` }); };
  put(panel, [h("div", { class: "row" }, h("label", { class: "label grow", for: "vary-amount", text: t("result.vary.amount") }), shown), amount,
    h("div", { class: "row" }, h("label", { class: "label grow", for: "vary-count", text: t("result.vary.count") }), count),
    h("button", { type: "button", class: "main", text: t("result.vary.go"), on: { click: () => go(Number(amount.value), Math.max(1, Number(count.value) || 1)) } })]);
  draw();
}

/** The drawing of an empty workshop: a window onto the sea. */
function window_drawing() {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", "0 0 160 132");
  drawing.setAttribute("class", "empty-drawing");
  drawing.setAttribute("aria-hidden", "true");
  for (const [name, line] of [["sun", "M97 71a17 17 0 0 0-34 0z"], ["", "M28 122V64a52 52 0 0 1 104 0v58M16 122h128M80 12v110"], ["", "M28 71h104"], ["far", "M36 82h30M90 82h34M44 92h20M98 92h22M36 102h34M92 102h28M48 112h18M96 112h20"]]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", line);
    if (name) path.setAttribute("class", name);
    drawing.append(path);
  }
  return drawing;
}
