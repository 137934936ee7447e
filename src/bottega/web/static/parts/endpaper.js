// The drawing that a model without a picture gets: a quiet pattern of its kind, another one for each name.

import { svg } from "../dom.js";

const WIDE = 120;
const HIGH = 90;

/** An SVG for a kind of model; the same name gives the same drawing. */
export function endpaper(kind, name) {
  const draw = random(name);
  const lines = (MOTIFS[kind] ?? MOTIFS.other)(draw);
  return svg(
    "svg",
    { class: "endpaper", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true" },
    svg("path", { d: lines }),
  );
}

const MOTIFS = {
  // Arches, one in another: a workshop's door.
  checkpoint(draw) {
    const step = 7 + draw() * 4;
    const middle = 36 + draw() * 48;
    return many(9, (turn) => {
      const wide = 8 + turn * step;
      return `M${middle - wide} ${HIGH}V${60 - turn * 2}a${wide} ${wide} 0 0 1 ${2 * wide} 0V${HIGH}`;
    });
  },
  // Strips laid over a sheet: slanted, woven, or in the bones of a herring.
  lora(draw) {
    const way = Math.floor(draw() * 3);
    const step = 9 + draw() * 6;
    const gap = 2 + draw() * 2;
    if (way === 0) {
      const slope = 30 + draw() * 60;
      const first = -70 + draw() * 20;
      return many(24, (turn) => {
        const x = first + turn * step;
        return `M${x} ${HIGH}l${slope} ${-HIGH}M${x + gap} ${HIGH}l${slope} ${-HIGH}`;
      });
    }
    if (way === 1) {
      const side = 10 + draw() * 6;
      return many(Math.ceil(HIGH / side), (row) => many(Math.ceil(WIDE / side), (column) => {
        const [x, y] = [column * side, row * side];
        const at = (share) => side * share;
        return (row + column) % 2
          ? `M${x} ${y + at(0.25)}h${side}M${x} ${y + at(0.5)}h${side}M${x} ${y + at(0.75)}h${side}`
          : `M${x + at(0.25)} ${y}v${side}M${x + at(0.5)} ${y}v${side}M${x + at(0.75)} ${y}v${side}`;
      }));
    }
    const wide = 14 + draw() * 12;
    const tall = wide * (0.5 + draw() * 0.6);
    return many(Math.ceil((HIGH + tall) / (step * 0.8)) + 2, (row) => {
      const y = row * step * 0.8 - tall;
      return `M0 ${y}${many(Math.ceil(WIDE / wide), (turn) => `l${wide} ${turn % 2 ? -tall : tall}`)}`;
    });
  },
  // One word among many.
  embedding(draw) {
    const step = 8 + draw() * 3;
    const lucky = Math.floor(draw() * 40);
    let turn = 0;
    return many(12, (row) => many(14, (column) => {
      const radius = turn++ % 41 === lucky ? 3.2 : 0.7;
      const x = 4 + column * step + (row % 2) * step * 0.5;
      const y = 4 + row * step;
      return `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`;
    }));
  },
  // In by one cone, out by the other.
  vae(draw) {
    const waist = 2 + draw() * 8;
    return many(10, (turn) => {
      const share = turn / 9;
      const y = HIGH * share;
      const inner = HIGH / 2 + (share - 0.5) * waist * 2;
      return `M0 ${y}L52 ${inner}H68L${WIDE} ${y}`;
    });
  },
  // The lines of a map.
  controlnet(draw) {
    const [x, y] = [30 + draw() * 60, 25 + draw() * 40];
    const turned = draw() * Math.PI;
    return many(9, (turn) => {
      const far = 6 + turn * 9;
      const points = Array.from({ length: 25 }, (_, index) => {
        const angle = (index / 24) * 2 * Math.PI;
        const bulge = far * (1 + 0.22 * Math.sin(2 * angle + turned) + 0.08 * Math.sin(3 * angle + turned * 2));
        return `${(x + Math.cos(angle) * bulge * 1.25).toFixed(1)} ${(y + Math.sin(angle) * bulge).toFixed(1)}`;
      });
      return `M${points.join("L")}`;
    });
  },
  // Lines of writing.
  text_encoder(draw) {
    return many(11, (row) => {
      const y = 8 + row * 8;
      const end = 60 + draw() * 52;
      return `M8 ${y}H${8 + (end - 8) * 0.45}m4 0H${end}`;
    });
  },
  // Small squares that grow.
  upscaler(draw) {
    const corner = draw() < 0.5;
    return many(9, (turn) => {
      const side = 4 + turn * turn * 1.4;
      return corner ? `M6 6h${side}v${side}h${-side}z` : `M${60 - side / 2} ${45 - side / 2}h${side}v${side}h${-side}z`;
    });
  },
  // Waves.
  other(draw) {
    const high = 4 + draw() * 8;
    const long = 20 + draw() * 20;
    return many(12, (row) => {
      const y = row * 9 - 4;
      return `M-10 ${y}${many(7, (turn) => `q${long / 2} ${turn % 2 ? high : -high} ${long} 0`)}`;
    });
  },
};
MOTIFS.language_model = MOTIFS.text_encoder;
MOTIFS.diffusion_model = MOTIFS.checkpoint;
MOTIFS.t2i_adapter = MOTIFS.controlnet;
MOTIFS.ip_adapter = MOTIFS.controlnet;

function many(times, of) {
  return Array.from({ length: times }, (_, turn) => of(turn)).join("");
}

/** Numbers from 0 to 1 that a name decides (FNV-1a, then mulberry32). */
function random(name) {
  let state = 0x811c9dc5;
  for (let index = 0; index < name.length; index++) state = Math.imul(state ^ name.charCodeAt(index), 0x01000193);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
