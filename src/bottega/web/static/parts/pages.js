// The items of a long list, fetched page by page as they come near the screen, in any order.

const IN_FLIGHT = 3; // requests at a time: more would make the one that is looked at wait
const KEPT = 60; // pages; the ones longest out of sight are forgotten first

export class Pages {
  /**
   * @param {(offset: number, limit: number, signal: AbortSignal) => Promise<{items: object[], total: number}>} load
   * @param {(first: number, last: number) => void} arrived  called when items first..last (exclusive) are there
   * @param {{size?: number, failed?: (error: Error) => void}} options  items in a page; what to do when one is not had
   */
  constructor(load, arrived, { size = 100, failed = () => {} } = {}) {
    Object.assign(this, { load, arrived, size, failed, total: null });
    this.pages = new Map();
    this.flights = new Map();
    this.wanted = [0, 0];
  }

  /** The item at this place of the list; undefined while it is not here. */
  at(index) {
    return this.pages.get(Math.floor(index / this.size))?.[index % this.size];
  }

  /** Change the item at this place of the list, where it is here. */
  put(index, item) {
    const page = this.pages.get(Math.floor(index / this.size));
    if (page && index % this.size < page.length) page[index % this.size] = item;
  }

  /** Every item that is here, with its place. */
  *here() {
    for (const [number, page] of this.pages) {
      for (const [offset, item] of page.entries()) yield [number * this.size + offset, item];
    }
  }

  /** The place of the first item here that `test` finds; -1 if there is none. */
  find(test) {
    for (const [index, item] of this.here()) if (test(item)) return index;
    return -1;
  }

  /** Fetch what is missing of first..last (exclusive), and stop fetching what is far from it; resolves when no fetch goes on. */
  want(first, last) {
    this.wanted = [Math.floor(first / this.size), Math.floor(Math.max(first, last - 1) / this.size)];
    for (const [number, flight] of this.flights) {
      if (number < this.wanted[0] - 1 || number > this.wanted[1] + 1) flight.abort();
    }
    this.#fly();
    return Promise.all([...this.flights.values()].map((flight) => flight.over));
  }

  /** Take items out of the list; those that come after them move up. Pages that are not whole any more go. */
  remove(places) {
    const items = new Map([...this.here()].filter(([index]) => !places.has(index)));
    const gone = [...places].sort((a, b) => a - b);
    this.pages.clear();
    this.total -= gone.length;
    const moved = new Map();
    let before = 0;
    for (const index of [...items.keys()].sort((a, b) => a - b)) {
      while (before < gone.length && gone[before] < index) before += 1;
      moved.set(index - before, items.get(index));
    }
    for (let number = 0; number * this.size < this.total; number++) {
      const wanted = Math.min(this.size, this.total - number * this.size);
      const page = Array.from({ length: wanted }, (_, offset) => moved.get(number * this.size + offset));
      if (page.every(Boolean)) this.pages.set(number, page);
    }
  }

  /** Forget every item, and what was on its way. */
  clear() {
    for (const flight of this.flights.values()) flight.abort();
    this.flights.clear();
    this.pages.clear();
    this.total = null;
  }

  #fly() {
    const [first, last] = this.wanted;
    for (let number = first; number <= last && this.flights.size < IN_FLIGHT; number++) {
      const past = this.total !== null && number * this.size >= this.total && number > 0;
      if (!past && !this.pages.has(number) && !this.flights.has(number)) this.#fetch(number);
    }
  }

  async #fetch(number) {
    const flight = new AbortController();
    const { promise, resolve } = Promise.withResolvers();
    flight.over = promise;
    this.flights.set(number, flight);
    let told;
    try {
      told = await this.load(number * this.size, this.size, flight.signal);
    } catch (error) {
      if (!flight.signal.aborted) this.failed(error);
      return;
    } finally {
      if (this.flights.get(number) === flight) this.flights.delete(number);
      resolve();
    }
    if (flight.signal.aborted) return;
    this.pages.set(number, told.items);
    this.total = told.total;
    this.#forget();
    this.arrived(number * this.size, number * this.size + told.items.length);
    this.#fly();
  }

  #forget() {
    const [first, last] = this.wanted;
    for (const number of this.pages.keys()) {
      if (this.pages.size <= KEPT) return;
      if (number < first - 2 || number > last + 2) this.pages.delete(number);
    }
  }
}
