// What is known here of this owner's jobs: a copy of the server's list that follows the stream of events.

import { addWords, t } from "../words.js";

addWords({
  en: {
    "job.cancelled": "Cancelled: {title}", "job.untitled": "No words",
    "job.kind.scan": "Scan of the shelves", "job.kind.get": "Get a model", "job.kind.convert": "Convert a model", "job.kind.merge": "Merge models", "job.kind.hash": "Hash a model", "job.kind.make": "Make", "job.kind.train": "Training",
  },
  zh: {
    "job.cancelled": "已取消：{title}", "job.untitled": "没有文字",
    "job.kind.scan": "扫描模型文件夹", "job.kind.get": "获取模型", "job.kind.convert": "转换模型", "job.kind.merge": "合并模型", "job.kind.hash": "计算哈希值", "job.kind.make": "创作", "job.kind.train": "训练",
  },
});

const OPEN = new Set(["waiting", "paused", "running"]);
const OVER = new Set(["done", "result", "failed", "cancelled"]); // the events after which a job is over
const PASSING = new Set(["step", "learned", "preview"]); // and those that an answer need not know of

/** Jobs by id. `watch(run)` hears `(job, event)` after every change; `event` is null where a list came in. */
export class Jobs {
  constructor(api, stream) {
    this.api = api;
    this.known = new Map();
    this.watchers = new Set();
    this.sent = new Set(); // what was handed in and not answered yet
    this.asking = new Map(); // jobs that the server is asked for, and what was heard of them before they were known
    this.heard = new Map(); // the number of the last event of each job that told more than how far it is
    this.ready = new Promise((resolve) => { this._ready = resolve; });
    stream.listen((event) => this._hear(event));
    stream.onState((state) => { if (state === "open") this.refresh(); }); // once more: between the two, something may have happened
    this.refresh();
  }

  watch(run) {
    this.watchers.add(run);
    return () => this.watchers.delete(run);
  }

  get(id) { return this.known.get(id); }

  /** Jobs that still wait, rest or run, in the order in which they will be done. */
  open() {
    return [...this.known.values()].filter((job) => OPEN.has(job.state)).sort(inOrder);
  }

  /** Takes in a job as a request was answered; where events have overtaken the answer, what is known stays, and the server is asked again. */
  take(job) {
    const known = this.known.get(job.id);
    const late = (this.heard.get(job.id) ?? 0) > job.seen;
    if (late) this.ask(job.id);
    return known && (late || known.seen > job.seen) ? known : this.put(job);
  }

  /** Asks the server for one job; `heard` are events that nobody could be told of yet, as it was not known. */
  async ask(id, heard = []) {
    if (this.asking.has(id)) return;
    this.asking.set(id, heard);
    let job;
    try {
      await Promise.allSettled([...this.sent]); // it may be one of ours, whose answer an event has overtaken
      job = await this.api.get(`/api/jobs/${id}`);
    } catch { return; } finally { this.asking.delete(id); } // it is gone again
    this.take(job);
    this._catchUp(id, heard);
  }

  /** Tells what was heard of a job before it was known. */
  _catchUp(id, heard) {
    for (const event of heard.splice(0)) if (!PASSING.has(event.kind)) this._tell(this.known.get(id), event);
  }

  /** Changes what is known of a job. */
  put(job, event = null) {
    const isNew = !this.known.has(job.id);
    this.known.set(job.id, { ...this.known.get(job.id), ...job });
    this._tell(this.known.get(job.id), event);
    if (isNew) this._catchUp(job.id, this.asking.get(job.id) ?? []);
    return this.known.get(job.id);
  }

  /**
   * Hands a recipe in. It stands in the list at once, under an id of this page's own; `named(before, after)` is told
   * when the server has given it another one. Throws what the server says is wrong with it.
   */
  async send(recipe, shown, named = () => {}) {
    this.count = (this.count ?? 0) + 1;
    const id = `local${this.count}`;
    this.put({ id, local: true, kind: "make", state: "waiting", created: Date.now() / 1000, position: Infinity, priority: 0, recipe: shown });
    const sent = this.api.post("/api/jobs", { recipe }, { headers: { "Idempotency-Key": key() } });
    this.sent.add(sent);
    try {
      const job = await sent;
      this.known.delete(id);
      named(id, job.id);
      return this.take(job);
    } catch (error) {
      this.drop(id);
      throw error;
    } finally {
      this.sent.delete(sent);
    }
  }

  /** Resolves with what is known of a job once it is over. */
  over(id) {
    return new Promise((resolve) => {
      const look = () => {
        const job = this.get(id);
        if (job && OPEN.has(job.state)) return;
        off();
        resolve(job);
      };
      const off = this.watch(look);
      look();
    });
  }

  /** Forgets a job that never came to be. */
  drop(id) {
    const job = this.known.get(id);
    this.known.delete(id);
    this._tell(job, { kind: "dropped" });
  }

