// A small graph of what came from what: earlier on the left, later on the right.

import { h, svg } from "../dom.js";

const SIDE = 56; // px of a picture
const ACROSS = 104; // px from one column to the next
const DOWN = 68; // px from one row to the next
const SERIES = new Set(["replay", "variation", "seed"]); // of one recipe: none came from the other

/**
 * @param {{nodes: object[], edges: object[]}} graph  nodes with an `id`; edges from `source` to `target` with a `kind`
 * @param {string} here  the id of the node that all is about
 * @param {(node: object) => {picture: string, name: string, open?: () => void}} shown  how a node looks
 * @param {(kind: string) => string} said  an edge in words
 */
export function lineageGraph(graph, here, shown, said) {
  const columns = columnsOf(graph, here);
  const places = new Map();
  let high = 0;
  columns.forEach((ids, column) => {
    ids.forEach((id, row) => places.set(id, [column * ACROSS, row * DOWN]));
    high = Math.max(high, ids.length);
  });
  const wide = (columns.length - 1) * ACROSS + SIDE;
  const tall = (high - 1) * DOWN + SIDE;
  const lines = svg("svg", { class: "lineage-lines", width: wide, height: tall, "aria-hidden": "true" });
  for (const { source, target, kind } of graph.edges) {
    if (!places.has(source) || !places.has(target)) continue;
    const [x1, y1] = places.get(source);
    const [x2, y2] = places.get(target);
    const [left, right] = [x1 + SIDE, x2];
    const middle = (left + right) / 2;
    const path = svg("path", {
      class: SERIES.has(kind) ? "lineage-line is-loose" : "lineage-line",
      d: x1 === x2
        ? `M${x1 + SIDE / 2} ${Math.min(y1, y2) + SIDE}V${Math.max(y1, y2)}`
        : `M${left} ${y1 + SIDE / 2}C${middle} ${y1 + SIDE / 2} ${middle} ${y2 + SIDE / 2} ${right} ${y2 + SIDE / 2}`,
    });
    path.append(svg("title"));
    path.firstChild.textContent = said(kind);
    lines.append(path);
  }
  const nodes = graph.nodes.filter((node) => places.has(node.id)).map((node) => {
    const { picture, name, open } = shown(node);
    const [left, top] = places.get(node.id);
    return h(
      open ? "button" : "span",
      {
        class: ["lineage-node", node.id === here && "is-here"],
        type: open && "button",
        title: name,
        aria: { current: node.id === here ? "true" : null },
        style: { transform: `translate(${left}px, ${top}px)` },
        on: open && { click: open },
      },
      picture && h("img", { src: picture, alt: name, width: SIDE, height: SIDE, loading: "lazy", decoding: "async" }),
    );
  });
  return h("div", { class: "lineage" }, h("div", { class: "lineage-sheet", style: { width: `${wide}px`, height: `${tall}px` } }, lines, nodes));
}

/** The ids by how many steps after the earliest they come; ones of the same step one below another. */
function columnsOf({ nodes, edges }, here) {
  const depth = new Map(nodes.map(({ id }) => [id, 0]));
  // Longest way from an earliest node; what goes in a circle stops where every node had its turn.
  for (let turn = 0; turn < nodes.length; turn++) {
    let moved = false;
    for (const { source, target, kind } of edges) {
      if (!depth.has(source) || !depth.has(target)) continue;
      const least = depth.get(source) + (SERIES.has(kind) ? 0 : 1);
      if (depth.get(target) < least) {
        depth.set(target, least);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const columns = [];
  for (const { id } of nodes) (columns[depth.get(id)] ??= []).push(id);
  const filled = columns.filter(Boolean);
  for (const column of filled) column.sort((a, b) => (b === here) - (a === here));
  return filled;
}
