// The page's drawings: lines of one weight on a grid of 16, in the colour of the text beside them; dots stand behind a bar.

import { svg } from "../dom.js";

const DRAWN = {
  chevron: "M4.500 6.500 8 10l3.500-3.500",
  close: "m4 4 8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  check: "m3.500 8.500 3 3 6-7",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10ZM10.700 10.700 14 14",
  filter: "M2.500 4.500h11M4.500 8h7M6.500 11.500h3",
  theme: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 2v12M8 5h4.500M8 8h6M8 11h4.500",
  more: "|M3.500 8h.01M8 8h.01M12.500 8h.01",
  dice: "M3 3h10v10H3z|M5.800 5.800h.01M10.200 10.200h.01M10.200 5.800h.01M5.800 10.200h.01M8 8h.01",
  reuse: "M3 7.500a5 5 0 0 1 8.700-3L13 6M13 3v3h-3M13 8.500a5 5 0 0 1-8.700 3L3 10M3 13v-3h3",
  swap: "M2.500 5.500h10M10 3l2.500 2.500L10 8M13.500 10.500h-10M6 8l-2.500 2.500L6 13",
  stop: "M4.500 4.500h7v7h-7z",
  picture: "M2.500 3h11v10h-11zM2.500 11l3.200-3.500 2.600 2.700 2-2 3.200 3|M10.500 6h.01",
  brush: "M13.300 2.700 7.500 8.500M6 9.200c1 0 1.900.8 1.900 1.900 0 1.700-1.600 2.400-5 2.200 1-.6 1.100-1.100 1.100-2.100 0-1.200.9-2 2-2Z",
  eraser: "m6 13-3.500-3.500 6.800-6.800 4 4L7 13zM5.700 6.300l4 4M6 13h7.500",
  undo: "M3.500 6.500h6a3.500 3.500 0 0 1 0 7H7M6 3.500l-3 3 3 3",
  redo: "M12.500 6.500h-6a3.500 3.500 0 0 0 0 7H9M10 3.500l3 3-3 3",
  invert: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 2v12M8 4l3.500 2M8 7l5.500 2M8 10l4 2",
  trash: "M3 4.500h10M6.500 4.500V3h3v1.500M4.300 4.500l.6 8.500h6.200l.6-8.500M6.700 7v3.500M9.300 7v3.500",
  download: "M8 2.500v7.500M5 7.200 8 10l3-2.800M3 13h10",
  compare: "M8 2v12M2.500 4h3.500v8H2.500zM10 4h3.500v8H10",
  wipe: "M2.500 3.500h11v9h-11zM8 1.500v13",
  side: "M2.500 3.500h4.700v9H2.500zM8.800 3.500h4.700v9H8.800z",
  recipe: "M4 2.500h8v11H4zM6 5.500h4M6 8h4M6 10.500h2.500",
  vary: "|M8 8h.01M5 3.500h.01M11 3.500h.01M3 8h.01M13 8h.01M5 12.500h.01M11 12.500h.01",
  copy: "M5.500 5.500h8v8h-8zM10.500 5.500v-3h-8v8h3",
  heart: "M8 13.200 2.900 8A3 3 0 0 1 7.200 3.800l.8.8.8-.8A3 3 0 0 1 13.100 8z",
  zoom: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10ZM10.700 10.700 14 14M7 5v4M5 7h4",
  fit: "M2.500 6V2.500H6M10 2.500h3.500V6M13.500 10v3.500H10M6 13.500H2.500V10",
  left: "m9.500 4-4 4 4 4",
  right: "m6.500 4 4 4-4 4",
  up: "m4 9.500 4-4 4 4",
  queue: "M3 4h10M3 8h10M3 12h6",
  warn: "M8 2.500 14 13H2zM8 6.500v3|M8 11.300h.01",
  star: "m8 2.300 1.700 3.600 3.900.5-2.900 2.700.8 3.900L8 11.100 4.500 13l.8-3.900L2.400 6.400l3.900-.5z",
  folder: "M2.500 4h4l1.300 1.500h5.700v7h-11z",
  pause: "M5.500 3.500v9M10.500 3.500v9",
  play: "M5 3.500v9l7-4.500z",
  grip: "|M6 4h.01M10 4h.01M6 8h.01M10 8h.01M6 12h.01M10 12h.01",
  link: "M6.500 9.500 9.500 6.500M7 5l1.500-1.500a2.800 2.800 0 0 1 4 4L11 9M9 11l-1.500 1.500a2.800 2.800 0 0 1-4-4L5 7",
  table: "M2.500 3.500h11v9h-11zM2.500 6.500h11M2.500 9.500h11M6.500 3.500v9",
  grid: "M2.500 2.500h4.700v4.700H2.500zM8.800 2.500h4.700v4.700H8.800zM2.500 8.800h4.700v4.700H2.500zM8.800 8.800h4.700v4.700H8.800z",
  gear: "M8 10.200a2.200 2.200 0 1 0 0-4.400 2.200 2.200 0 0 0 0 4.400ZM8 2v2M8 12v2M2 8h2M12 8h2M3.800 3.800l1.400 1.400M10.800 10.800l1.400 1.400M12.200 3.800l-1.400 1.400M5.200 10.800l-1.400 1.400",
};

/** The drawing of that name, hidden from screen readers: what it stands for is said beside it. */
export function icon(name, size = 16) {
  const drawing = svg("svg", {
    viewBox: "0 0 16 16", width: size, height: size, class: "icon", "aria-hidden": "true", focusable: "false",
  });
  const [lines, dots] = DRAWN[name].split("|");
  if (lines) drawing.append(svg("path", { d: lines }));
  if (dots) drawing.append(svg("path", { d: dots, class: "dots" }));
  return drawing;
}
