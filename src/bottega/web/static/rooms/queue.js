// The queue: what is being made, what waits in which order, and what came of everything before.

import { h, fill, put } from "../dom.js";
import { icon } from "../parts/icons.js";
import { endpaper } from "../parts/endpaper.js";
import { begins, cancel, Pace, retry, titleOf } from "../parts/jobs.js";
import { menu } from "../parts/popover.js";
import { nothing, troubled } from "../parts/nothing.js";
import { bytes, duration, moment, number } from "../words.js";

const PAGE = 50; // jobs of the history that are fetched at a time
const OPEN_PAGE = 500;
const EDGE = 60; // px from the edge where dragging scrolls
const PREVIEW_EVERY = 400; // ms between two looks at a preview
const OVER = ["done", "failed", "cancelled"];
const WAITS = ["waiting", "paused"];
const STEERS = "generate manage"; // either: what has begun a job can end it

const words = {
  en: {
    "room.queue": "Queue",
    "queue.running": "Running", "queue.waiting": "Waiting", "queue.history": "History",
    "queue.pause.all": "Pause the queue", "queue.resume.all": "Go on",
    "queue.paused": "The queue rests. What runs is finished; nothing new is begun.",
    "queue.pause": "Pause", "queue.resume": "Go on", "queue.cancel": "Cancel", "queue.retry": "Try again", "queue.first": "Make it next",
    "queue.more": "More", "queue.copy": "Copy the id", "queue.open": "See what came of it",
    "queue.up": "Earlier", "queue.down": "Later", "queue.grip": "Drag to another place (Alt+Up, Alt+Down)",
    "queue.priority": "Priority", "queue.priority.high": "High", "queue.priority.normal": "Normal", "queue.priority.low": "Low",
    "queue.moved": "{title}: place {n} of {total}",
    "queue.state.waiting": "waits", "queue.state.paused": "paused", "queue.state.running": "running", "queue.state.done": "done",
    "queue.state.failed": "failed", "queue.state.cancelled": "cancelled", "queue.stopping": "stopping",
    "queue.phase.load": "loading the model", "queue.phase.encode": "reading the prompt", "queue.phase.sample": "step {done} of {total}", "queue.phase.train": "step {done} of {total}", "queue.phase.decode": "decoding", "queue.phase.save": "saving",
    "queue.phase.headers": "reading headers, {done} of {total}", "queue.phase.get": "fetching, {done} of {total}", "queue.phase.hash": "hashing, {done} of {total}",
    "queue.phase.writing": "writing, {done} of {total}", "queue.phase.checking": "checking, {done} of {total}",
    "queue.left": "{time} left", "queue.count": "{n} pictures", "queue.after": "waits for another job",
    "queue.attempt": "attempt {n}",
    "queue.all": "All", "queue.failed": "Failed", "queue.clear": "Cancel all that wait", "queue.cleared": "{n} cancelled",
    "queue.empty": "Nothing waits. What you make is done here one after another, and goes on when the page is closed.", "queue.empty.make": "Make something",
    "queue.history.none": "Nothing was done yet.", "queue.history.failed.none": "Nothing has failed.",
    "queue.older": "Older ones", "queue.list": "Jobs",
    "queue.keys.earlier": "Earlier", "queue.keys.later": "Later", "queue.keys.pause": "Pause or go on", "queue.keys.cancel": "Cancel", "queue.keys.retry": "Try again",
    "queue.summary": "{running} running, {waiting} waiting",
  },
  zh: {
    "room.queue": "队列",
    "queue.running": "进行中", "queue.waiting": "等待中", "queue.history": "历史",
    "queue.pause.all": "暂停队列", "queue.resume.all": "继续",
    "queue.paused": "队列已暂停。进行中的任务会完成，不再开始新的任务。",
    "queue.pause": "暂停", "queue.resume": "继续", "queue.cancel": "取消", "queue.retry": "重试", "queue.first": "下一个就做",
    "queue.more": "更多", "queue.copy": "复制编号", "queue.open": "查看结果",
    "queue.up": "提前", "queue.down": "推后", "queue.grip": "拖到其他位置（Alt+上、Alt+下）",
    "queue.priority": "优先级", "queue.priority.high": "高", "queue.priority.normal": "普通", "queue.priority.low": "低",
    "queue.moved": "{title}：第 {n} 位，共 {total} 个",
    "queue.state.waiting": "等待", "queue.state.paused": "已暂停", "queue.state.running": "进行中", "queue.state.done": "完成",
    "queue.state.failed": "失败", "queue.state.cancelled": "已取消", "queue.stopping": "正在停止",
    "queue.phase.load": "正在载入模型", "queue.phase.encode": "正在读取提示词", "queue.phase.sample": "第 {done} 步，共 {total} 步", "queue.phase.train": "第 {done} 步，共 {total} 步", "queue.phase.decode": "正在解码", "queue.phase.save": "正在保存",
    "queue.phase.headers": "正在读取文件头，{done} / {total}", "queue.phase.get": "正在下载，{done} / {total}", "queue.phase.hash": "正在计算哈希，{done} / {total}",
    "queue.phase.writing": "正在写入，{done} / {total}", "queue.phase.checking": "正在核对，{done} / {total}",
    "queue.left": "还需 {time}", "queue.count": "{n} 张", "queue.after": "等待另一个任务",
    "queue.attempt": "第 {n} 次尝试",
    "queue.all": "全部", "queue.failed": "失败", "queue.clear": "取消所有等待的任务", "queue.cleared": "已取消 {n} 个",
    "queue.empty": "没有等待的任务。创作会在这里依次完成，关闭页面也会继续。", "queue.empty.make": "开始创作",
    "queue.history.none": "还没有完成过任务。", "queue.history.failed.none": "没有失败的任务。",
    "queue.older": "更早的", "queue.list": "任务",
    "queue.keys.earlier": "提前", "queue.keys.later": "推后", "queue.keys.pause": "暂停或继续", "queue.keys.cancel": "取消", "queue.keys.retry": "重试",
    "queue.summary": "{running} 个进行中，{waiting} 个等待",
  },
};

