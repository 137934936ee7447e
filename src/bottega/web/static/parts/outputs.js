// What is done to outputs, told to every room and tab of this browser: each shows them, and none is open for long.

/** Deletes and restores outputs. `watch(run)` hears `{gone: ids}`, `{back: ids}`, or `{}` where another tab changed some. */
export class Outputs {
  constructor(api) {
    this.api = api;
    this.watchers = new Set();
    this.tabs = new BroadcastChannel("bottega.outputs");
    this.tabs.onmessage = ({ data }) => this._tell(data);
  }

  watch(run) {
    this.watchers.add(run);
    return () => this.watchers.delete(run);
  }

  async delete(ids) {
    await this.api.post("/api/outputs/delete", { ids });
    this._happened({ gone: ids });
  }

  async restore(ids) {
    await this.api.post("/api/outputs/restore", { ids });
    this._happened({ back: ids });
  }

  /** Tells the other tabs that something is said of outputs now; the room that said it knows. */
  changed() { this.tabs.postMessage({}); }

  _happened(what) {
    this.tabs.postMessage(what);
    this._tell(what);
  }

  _tell(what) {
    for (const run of [...this.watchers]) run(what);
  }
}
