// The one stream of events that all rooms share: it reconnects by itself and goes on after the last number it saw.

import { parse } from "./exact.js";

const FIRST_WAIT = 500; // ms before the first new try; doubled up to the last
const LAST_WAIT = 10_000;

/** A stream of `path`; `listen(run)` hears every event as `{number, kind, ...data}`, `onState` "open" or "lost". */
export class Stream {
  constructor(path) {
    this.path = path;
    this.last = null;
    this.state = "new";
    this.listeners = new Set();
    this.watchers = new Set();
    this.ended = new AbortController();
    this.doubted = false;
    this.opened = new Promise((resolve) => { this._first = resolve; });
    this._run();
  }

  listen(run) {
    this.listeners.add(run);
    return () => this.listeners.delete(run);
  }

  onState(run) {
    this.watchers.add(run);
    return () => this.watchers.delete(run);
  }

  close() { this.ended.abort(); }

  /** Another request got no answer: a connection that is dead can look open for long, so it is made anew. */
  doubt() {
    if (this.state !== "open") return;
    this.doubted = true;
    this.reading.abort();
  }

  _become(state) {
    if (state === this.state) return;
    this.state = state;
    for (const run of this.watchers) run(state);
  }

  async _run() {
    let wait = FIRST_WAIT;
    while (!this.ended.signal.aborted) {
      try {
        await this._read(() => {
          if (!this.doubted) wait = FIRST_WAIT; // else it may be that other request alone which fails, again and again
          this.doubted = false;
        });
      } catch (error) {
        if (this.ended.signal.aborted) return;
        if (error.status === 401) { this._become("locked"); this._first(); return; }
      }
      this._become("lost");
      this._first();
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, LAST_WAIT);
    }
  }

  async _read(alive) {
    const headers = { Accept: "text/event-stream" };
    if (this.last !== null) headers["Last-Event-ID"] = this.last;
    this.reading = new AbortController();
    const answer = await fetch(this.path, { headers, signal: AbortSignal.any([this.ended.signal, this.reading.signal]), cache: "no-store" });
    if (!answer.ok) throw Object.assign(new Error("refused"), { status: answer.status });
    alive();
    this._become("open");
    this._first();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value.replaceAll("\r\n", "\n");
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) this._hear(part);
    }
  }

  _hear(part) {
    let kind = "message";
    let number = null;
    const data = [];
    for (const line of part.split("\n")) {
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "event") kind = value;
      else if (field === "id") number = value;
      else if (field === "data") data.push(value);
    }
    if (number !== null) this.last = number;
    if (!data.length) return;
    const event = { number, kind, ...parse(data.join("\n")) };
    for (const run of [...this.listeners]) run(event);
  }
}
