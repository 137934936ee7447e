// JSON whose seeds keep all their digits: one of 64 bits is more than a number of JavaScript's holds.

const SEEDS = new Set(["seed", "variation_seed"]);

const LONG = /"(?:variation_)?seed"\s*:\s*\d{16}/; // most answers hold none, and looking at every value takes long

/** What a JSON text says; a seed that is no exact number comes as a BigInt, where the browser tells how it was written. */
export const parse = (text) => (LONG.test(text) ? JSON.parse(text, exactly) : JSON.parse(text));

const exactly = (key, value, context) =>
  SEEDS.has(key) && typeof value === "number" && !Number.isSafeInteger(value) && /^\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;

/** JSON of a value that may hold such seeds. */
export const write = (value) => JSON.stringify(value, (key, one) => (typeof one === "bigint" ? JSON.rawJSON(String(one)) : one));