export default {
  id: "queue",
  order: 4,
  words,
  mount(element, context) {
    const room = new QueueRoom(element, context);
    return () => room.close();
  },
};

class QueueRoom {
  constructor(element, context) {
    Object.assign(this, { element, context, t: context.t, paused: false, ended: new Map(), rows: new Map(), pace: new Pace(), previews: new Map() });
    this.only = context.store.get("only", "");
    this.build();
    const { t } = this;
    const onRow = (run) => (event) => {
      const job = this.jobOf(event.target);
      return job ? run(job, event) : false;
    };
    context.keys({
      "alt+up": { text: t("queue.keys.earlier"), needs: STEERS, run: onRow((job) => this.nudge(job, -1)) },
      "alt+down": { text: t("queue.keys.later"), needs: STEERS, run: onRow((job) => this.nudge(job, 1)) },
      p: { text: t("queue.keys.pause"), needs: STEERS, run: onRow((job) => this.rest(job)) },
      r: { text: t("queue.keys.retry"), needs: STEERS, run: onRow((job) => (context.may(begins(job)) ? this.retry(job) : false)) },
      delete: { text: t("queue.keys.cancel"), needs: STEERS, run: onRow((job) => (OVER.includes(job.state) ? false : this.cancel(job))) },
      up: { run: (event) => this.walk(event, -1) },
      down: { run: (event) => this.walk(event, 1) },
    });
    this.unwatch = context.jobs.watch((job, event) => this.changed(job, event));
    context.listen((event) => this.heard(event));
    this.clock = setInterval(() => this.tick(), 1000);
    this.draw();
    this.load();
  }

