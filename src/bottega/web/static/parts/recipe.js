// A recipe for people: its prompt, and every field that was decided, with the differences of two.

import { h } from "../dom.js";
import { addWords, inLine, number, t } from "../words.js";
import { nameOf } from "./controls.js";
import { copyButton, facts } from "./facts.js";

addWords({
  en: {
    "recipe.prompt": "Prompt", "recipe.negative": "Negative prompt", "recipe.model": "Model", "recipe.task": "Task",
    "recipe.size": "Size", "recipe.seed": "Seed", "recipe.sampler": "Sampler", "recipe.schedule": "Schedule", "recipe.steps": "Steps",
    "recipe.guidance": "Guidance", "recipe.strength": "Strength", "recipe.count": "Count", "recipe.format": "Format",
    "recipe.quality": "Quality", "recipe.input": "Input ({role})", "recipe.kind.lora": "LoRA", "recipe.kind.embedding": "Embedding",
    "recipe.kind.hypernetwork": "Hypernetwork", "recipe.kind.vae": "VAE", "recipe.kind.controlnet": "Control", "recipe.version": "Version",
    "recipe.defaults": "{n} settings at their defaults", "recipe.yes": "yes", "recipe.no": "no", "recipe.task.text-to-image": "text to image", "recipe.task.image-to-image": "image to image",
    "recipe.task.inpaint": "inpainting", "recipe.width": "Width", "recipe.height": "Height", "recipe.init": "Started from", "recipe.mask": "Mask",
    "recipe.text_encoder": "text encoder", "recipe.span": "{from} to {to} % of the steps",
  },
  zh: {
    "recipe.prompt": "提示词", "recipe.negative": "负面提示词", "recipe.model": "模型", "recipe.task": "任务",
    "recipe.size": "尺寸", "recipe.seed": "种子", "recipe.sampler": "采样器", "recipe.schedule": "调度", "recipe.steps": "步数",
    "recipe.guidance": "引导", "recipe.strength": "强度", "recipe.count": "数量", "recipe.format": "格式",
    "recipe.quality": "质量", "recipe.input": "输入（{role}）", "recipe.kind.lora": "LoRA", "recipe.kind.embedding": "嵌入",
    "recipe.kind.hypernetwork": "超网络", "recipe.kind.vae": "VAE", "recipe.kind.controlnet": "控制", "recipe.version": "版本",
    "recipe.defaults": "{n} 项设置为默认值", "recipe.yes": "是", "recipe.no": "否", "recipe.task.text-to-image": "文生图", "recipe.task.image-to-image": "图生图",
    "recipe.task.inpaint": "局部重绘", "recipe.width": "宽", "recipe.height": "高", "recipe.init": "起始图片", "recipe.mask": "蒙版",
    "recipe.text_encoder": "文本编码器", "recipe.span": "步数的 {from}–{to}%",
  },
});

/** The recipe of an output; of one that carries none, what else is known of how it was made. */
export const recipeOf = (output) => output.recipe ?? {
  prompt: output.prompt, negative: output.negative, model: output.model ? { name: output.model } : undefined, task: output.task,
  sampling: { seed: output.seed ?? undefined }, size: { width: output.width, height: output.height },
};

// What "auto" came to for the model: it is decided by the model, not by whoever asked.
const AUTOMATIC = { precision: true, prediction: true, vae_tiling: true };

/** A field's name for people: `sampling.seed`, `knobs.eta`, `adapters.0`. */
export function fieldName(field) {
  const last = field.split(".").findLast((part) => !/^\d+$/.test(part));
  return t(`recipe.${last}`, {}, nameOf(last));
}

/** Every field of a recipe as `[name, value]`, prompts apart. */
export function recipeRows(recipe) {
  const { sampling = {}, size, adapters = [], inputs = [], knobs = {}, output = {} } = recipe;
  return [
    [t("recipe.model"), recipe.model?.name],
    [t("recipe.task"), recipe.task && recipe.task !== "text-to-image" && t(`recipe.task.${recipe.task}`, {}, recipe.task)],
    [t("recipe.seed"), sampling.seed ?? null, sampling.seed !== undefined && String(sampling.seed)],
    [t("recipe.size"), size && `${size.width} × ${size.height}`],
    [t("recipe.steps"), sampling.steps],
    [t("recipe.guidance"), sampling.guidance === undefined ? null : number(sampling.guidance, 2)],
    [t("recipe.sampler"), sampling.sampler],
    [t("recipe.schedule"), sampling.schedule],
    [t("recipe.strength"), sampling.strength === undefined || sampling.strength === null ? null : number(sampling.strength, 2)],
    ...adapters.map((use) => [t(`recipe.kind.${use.kind}`, {}, use.kind), useText(use), use.ref.name]),
    ...inputs.map((media) => [t("recipe.input", { role: media.role }), `${media.sha256.slice(0, 12)}…`, media.sha256]),
    ...Object.entries(knobs).map(knobRow),
    [t("recipe.format"), output.format && output.format !== "png" && `${output.format} ${output.quality ?? ""}`],
  ];
}

/** An adapter and how it is used; what is used as it is, or not at all, has no weight. */
function useText(use) {
  const { weight = 1, unet, text_encoder: text, start = 0, end = 1, blocks = {} } = use;
  const plain = use.kind === "embedding" || use.kind === "vae";
  const apart = (unet ?? text ?? null) !== null;
  return [
    inLine(use.ref.name), !plain && !apart && number(weight, 3),
    apart && `UNet ${number(unet ?? weight, 3)}`, apart && `${t("recipe.text_encoder")} ${number(text ?? weight, 3)}`,
    ...Object.entries(blocks).map(([name, factor]) => `${name} × ${number(factor, 3)}`),
    (start > 0 || end < 1) && t("recipe.span", { from: number(start * 100), to: number(end * 100) }),
  ].filter((part) => part !== false).join(" · ");
}

function knobRow([name, value]) {
  return [fieldName(name), typeof value === "number" ? number(value, 3) : typeof value === "boolean" ? t(value ? "recipe.yes" : "recipe.no") : String(value)];
}

/** The knobs of a recipe that are at their defaults, and the others, as two objects; `forms` are those of the server. */
function split(knobs, forms) {
  const defaults = new Map(forms?.families.flatMap((family) => family.knobs.map((knob) => [knob.name, knob.default])));
  const usual = Object.entries(knobs).filter(([name, value]) => defaults.has(name) && (defaults.get(name) === value || (defaults.get(name) === "auto" && name in AUTOMATIC)));
  const folded = Object.fromEntries(usual);
  return [folded, Object.fromEntries(Object.entries(knobs).filter(([name]) => !(name in folded)))];
}

/**
 * A recipe as a part of a panel: prompts as they were typed, then the fields; settings at their defaults (as `forms`
 * tell them) are folded.
 */
export function recipeView(whole, copy, forms = null) {
  const [folded, knobs] = split(whole.knobs ?? {}, forms);
  const recipe = { ...whole, knobs };
  const usual = Object.entries(folded).map(knobRow);
  const words = (name, text) => text && h("div", { class: "recipe-text" },
    h("h3", {}, name, copyButton(name, text, copy)), h("p", { class: "recipe-words", text }));
  return h("div", { class: "recipe" }, words(t("recipe.prompt"), recipe.prompt), words(t("recipe.negative"), recipe.negative),
    facts(recipeRows(recipe), copy), usual.length > 0 && h("details", { class: "recipe-usual" }, h("summary", { text: t("recipe.defaults", { n: usual.length }) }), facts(usual, copy)));
}
