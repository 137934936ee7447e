// Short notices at the edge of the page; what can be undone can be undone there for ten seconds.

import { h } from "../dom.js";
import { t } from "../words.js";
import { icon } from "./icons.js";

const UNDO_FOR = 10_000; // ms
const SHOW_FOR = 5_000;

const closing = new WeakMap(); // how each notice is closed

/**
 * Shows a notice: `{text, undo?, done?, action?: {text, run}, kind?: "error"}`; the time stands still while it is touched.
 * `done` is for what could not be undone afterwards: it is called once the notice has gone, or the page is left, unless
 * somebody has pressed Undo.
 */
export function toast({ text, undo, done, action, kind = "" }) {
  const place = document.getElementById("toasts");
  const act = undo ? { text: t("frame.undo"), run: undo } : action;
  let left = act || kind === "error" ? UNDO_FOR : SHOW_FOR;
  let since = 0;
  let timer = 0;
  if (kind === "error") [...place.children].find((other) => other.firstChild.textContent === text)?.remove(); // it is told anew
  const close = () => {
    const last = done;
    done = null; // a notice that is taken away may lose the focus, and begin to wait anew
    clearTimeout(timer);
    removeEventListener("pagehide", close);
    notice.remove();
    last?.();
  };
  const hold = () => { clearTimeout(timer); left -= performance.now() - since; };
  const go = () => { since = performance.now(); timer = setTimeout(close, Math.max(left, 1000)); };
  const notice = h("div", { class: ["toast", kind], role: kind === "error" ? "alert" : "status", on: { pointerenter: hold, pointerleave: go, focusin: hold, focusout: go } },
    h("span", { class: "grow", text }),
    act && h("button", { type: "button", class: "link", text: act.text, on: { click: () => { if (undo) done = null; close(); act.run(); } } }),
    h("button", { type: "button", class: "quiet square", aria: { label: t("frame.close") }, on: { click: close } }, icon("close")));
  place.append(notice);
  closing.set(notice, close);
  if (done) addEventListener("pagehide", close);
  while (place.children.length > 4) closing.get(place.firstChild)();
  go();
  return close;
}