  build() {
    const { t } = this;
    this.summary = h("p", { class: "soft small number", role: "status" });
    this.rest_ = h("button", { type: "button", data: { needs: "manage" }, on: { click: () => this.restAll() } });
    const more = h("button", { type: "button", class: "quiet square", aria: { label: t("queue.more") }, title: t("queue.more") }, icon("more"));
    this.notice = h("div", { class: "notice is-unusual", hidden: true }, icon("pause"), h("span", { class: "grow", text: t("queue.paused") }),
      h("button", { type: "button", class: "main", data: { needs: "manage" }, text: t("queue.resume.all"), on: { click: () => this.restAll() } }));
    this.lists = Object.fromEntries(["running", "waiting", "history"].map((name) => [name, h("ol", { class: "jobs", aria: { label: t(`queue.${name}`) } })]));
    this.heads = Object.fromEntries(["running", "waiting", "history"].map((name) => [name, h("h2", { class: "queue-head", text: t(`queue.${name}`) })]));
    this.tabs = h("div", { class: "tabs", role: "group" });
    this.message = h("div", {});
    this.end = h("div", { class: "queue-end" });
    put(this.element, [
      h("div", { class: "room-bar" }, h("h1", { class: "unseen", text: t("room.queue") }), this.summary, h("span", { class: "grow" }), this.rest_, h("span", { class: "narrow-box", data: { needs: STEERS } }, more)),
      h("div", { class: "queue-page scrolls" }, h("div", { class: "queue-sheet" }, this.notice, this.message,
        this.heads.running, this.lists.running, this.heads.waiting, this.lists.waiting,
        h("div", { class: "queue-history-head" }, this.heads.history, this.tabs), this.lists.history, this.end)),
    ]);
    this.page = this.element.querySelector(".queue-page");
    menu(more, () => [{ text: t("queue.clear"), icon: "close", run: () => this.cancelAll() }], { side: "end", label: t("queue.more") });
    this.lists.waiting.addEventListener("pointerdown", (event) => this.grab(event));
    this.element.addEventListener("focusin", (event) => this.rove(event));
    this.watcher = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.older(), { root: this.page, rootMargin: "400px" });
    this.watcher.observe(this.end);
  }

  // ---------------------------------------------------------------------------------------------------- what there is

  async load() {
    const { api, jobs, complain } = this.context;
    try {
      this.setPaused((await api.get("/api/queue")).paused);
      let before;
      do {
        const page = await api.get("/api/jobs", { state: ["waiting", "paused", "running"], limit: OPEN_PAGE, before });
        for (const job of page.items) jobs.take(job);
        before = page.next;
      } while (before && this.element.isConnected);
    } catch (error) {
      fill(this.message, troubled(this.context.saying(error), () => { fill(this.message); this.load(); }));
      return;
    }
    this.loaded = true;
    this.draw();
    await this.older().catch(complain);
  }

  /** Fetch the next page of what is over. */
  async older() {
    if (this.fetching || this.next === null || !this.loaded) return;
    this.fetching = true;
    const only = this.only;
    try {
      const page = await this.context.api.get("/api/jobs", { state: only ? [only] : OVER, limit: PAGE, before: this.next });
      if (only !== this.only) return;
      for (const job of page.items) this.ended.set(job.id, job);
      this.next = page.next ?? null;
    } catch (error) {
      this.next = null;
      fill(this.end, troubled(this.context.saying(error), () => { this.next = undefined; fill(this.end); this.older(); }));
      return;
    } finally {
      this.fetching = false;
    }
    this.drawHistory();
    // The end may still be in sight: the observer only tells when that changes.
    if (this.next && this.end.getBoundingClientRect().top < innerHeight + 400) this.older();
  }

  show(only) {
    this.only = only;
    this.context.store.set("only", only);
    this.ended.clear();
    this.next = undefined;
    this.drawHistory();
    this.older();
  }

  waiting() {
    return this.context.jobs.open().filter((job) => job.state !== "running");
  }

  changed(job, event) {
    if (job && this.dragging?.id === job.id && !WAITS.includes(job.state)) this.dragging.leave(); // it has no place in the line any more
    if (job && OVER.includes(job.state)) {
      if (!this.only || this.only === job.state) this.ended.set(job.id, job);
      this.pace.forget(job);
    } else if (job) this.ended.delete(job.id);
    if (event?.kind === "step" && job) {
      this.pace.hear(job, event);
      return this.redraw(job);
    }
    this.soon ||= requestAnimationFrame(() => {
      this.soon = 0;
      this.draw();
    });
  }

  heard(event) {
    if (event.kind === "preview" && event.job) this.look(event.job);
    if (event.kind === "changed") {
      if (!event.job) this.setPaused(event.what === "paused");
      else {
        clearTimeout(this.again);
        this.again = setTimeout(() => this.context.jobs.refresh(), 150);
      }
    }
  }

  /** Look at a job's newest preview, not more often than it helps. */
  look(id) {
    const now = performance.now();
    if (now - (this.previews.get(id) ?? 0) < PREVIEW_EVERY) return;
    this.previews.set(id, now);
    const picture = this.rows.get(id)?.querySelector(".job-picture img");
    const fresh = new Image();
    fresh.src = `/api/jobs/${id}/preview?at=${Math.round(now)}`;
    fresh.decode().then(() => {
      if (picture?.isConnected) picture.src = fresh.src;
      else this.rows.get(id)?.querySelector(".job-picture")?.replaceChildren(h("img", { src: fresh.src, alt: titleOf(this.context.jobs.get(id)) }));
    }, () => { /* the job may be over by now, and its preview gone */ });
  }

  setPaused(paused) {
    this.paused = Boolean(paused);
    this.notice.hidden = !this.paused;
    fill(this.rest_, icon(this.paused ? "play" : "pause"), h("span", { text: this.t(this.paused ? "queue.resume.all" : "queue.pause.all") }));
  }

  // ---------------------------------------------------------------------------------------------------- what is drawn

  draw() {
    if (this.dragging) return;
    const open = this.context.jobs.open();
    const running = open.filter((job) => job.state === "running");
    const waiting = open.filter((job) => job.state !== "running");
    this.setPaused(this.paused);
    this.summary.textContent = this.t("queue.summary", { running: number(running.length), waiting: number(waiting.length) });
    this.heads.running.hidden = this.lists.running.hidden = !running.length;
    this.heads.waiting.hidden = this.lists.waiting.hidden = !waiting.length;
    this.list(this.lists.running, running);
    this.list(this.lists.waiting, waiting);
    this.drawHistory();
    if (this.loaded) fill(this.message, !open.length && nothing(this.t("queue.empty"), [{ text: this.t("queue.empty.make"), main: true, needs: "generate", run: () => this.context.go("make") }]));
  }

  drawHistory() {
    const jobs = [...this.ended.values()].sort((a, b) => (b.ended ?? b.created) - (a.ended ?? a.created));
    fill(this.tabs, [["", "queue.all"], ["failed", "queue.failed"]].map(([name, text]) => h("button", {
      type: "button", class: "tab", aria: { pressed: String(this.only === name) }, text: this.t(text), on: { click: () => this.show(name) },
    })));
    this.list(this.lists.history, jobs);
    if (this.next === null && !jobs.length) fill(this.end, h("p", { class: "soft small", text: this.t(this.only ? "queue.history.failed.none" : "queue.history.none") }));
    else if (!this.end.querySelector(".is-trouble")) fill(this.end);
  }

  /** Put the rows of jobs into a list, keeping those that are as they were. */
  list(place, jobs) {
    // Elements that are put elsewhere lose the focus, and with it the place where somebody is.
    const before = place.contains(document.activeElement) && document.activeElement;
    const own = before && before.closest(".job").dataset.id;
    const wanted = jobs.map((job) => this.row(job));
    const kept = new Set(wanted);
    for (const row of [...place.children]) if (!kept.has(row)) row.remove();
    wanted.forEach((row, index) => {
      if (place.children[index] !== row) place.insertBefore(row, place.children[index] ?? null);
    });
    if (own && !place.contains(document.activeElement)) (before.isConnected ? before : this.rows.get(own)?.isConnected && this.rows.get(own))?.focus?.({ preventScroll: true });
    for (const row of place.children) if (row.tabIndex === 0) return;
    if (place.firstChild) place.firstChild.tabIndex = 0;
  }

  row(job) {
    const key = JSON.stringify([job.state, job.cancelling, job.title, job.priority, job.attempt, job.error, job.ended, job.started, job.after, document.documentElement.lang]);
    const known = this.rows.get(job.id);
    if (known?.key === key) {
      this.progress(known, job);
      return known;
    }
    const row = this.build_(job);
    row.key = key;
    if (known) {
      row.tabIndex = known.tabIndex;
      const focused = known.contains(document.activeElement);
      if (known.isConnected) known.replaceWith(row);
      if (focused) row.focus({ preventScroll: true });
    }
    this.rows.set(job.id, row);
    this.progress(row, job);
    return row;
  }

  redraw(job) {
    const row = this.rows.get(job.id);
    if (row?.isConnected && row.dataset.state === job.state) this.progress(row, job);
    else this.draw();
  }

  build_(job) {
    const { t } = this;
    const title = titleOf(job);
    const waits = job.state === "waiting" || job.state === "paused";
    const act = (name, drawing, run, { text = false, needs = STEERS } = {}) => h("button", {
      type: "button", class: ["quiet", !text && "square"], data: needs && { needs }, title: t(name), aria: { label: text ? null : `${t(name)}: ${title}` }, on: { click: run },
    }, icon(drawing), text && h("span", { text: t(name) }));
    const recipe = job.recipe;
    const model = recipe?.model?.name;
    const facts = [
      model, recipe?.size && `${recipe.size.width} × ${recipe.size.height}`, recipe?.count > 1 && t("queue.count", { n: number(recipe.count) }),
      job.kind !== "make" && title !== t(`job.kind.${job.kind}`, {}, job.kind) && t(`job.kind.${job.kind}`, {}, job.kind),
      job.attempt > 1 && t("queue.attempt", { n: job.attempt }), waits && job.after?.length > 0 && t("queue.after"),
      job.priority !== 0 && `${t("queue.priority")}: ${t(job.priority > 0 ? "queue.priority.high" : "queue.priority.low")}`,
      this.context.me?.scopes?.includes("admin") && job.owner !== this.context.me.name && job.owner,
    ].filter(Boolean);
    const more = waits && h("button", { type: "button", class: "quiet square", title: t("queue.more"), aria: { label: `${t("queue.more")}: ${title}` } }, icon("more"));
    const row = h("li", { class: "job", tabindex: "-1", data: { id: job.id, state: job.state }, aria: { label: `${title}, ${t(`queue.state.${job.state}`)}` } },
      waits ? [h("span", { class: "job-sign", data: { without: STEERS }, aria: { hidden: "true" } }), h("span", { class: "job-grip", data: { needs: STEERS }, title: t("queue.grip"), aria: { hidden: "true" } }, icon("grip"))] : h("span", { class: `job-sign is-${job.state}`, aria: { hidden: "true" } }, SIGNS[job.state] && icon(SIGNS[job.state], 14)),
      this.picture(job),
      h("div", { class: "job-words" }, h("p", { class: "job-title cut", text: title, title }), h("p", { class: "job-facts cut soft", text: facts.join(" · "), title: facts.join(" · ") }),
        job.state === "failed" && h("p", { class: "job-why" }, h("strong", { text: job.error?.what ?? "" }), job.error?.remedy && h("span", { text: ` ${job.error.remedy}` }))),
      h("span", { class: "job-time soft number" }),
      h("span", { class: "job-acts" },
        waits && act(job.state === "paused" ? "queue.resume" : "queue.pause", job.state === "paused" ? "play" : "pause", () => this.rest(job)),
        waits && more && h("span", { class: "narrow-box" }, more),
        (job.state === "failed" || job.state === "cancelled") && act("queue.retry", "reuse", () => this.retry(job), { text: true, needs: begins(job) }),
        job.state === "done" && job.kind === "make" && act("queue.open", "right", () => this.open(job), { needs: null }),
        (waits || job.state === "running") && act("queue.cancel", "close", () => this.cancel(job))),
      job.state === "running" && h("progress", { class: "job-progress", aria: { label: title } }));
    if (more) menu(more, () => this.choices(this.context.jobs.get(job.id) ?? job), { side: "end", label: t("queue.more") });
    return row;
  }

  choices(job) {
    const { t } = this;
    const { may } = this.context;
    const copied = { text: t("queue.copy"), icon: "copy", run: () => this.context.copy(job.id) };
    if (!may(STEERS)) return [copied];
    return [
      { text: t("queue.first"), icon: "up", run: () => this.place(job, 0) },
      { text: t("queue.up"), key: "Alt ↑", icon: "up", run: () => this.nudge(job, -1) },
      { text: t("queue.down"), key: "Alt ↓", icon: "chevron", run: () => this.nudge(job, 1) },
      "-",
      { title: t("queue.priority") },
      ...[...(may("manage") ? [["high", 1]] : []), ["normal", 0], ["low", -1]].map(([name, value]) => ({ text: t(`queue.priority.${name}`), checked: Math.sign(job.priority) === value, run: () => this.prioritise(job, value) })),
      "-",
      copied,
    ];
  }

  /** The picture of a job; what it shows stands beside it, and is not said twice. */
  picture(job) {
    if (job.kind !== "make") return h("span", { class: "job-picture is-drawn" }, endpaper("other", job.id));
    const address = job.state === "done" ? this.context.api.address(`/api/outputs/${job.id}-0/thumbnail`, { size: 256 }) : "";
    return h("span", { class: "job-picture", aria: { hidden: "true" } }, address ? h("img", { src: address, alt: titleOf(job), loading: "lazy", decoding: "async", on: { error: (event) => event.target.remove() } }) : icon("picture"));
  }

  /** What changes while a job runs: how far it is, and how long it takes. */
  progress(row, job) {
    const { t } = this;
    const time = row.querySelector(".job-time");
    let text = "";
    if (job.state === "running") {
      const { phase, done = 0, total = 0 } = job.progress ?? {};
      const bar = row.querySelector("progress");
      const images = job.recipe?.count ?? 1;
      const share = phase === "sample" && total ? ((job.progress.image ?? 0) + done / total) / Math.max(images, (job.progress.image ?? 0) + 1) : total ? done / total : null;
      if (bar && share !== null) {
        bar.max = 1;
        bar.value = share;
      } else bar?.removeAttribute("value");
      const left = this.pace.left(job);
      const shown = total > 100_000 ? bytes : number;
      text = [
        job.cancelling ? t("queue.stopping") : phase && t(`queue.phase.${phase}`, { done: shown(done), total: shown(total) }, total ? `${phase} ${shown(done)} / ${shown(total)}` : phase),
        left !== null && !job.cancelling && t("queue.left", { time: duration(Math.max(0.1, left)) }),
      ].filter(Boolean).join(" · ");
    } else if (job.state === "waiting" || job.state === "paused") text = job.state === "paused" ? t("queue.state.paused") : moment(job.created);
    else text = [job.ended && moment(job.ended), job.started && job.ended && job.state === "done" && duration(job.ended - job.started)].filter(Boolean).join(" · ");
    if (time.textContent !== text) time.textContent = text;
  }

  tick() {
    for (const job of this.context.jobs.open()) {
      const row = this.rows.get(job.id);
      if (row?.isConnected && job.state === "running") this.progress(row, job);
    }
  }

  // ------------------------------------------------------------------------------------------------------- the order

  jobOf(target) {
    const id = target.closest?.("[data-id]")?.dataset.id;
    return id && (this.context.jobs.get(id) ?? this.ended.get(id));
  }

  rove(event) {
    const row = event.target.closest(".job");
    if (!row) return;
    for (const other of row.parentElement.children) other.tabIndex = other === row ? 0 : -1;
  }

  walk(event, step) {
    const row = event.target.closest?.(".job");
    if (!row || event.target !== row) return false;
    const rows = [...this.element.querySelectorAll(".job")];
    rows[rows.indexOf(row) + step]?.focus();
  }

  nudge(job, step) {
    const at = this.waiting().findIndex((each) => each.id === job.id);
    if (at < 0) return false;
    return this.place(job, at + step);
  }

  /** Give a waiting job the place `to` of those that wait: at once on the page, then on the server. */
  async place(job, to) {
    const { api, jobs, say, complain } = this.context;
    const others = this.waiting().filter((each) => each.id !== job.id);
    const at = Math.max(0, Math.min(to, others.length));
    const [prior, next] = [others[at - 1], others[at]];
    const position = next ? (prior && prior.priority === next.priority ? (prior.position + next.position) / 2 : next.position - 0.5) : (prior?.position ?? job.position) + 1;
    const focused = this.rows.get(job.id)?.contains(document.activeElement);
    jobs.put({ id: job.id, position, priority: (next ?? prior ?? job).priority });
    this.draw();
    const row = this.rows.get(job.id);
    if (focused) row?.focus();
    row?.scrollIntoView({ block: "nearest" });
    say(this.t("queue.moved", { title: titleOf(job), n: number(at + 1), total: number(others.length + 1) }));
    try {
      jobs.take(await api.post(`/api/jobs/${job.id}/move`, { before: next?.id ?? null }));
    } catch (error) {
      complain(error);
      jobs.refresh();
    }
  }

  /** Dragging by the grip: the others make room, and letting go gives the job its place. */
  grab(event) {
    const grip = event.target.closest(".job-grip");
    const row = grip?.closest(".job");
    if (!row || event.button) return;
    event.preventDefault();
    const job = this.jobOf(row);
    const list = this.lists.waiting;
    const rows = [...list.children];
    const from = rows.indexOf(row);
    const tops = rows.map((each) => each.offsetTop + each.offsetHeight / 2);
    const high = row.offsetHeight;
    const begun = { y: event.clientY, scroll: this.page.scrollTop };
    let to = from;
    let pointer = event.clientY;
    let scrolling = 0;
    this.dragging = { id: job.id, leave: () => end(null) };
    row.classList.add("is-dragged");
    list.classList.add("is-sorting");
    grip.setPointerCapture(event.pointerId);
    const follow = () => {
      const moved = pointer - begun.y + this.page.scrollTop - begun.scroll;
      row.style.transform = `translateY(${moved}px)`;
      const middle = tops[from] + moved;
      // A row makes room once the edge that comes towards it has passed its middle.
      to = tops.filter((top, index) => index !== from && top < middle + (index < from ? -high / 2 : high / 2)).length;
      rows.forEach((other, index) => {
        if (other === row) return;
        const place = index > from ? index - 1 : index;
        const shifted = place >= to ? place + 1 : place;
        other.style.transform = shifted === index ? "" : `translateY(${(shifted - index) * high}px)`;
      });
    };
    const scroll = () => {
      const box = this.page.getBoundingClientRect();
      const speed = pointer < box.top + EDGE ? pointer - box.top - EDGE : pointer > box.bottom - EDGE ? pointer - box.bottom + EDGE : 0;
      if (speed) {
        this.page.scrollTop += speed / 4;
        follow();
      }
      scrolling = requestAnimationFrame(scroll);
    };
    const move = (moving) => {
      pointer = moving.clientY;
      follow();
    };
    const end = (ended) => {
      cancelAnimationFrame(scrolling);
      for (const name of ["pointermove", "pointerup", "pointercancel"]) grip.removeEventListener(name, name === "pointermove" ? move : end);
      removeEventListener("keydown", leave, true);
      for (const other of rows) other.style.transform = "";
      row.classList.remove("is-dragged");
      list.classList.remove("is-sorting");
      this.dragging = null;
      if (ended?.type === "pointerup" && to !== from) this.place(job, to);
      else this.draw();
    };
    const leave = (key) => {
      if (key.key === "Escape") {
        key.stopPropagation();
        end(null);
      }
    };
    grip.addEventListener("pointermove", move);
    grip.addEventListener("pointerup", end);
    grip.addEventListener("pointercancel", end);
    addEventListener("keydown", leave, true);
    scrolling = requestAnimationFrame(scroll);
  }

  // ---------------------------------------------------------------------------------------------------- what is done

  async act(job, verb, body) {
    try {
      return this.context.jobs.take(await this.context.api.post(`/api/jobs/${job.id}/${verb}`, body));
    } catch (error) {
      this.context.complain(error);
      this.context.jobs.refresh();
      return null;
    }
  }

  rest(job) {
    if (job.state !== "waiting" && job.state !== "paused") return false;
    const verb = job.state === "paused" ? "resume" : "pause";
    this.context.jobs.put({ id: job.id, state: verb === "pause" ? "paused" : "waiting" });
    return this.act(job, verb);
  }

  async restAll() {
    const verb = this.paused ? "resume" : "pause";
    this.setPaused(!this.paused);
    try {
      await this.context.api.post(`/api/queue/${verb}`);
    } catch (error) {
      this.setPaused(!this.paused);
      this.context.complain(error);
    }
  }

  cancel(job) {
    const row = this.rows.get(job.id);
    const next = row?.contains(document.activeElement) && (row.nextElementSibling ?? row.previousElementSibling);
    const cancelled = cancel(this.context, job);
    if (next) next.focus();
    return cancelled;
  }

  async cancelAll() {
    const jobs = this.waiting();
    await Promise.all(jobs.map((job) => this.act(job, "cancel")));
    this.context.toast({ text: this.t("queue.cleared", { n: number(jobs.length) }), undo: async () => {
      for (const job of jobs) {
        await this.retry(job);
        if (job.state === "paused") await this.act(job, "pause");
      }
    } });
  }

  retry(job) {
    const now = this.context.jobs.get(job.id) ?? this.ended.get(job.id) ?? job;
    return now.cancelling || now.state === "failed" || now.state === "cancelled" ? retry(this.context, now) : false;
  }

  async prioritise(job, priority) {
    try {
      this.context.jobs.take(await this.context.api.patch(`/api/jobs/${job.id}`, { priority }));
    } catch (error) {
      this.context.complain(error);
    }
  }

  open(job) {
    this.context.go("gallery", { output: `${job.id}-0` });
  }

  close() {
    clearInterval(this.clock);
    clearTimeout(this.again);
    cancelAnimationFrame(this.soon);
    this.watcher.disconnect();
    this.unwatch();
  }
}

const SIGNS = { done: "check", failed: "warn", cancelled: "close" };
