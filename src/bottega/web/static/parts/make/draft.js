// What is asked for: a draft as this page keeps it, and the recipe that the server gets of it.

import { usesOf } from "./adapters.js";

export const EMPTY = {
  prompt: "", negative: "", model: null, size: null, count: 1, seed: null, sampling: {}, knobs: {}, output: {},
  init: null, // {sha256, width, height}
  mask: null, // {sha256}
  strength: null,
  adapters: [], // {id, kind, name, sha256, weight, unet, text_encoder, blocks, start, end, off, family, preview, triggers}
  vae: null, // {id, name, sha256}, or {name: "none"} for the model's own
};

const STEP = 8; // px that sides are multiples of

/** The task of a model's form that needs exactly these inputs; null where there is none. */
export const taskFor = (form, roles) =>
  form.tasks.find((task) => task.needs.length === roles.length && roles.every((role) => task.needs.includes(role))) ?? null;

/** Whether a task of the form takes this input. */
export const takes = (form, role) => form.tasks.some((task) => task.needs.includes(role));

/** The inputs of a draft, as far as the model can use them. */
export function inputsOf(draft, form) {
  const given = [draft.init && { role: "init", sha256: draft.init.sha256 }, draft.init && draft.mask && { role: "mask", sha256: draft.mask.sha256 }].filter(Boolean);
  while (given.length && form && !taskFor(form, given.map((media) => media.role))) given.pop();
  return given;
}

/** The size that will be made: the draft's, else that of the start, fitted to what the model is at home with. */
export function sizeOf(draft, form) {
  if (draft.size) return draft.size;
  const native = form?.defaults.size ?? { width: 512, height: 512 };
  if (!draft.init?.width || !inputsOf(draft, form).length) return native;
  const [area, wanted] = [draft.init.width * draft.init.height, native.width * native.height];
  const scale = wanted / 2 <= area && area <= wanted * 2 ? 1 : Math.sqrt(wanted / area);
  const side = (length) => Math.max(64, Math.round((length * scale) / STEP) * STEP);
  return { width: side(draft.init.width), height: side(draft.init.height) };
}

/** Sizes of usual shapes at the area that the model is at home with. */
export function presets(form) {
  const native = form?.defaults.size ?? { width: 512, height: 512 };
  const side = Math.sqrt(native.width * native.height);
  const step = side >= 512 ? 64 : STEP;
  const fit = (length) => Math.max(step, Math.round(length / step) * step);
  return [[1, 1], [4, 3], [3, 2], [16, 9], [3, 4], [2, 3], [9, 16]].map(([wide, high]) => ({
    shape: `${wide}:${high}`, width: fit(side * Math.sqrt(wide / high)), height: fit(side * Math.sqrt(high / wide)),
  }));
}

/** The recipe of a draft, for the server to fill in; what this model knows nothing of stays in the draft. */
export function recipeOf(draft, form) {
  const inputs = inputsOf(draft, form);
  const known = new Set(form?.knobs.map((knob) => knob.name));
  const task = form && taskFor(form, inputs.map((media) => media.role));
  const adapters = usesOf(draft);
  return {
    ...(task ? { task: task.id } : {}),
    ...(draft.model ? { model: { id: draft.model.id } } : {}),
    prompt: draft.prompt,
    negative: draft.negative,
    ...(adapters.length ? { adapters } : {}),
    inputs,
    sampling: { ...draft.sampling, seed: draft.seed, ...(inputs.length && draft.strength !== null ? { strength: draft.strength } : {}) },
    ...(draft.size ? { size: draft.size } : {}),
    count: draft.count,
    knobs: Object.fromEntries(Object.entries(draft.knobs).filter(([name]) => known.has(name))),
    ...(Object.keys(draft.output).length ? { output: draft.output } : {}),
  };
}

/** The draft that makes a recipe again, but for its adapters. What is at the form's default is left out, so that it stays folded. */
export function draftOf(recipe, form, model) {
  const { sampling = {}, knobs = {}, inputs = [] } = recipe;
  const defaults = form?.defaults ?? {};
  const settings = {};
  for (const name of ["sampler", "schedule", "steps", "guidance"]) {
    if (sampling[name] !== undefined && sampling[name] !== null && sampling[name] !== defaults[name]) settings[name] = sampling[name];
  }
  const changed = (form?.knobs ?? []).filter((knob) => knob.name in knobs && !usual(knob, knobs[knob.name]));
  const media = (role) => inputs.find((one) => one.role === role);
  const native = defaults.size;
  const { size } = recipe;
  return {
    ...structuredClone(EMPTY), prompt: recipe.prompt ?? "", negative: recipe.negative ?? "", model,
    size: size && !(native && native.width === size.width && native.height === size.height && !inputs.length) ? { width: size.width, height: size.height } : null,
    count: 1, seed: sampling.seed ?? null, sampling: settings,
    knobs: Object.fromEntries(changed.map((knob) => [knob.name, knobs[knob.name]])),
    output: recipe.output && recipe.output.format !== "png" ? recipe.output : {},
    init: media("init") ? { sha256: media("init").sha256 } : null,
    mask: media("mask") ? { sha256: media("mask").sha256 } : null,
    strength: sampling.strength ?? null,
  };
}

// What "auto" became on the machine that made a picture says nothing about what somebody wished.
const usual = (knob, value) => value === knob.default || (typeof value === "number" && Number(value) === Number(knob.default)) || knob.default === "auto";
