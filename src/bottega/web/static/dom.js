// Builds elements from plain data: text is always text, so nothing that comes from a model or a prompt becomes markup,
// nor turns around what stands beside it.

const SVG = "http://www.w3.org/2000/svg";
// Control characters, and those that override, embed or isolate a direction: a name with them looks like another one.
const STEERING = /(?![\t\n\r])[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;
const READ = new Set(["title", "alt", "placeholder"]); // attributes that are shown or said

/** A text with what could steer it escaped, as the command line writes it. */
export function plainly(text) {
  return String(text).replace(STEERING, (one) => {
    const code = one.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
  });
}

/**
 * An element. In `told`, `class` and `text` are what they say, `on` maps events to listeners, `style` maps CSS
 * properties to values, `data` fills the dataset, `aria` the aria-* attributes; true makes a bare attribute, false,
 * null and undefined leave it out. Children may be elements, texts, arrays of such, or nothing.
 */
export function h(tag, told = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(told)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = Array.isArray(value) ? value.filter(Boolean).join(" ") : value;
    else if (name === "text") element.textContent = plainly(value);
    else if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (name === "style") paint(element, value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") for (const [key, said] of Object.entries(value)) {
      if (said !== undefined && said !== null) element.setAttribute(`aria-${key}`, plainly(said));
    }
    else if (name === "value" || name === "checked" || name === "disabled" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : READ.has(name) ? plainly(value) : String(value));
  }
  put(element, children);
  return element;
}

/** Sets CSS properties through the object model, which a strict content policy allows. */
export function paint(element, style) {
  for (const [name, value] of Object.entries(style)) {
    if (value === null || value === undefined) element.style.removeProperty(name);
    else element.style.setProperty(name, String(value));
  }
}

/** Appends children: elements, texts, arrays of such, or nothing. */
export function put(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : plainly(child));
  }
  return element;
}

/** Replaces all children. */
export function fill(element, ...children) {
  element.replaceChildren();
  return put(element, children);
}

/** An element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, String(value));
  }
  for (const child of children.flat()) if (child) element.append(child);
  return element;
}

let numbers = 0;
/** An id that no other element of the page has, to tie labels to fields. */
export function fresh(stem = "id") {
  numbers += 1;
  return `${stem}-${numbers}`;
}
