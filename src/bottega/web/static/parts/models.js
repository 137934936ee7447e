// What a model is, in the words of the page: kinds, families, categories, verdicts.

import { addWords, t } from "../words.js";

addWords({
  en: {
    "kind.checkpoint": "Checkpoint", "kind.lora": "LoRA", "kind.embedding": "Embedding", "kind.hypernetwork": "Hypernetwork",
    "kind.vae": "VAE", "kind.controlnet": "ControlNet", "kind.t2i_adapter": "T2I-Adapter", "kind.ip_adapter": "IP-Adapter",
    "kind.diffusion_model": "Diffusion model", "kind.text_encoder": "Text encoder", "kind.image_encoder": "Image encoder",
    "kind.motion_module": "Motion module", "kind.upscaler": "Upscaler", "kind.language_model": "Language model",
    "kind.unknown": "Not recognised", "kind.style_model": "Style model", "kind.gligen": "GLIGEN", "kind.photomaker": "PhotoMaker",
    "category.base": "base model", "category.full fine-tune": "full fine-tune", "category.lightweight fine-tune": "lightweight fine-tune",
    "category.part": "part of a model", "category.unknown": "",
    "medium.image": "Image", "medium.video": "Video", "medium.audio": "Sound", "medium.text": "Text", "medium.3d": "3D",
    "verdict.clean": "Clean", "verdict.unusual": "Unusual", "verdict.refused": "Refused",
    "verdict.clean.why": "It holds numbers and nothing else.",
    "verdict.unusual.why": "It is a pickle that names things a model does not need. None of it is run.",
    "verdict.refused.why": "It was not taken in, and nothing of it was run.",
  },
  zh: {
    "kind.checkpoint": "主模型", "kind.lora": "LoRA", "kind.embedding": "嵌入", "kind.hypernetwork": "超网络",
    "kind.vae": "VAE", "kind.controlnet": "ControlNet", "kind.t2i_adapter": "T2I-Adapter", "kind.ip_adapter": "IP-Adapter",
    "kind.diffusion_model": "扩散模型", "kind.text_encoder": "文本编码器", "kind.image_encoder": "图像编码器",
    "kind.motion_module": "运动模块", "kind.upscaler": "放大模型", "kind.language_model": "语言模型",
    "kind.unknown": "未识别", "kind.style_model": "风格模型", "kind.gligen": "GLIGEN", "kind.photomaker": "PhotoMaker",
    "category.base": "基础模型", "category.full fine-tune": "全量微调", "category.lightweight fine-tune": "轻量微调",
    "category.part": "模型部件", "category.unknown": "",
    "medium.image": "图像", "medium.video": "视频", "medium.audio": "声音", "medium.text": "文本", "medium.3d": "三维",
    "verdict.clean": "安全", "verdict.unusual": "异常", "verdict.refused": "拒绝",
    // What the library calls what it read of a model besides; in English these names are its own.
    "extra.rank": "秩", "extra.alpha": "alpha", "extra.network": "网络", "extra.network arguments": "网络参数", "extra.optimizer": "优化器",
    "extra.learning rate": "学习率", "extra.epochs": "轮数", "extra.steps": "步数", "extra.images": "图片数", "extra.training resolution": "训练分辨率",
    "extra.clip skip": "CLIP 跳层", "extra.noise offset": "噪声偏移", "extra.trained on": "训练所用模型", "extra.trained with": "训练工具",
    "extra.base model hash": "基础模型哈希", "extra.base model page": "基础模型页面", "extra.comment": "备注", "extra.tensor hash": "张量哈希",
    "extra.architecture": "架构", "extra.prediction": "预测类型", "extra.usage": "用法", "extra.merge": "合并方式", "extra.merged from": "合并自",
    "extra.quantized by": "量化者", "extra.finetune": "微调", "extra.size": "规模", "extra.context": "上下文长度", "extra.licence text": "许可证全文",
    "extra.made for": "用途", "extra.example": "示例", "extra.names": "名称", "extra.parameters": "参数", "extra.system prompt": "系统提示词",
    "extra.adapters": "适配器", "extra.projector": "投影器", "extra.negative": "反向提示词", "extra.vae": "VAE", "extra.adults only": "仅限成人", "extra.made by": "制作方式", "extra.not read": "未读取",
    "verdict.clean.why": "文件里只有数值，没有别的内容。",
    "verdict.unusual.why": "这是一个 pickle，引用了模型不需要的名称；其中的内容不会被运行。",
    "verdict.refused.why": "文件未被收录，其中的内容从未运行。",
  },
});

const FAMILIES = { sd1: "SD 1", sd2: "SD 2", sdxl: "SDXL", sd3: "SD 3", svd: "SVD" };

export const kindText = (kind) => t(`kind.${kind}`, {}, kind.replaceAll("_", " "));

// Variants that say no more than the kind does.
const PLAIN = new Set(["base", "lora", "embedding", "hypernetwork", "vae", "controlnet"]);

/** A family in short, with the variant where it is not the plain one. */
export function familyText(family, variant = "") {
  const short = FAMILIES[family] ?? family.replaceAll("_", " ");
  return [short, variant && !PLAIN.has(variant) && variant].filter(Boolean).join(" ");
}

export const categoryText = (category) => t(`category.${category}`, {}, category);
export const extraText = (name) => t(`extra.${name}`, {}, name);
export const mediumText = (medium) => t(`medium.${medium}`, {}, medium);
export const verdictText = (verdict) => t(`verdict.${verdict}`, {}, verdict);