  /** Asks the server for the open jobs; those that ended while nobody listened are asked for one by one. */
  async refresh() {
    const listed = new Set();
    try {
      let before;
      do {
        const page = await this.api.get("/api/jobs", { state: [...OPEN], limit: 200, before });
        for (const job of page.items) {
          listed.add(job.id);
          this.take(job);
        }
        before = page.next;
        this._ready();
      } while (before);
    } catch { return; } // the stream tries again, and so will this
    const unheard = this.open().filter((job) => !listed.has(job.id) && !job.local);
    await Promise.all(unheard.map(async (job) => {
      try { this.take(await this.api.get(`/api/jobs/${job.id}`)); } catch { this.drop(job.id); }
    }));
    this._tell(null, null);
  }

  _tell(job, event) {
    for (const run of [...this.watchers]) run(job, event);
  }

  _hear(event) {
    if (!event.job) return;
    if (!PASSING.has(event.kind)) this.heard.set(event.job, Number(event.number));
    const job = this.known.get(event.job);
    if (job && (event.kind !== "changed" || event.what === "cancelling")) this.put({ id: event.job, ...changed(job, event) }, event);
    else if (!job && this.asking.has(event.job)) this.asking.get(event.job).push(event);
    // Somebody else's tab, or the command line, has queued or changed it: the server says what it is.
    else if (job || !OVER.has(event.kind)) this.ask(event.job, [event]);
  }
}

/** How fast jobs go, from their steps as they come: of a recipe for several pictures all count, of other work one phase. */
export class Pace {
  constructor() { this.known = new Map(); }

  /** Takes in a step of a job. */
  hear(job, event) {
    const { phase, done, total, image = 0 } = event;
    const makes = job.kind === "make";
    if (!total || (makes && phase !== "sample")) return;
    const all = total * (makes ? job.recipe?.count ?? 1 : 1);
    const now = makes ? image * total + done : done;
    const known = this.known.get(job.id);
    if (!known || known.phase !== phase || now < known.done) this.known.set(job.id, { phase, from: now, since: event.at, done: now, all });
    else Object.assign(known, { done: now, all, last: event.at, heard: performance.now() });
  }

  /** Seconds that a job may still take; null while nobody knows. */
  left(job) {
    const known = this.known.get(job.id);
    if (!known?.last || known.done - known.from < 2) return job.eta ?? null;
    const each = (known.last - known.since) / (known.done - known.from);
    return Math.max(0, (known.all - known.done) * each - (performance.now() - known.heard) / 1000);
  }

  forget(job) { this.known.delete(job.id); }
}

/** What a job is called. */
export function titleOf(job) {
  if (job.kind === "make") return job.title || job.recipe?.prompt || t("job.untitled");
  return job.kind !== "scan" && job.title ? job.title : t(`job.kind.${job.kind}`, {}, job.kind);
}

/** The scope that it takes to begin a job like this one. */
export const begins = (job) => (job.kind === "make" ? "generate" : "manage");

/** Cancels a job: at once on the page, then on the server. Whoever may begin it can have it back. */
export async function cancel(context, job) {
  const { api, jobs, may, toast, complain } = context;
  if (jobs.get(job.id)?.cancelling) return;
  // Also one that waits is marked: the server may have begun it by now, and it stops only once that is told.
  jobs.put({ id: job.id, cancelling: true, ...(job.state !== "running" && { state: "cancelled", ended: Date.now() / 1000 }) });
  try {
    jobs.take(await api.post(`/api/jobs/${job.id}/cancel`));
  } catch (error) {
    complain(error);
    jobs.refresh();
    return;
  }
  toast({ text: t("job.cancelled", { title: titleOf(job) }), undo: may(begins(job)) && (() => restore(context, job)) });
}

/** Has a cancelled job be what it was. */
async function restore(context, job) {
  await retry(context, job);
  if (job.state === "paused") context.jobs.take(await context.api.post(`/api/jobs/${job.id}/pause`));
}

/** Has a job wait again that failed or was cancelled; one that is still stopping, once it has stopped. */
export async function retry({ api, jobs, complain }, job) {
  const now = jobs.get(job.id) ?? job;
  const { state } = now.cancelling ? await jobs.over(job.id) ?? job : now;
  if (state !== "failed" && state !== "cancelled") return;
  try {
    jobs.take(await api.post(`/api/jobs/${job.id}/retry`));
  } catch (error) {
    complain(error);
    jobs.refresh();
  }
}

const key = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const inOrder = (one, other) =>
  (other.state === "running") - (one.state === "running") || other.priority - one.priority || one.position - other.position || one.created - other.created;

function changed(job, event) {
  switch (event.kind) {
    case "queued": return { state: "waiting", ahead: event.ahead };
    case "started": return { state: "running", started: job.started ?? event.at, progress: { phase: "load", done: 0, total: 0, image: 0 } };
    case "step": return { state: "running", progress: { phase: event.phase, done: event.done, total: event.total, image: event.image } };
    case "learned": return { state: "running", progress: { phase: "train", done: event.step, total: event.total, image: 0 } };
    case "done": return { state: "done", ended: event.at };
    case "result": return { state: "done", ended: event.at, result: event.data };
    case "failed": return { state: "failed", ended: event.at, error: { error: event.error, what: event.what, remedy: event.remedy } };
    case "cancelled": return { state: "cancelled", cancelling: false, ended: event.at };
    case "changed": return { cancelling: true };
    case "retried": return { state: "waiting", attempt: event.attempt, progress: null, cancelling: false, error: null };
    default: return {};
  }
}
