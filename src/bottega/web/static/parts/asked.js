// What somebody typed into a search field, as words and as `name:value` wishes: cat model:dream seed:7 since:2026-01-31

const TOKEN = /(^|\s)([a-z][a-z0-9_.]*):("[^"]*"|\S+)/gi;

/**
 * The words and wishes of a text. Only names that are `known` are wishes: `(cat:1.2)` stays a text.
 *
 * @returns {{text: string, wishes: Map<string, string>}}
 */
export function asked(typed, known) {
  const wishes = new Map();
  const text = typed.replace(TOKEN, (whole, before, name, value) => {
    const folded = name.toLowerCase();
    if (!known.has(folded)) return whole;
    wishes.set(folded, value.replace(/^"|"$/g, ""));
    return before;
  });
  return { text: text.trim().replace(/\s+/g, " "), wishes };
}

/** The text with one wish set, changed or (an empty value) taken out. */
export function withWish(typed, name, value) {
  const own = new RegExp(`(^|\\s)${name}:("[^"]*"|\\S+)`, "i");
  const said = value && `${name}:${/\s/.test(value) ? `"${value}"` : value}`;
  const rest = own.test(typed) ? typed.replace(own, said ? `$1${said}` : "$1") : [typed, said].filter(Boolean).join(" ");
  return rest.trim().replace(/\s+/g, " ");
}
