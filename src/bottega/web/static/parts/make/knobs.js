// What the settings of families do, in Chinese: the server tells it in English, and a setting without words here too.

import { addWords, t } from "../../words.js";

const ZH = {
  precision: "网络的数值格式", prediction: "网络预测的内容", zero_snr: "把噪声调度缩放到零终端信噪比 (2305.08891)",
  downcast_alphas: "以半精度保存噪声调度，与 A1111 1.7.1 之前一致", old_prompt_editing: "按 A1111 1.6 之前的方式计算提示词编辑的时机",
  clip_skip: "使用 Stable Diffusion 1 文本编码器的第几层，从最后一层数起", emphasis: "提示词中权重的作用方式",
  noise_source: "随机数来自：CPU、GPU，或在任何机器上重现 CUDA 的结果 (NV)", variation_seed: "混入的噪声的种子", variation_strength: "混入多少变化种子的噪声",
  seed_resize_width: "按此宽度生成噪声（0：原样）", seed_resize_height: "按此高度生成噪声（0：原样）", ensd: "eta 噪声种子偏移：加到每一步噪声的种子上",
  eta: "祖先采样器加入的噪声", eta_ddim: "DDIM 加入的噪声", s_churn: "随机扰动 (Karras et al. 2022)", s_tmin: "仅在高于此 sigma 时扰动", s_tmax: "仅在低于此 sigma 时扰动（0：始终）",
  s_noise: "加入噪声的强度", sigma_min: "调度的最后一个 sigma（0：模型自身的）", sigma_max: "调度的第一个 sigma（0：模型自身的）", rho: "Karras 与 polyexponential 调度的曲率（0：调度自身的）",
  guidance_rescale: "使引导后的预测保持自然的幅度 (2305.08891)", skip_early_guidance: "最初多大比例的步数不使用引导", min_uncond_sigma: "低于此 sigma 时每隔一步省略反向提示词",
  image_guidance: "instruct-pix2pix 模型对输入图片的遵循程度", mask_blur: "遮罩边缘的柔和程度（像素）", masked_content: "遮罩区域的起始内容", vae_tiling: "分块解码，占用更少内存",
};
addWords({ zh: Object.fromEntries(Object.entries(ZH).map(([name, text]) => [`knob.help.${name}`, text])) });

/** A knob with its help in the language of the page. */
export const inWords = (knob) => ({ ...knob, help: t(`knob.help.${knob.name}`, {}, knob.help) });
