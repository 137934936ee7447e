// The settings of a training, drawn from what the server says of them: the few that matter, and the rest folded.

import { fill, h } from "../../dom.js";
import { addWords, t } from "../../words.js";
import { control, fold, nameOf, said } from "../controls.js";
import { inWords } from "../make/knobs.js";
import { few } from "./curve.js";

addWords({
  en: {
    "train.more": "More settings", "train.more.none": "all at their defaults", "train.more.find": "Find a setting", "train.auto": "what suits the model",
    "knob.rate": "Learning rate", "knob.text_rate": "Learning rate of the text encoder", "knob.clip": "Longest gradient", "knob.keep": "Parts that stay in place", "knob.rank": "Rank", "knob.ema": "EMA", "knob.prior": "Weight of regularisation", "knob.begin_with": "Begin with the words", "knob.sample_every": "Sample every (steps)", "knob.validate_every": "Validate every (steps)", "knob.dropout": "Caption dropout", "knob.shuffle": "Shuffle captions", "knob.flip": "Mirror pictures", "knob.text_encoder": "Teach the text encoder", "knob.batch": "Batch", "knob.validation": "Held out to judge by", "knob.checkpointing": "Gradient checkpointing",
  },
  zh: {
    "train.more": "更多设置", "train.more.none": "均为默认值", "train.more.find": "查找设置", "train.auto": "适合模型的值",
    "knob.rate": "学习率", "knob.text_rate": "文本编码器学习率", "knob.clip": "梯度裁剪", "knob.keep": "固定的说明部分", "knob.rank": "秩", "knob.ema": "EMA 衰减", "knob.prior": "正则化权重", "knob.begin_with": "初始词语", "knob.sample_every": "采样间隔（步）", "knob.validate_every": "验证间隔（步）", "knob.dropout": "说明丢弃率", "knob.shuffle": "打乱说明", "knob.flip": "镜像图片", "knob.text_encoder": "训练文本编码器", "knob.batch": "批大小", "knob.validation": "验证集比例", "knob.checkpointing": "梯度检查点",
    "knob.algorithm": "算法", "knob.alpha": "Alpha", "knob.conv_rank": "卷积的秩", "knob.factor": "LoKr 因子", "knob.vectors": "向量数", "knob.structure": "层结构", "knob.activation": "激活函数", "knob.layer_norm": "层归一化", "knob.steps": "步数", "knob.accumulate": "梯度累积", "knob.optimizer": "优化器", "knob.weight_decay": "权重衰减", "knob.schedule": "学习率调度", "knob.warmup": "预热步数", "knob.cycles": "周期数", "knob.resolution": "分辨率", "knob.buckets": "宽高比分桶", "knob.min_snr": "min-SNR", "knob.noise_offset": "噪声偏移", "knob.seed": "种子", "knob.patience": "提前停止", "knob.word": "触发词",
  },
});

const FEW = { lora: ["rank", "steps", "rate", "text_encoder"], embedding: ["vectors", "steps", "rate", "begin_with"], hypernetwork: ["steps", "rate"], full: ["steps", "rate", "text_encoder"] };
const APART = new Set(["word", "samples"]); // fields of their own

export class TrainingSettings {
  /** `changed()` hears of every change. */
  constructor({ store, changed }) {
    this.changed = changed;
    this.more = fold(t("train.more"), { open: store.get("open.more", false), toggled: (open) => store.set("open.more", open) });
    this.element = h("div", { class: "train-settings" });
    this.fields = new Map();
  }

  /** Draws the settings of a kind; `values` is what they change. */
  draw(forms, kind, values) {
    Object.assign(this, { values, kind });
    this.fields.clear();
    const form = forms.kinds.find((one) => one.id === kind);
    const told = new Map(forms.settings.map((setting) => [setting.name, setting]));
    const usual = { steps: form.steps, rate: form.rate };
    const field = (name, place = null) => {
      const setting = told.get(name);
      const knob = inWords({ ...setting, default: setting.default ?? usual[name] ?? (setting.type === "bool" ? false : null), low: setting.low, high: setting.high > 1e5 ? null : setting.high, names: new Map([[null, t("train.auto")]]) });
      const drawn = setting.type === "list" ? listed(knob, (value) => take(value)) : control(knob, (value) => take(value));
      const take = (value) => {
        if (value === null) delete this.values[name];
        else this.values[name] = value;
        drawn.wrong("");
        this._line();
        this.changed();
      };
      drawn.set(this.values[name] ?? null);
      if (knob.type === "float" && knob.default !== null) drawn.element.querySelector("input").setAttribute("placeholder", few(knob.default));
      this.fields.set(name, { ...drawn, fold: place });
      return drawn.element;
    };
    const first = FEW[kind];
    fill(this.element, first.map((name) => field(name)), this.more.element);
    const rest = form.settings.filter((name) => !first.includes(name) && !APART.has(name)).map((name) => field(name, this.more));
    const find = h("input", { type: "search", placeholder: t("train.more.find"), aria: { label: t("train.more.find") }, on: { input: () => { for (const one of rest) one.hidden = !`${one.textContent} ${one.dataset.name}`.toLowerCase().includes(find.value.trim().toLowerCase()); } } });
    fill(this.more.body, find, rest);
    this._line();
  }

  /** The values that mean something for this kind. */
  told() { return Object.fromEntries(Object.entries(this.values).filter(([name]) => this.fields.has(name))); }

  _line() {
    const changed = Object.keys(this.values).filter((name) => this.fields.get(name)?.fold);
    this.more.line(changed.map((name) => `${nameOf(name)} ${said(this.values[name])}`).join(" · ") || t("train.more.none"));
  }
}

/** A list of numbers, typed with commas between them. */
function listed(knob, changed) {
  const text = (value) => value.join(", ");
  const drawn = control({ ...knob, type: "str", default: text(knob.default) }, (value) => {
    changed(value === null ? null : value.split(",").map((part) => Number(part)).filter((part) => Number.isFinite(part)));
  });
  return { ...drawn, set: (value) => drawn.set(value && text(value)) };
}
