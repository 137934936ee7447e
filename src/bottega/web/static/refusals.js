// What the server refuses, in Chinese: it says so in English, as the command line does. What has no words here stays as it was said.

import { language } from "./words.js";

// `{0}` stands for a number, `{name}` for any text.
const ZH = {
  // of any field
  "is missing": "缺少此项", "is empty": "不能为空", "says nothing": "没有内容", "is no field that is known here": "不是这里认识的字段",
  "may have at most {0} characters": "最多 {0} 个字符", "must have at least {0} characters": "至少 {0} 个字符",
  "may have at most {0} entries": "最多 {0} 项", "must have at least {0} entries": "至少 {0} 项",
  "must be a whole number": "必须是整数", "must be a number": "必须是数字", "must be a finite number": "必须是有限的数字", "must be a text": "必须是文本",
  "is a number with too many digits": "数字的位数过多", "must be {0} or more": "不能小于 {0}", "must be {0} or less": "不能大于 {0}",
  "must be more than {0}": "必须大于 {0}", "must be less than {0}": "必须小于 {0}", "must be a multiple of {0}": "必须是 {0} 的倍数",
  "choose another name": "请换一个名称", "leave it out": "请去掉它", "try again": "请重试",
  // of a recipe
  "{0} is not between {1} and {2}": "{0} 不在 {1} 到 {2} 之间", "-1 draws one": "-1 表示随机",
  "{value} is none of {choices}": "{value} 不在可选的 {choices} 之中",
  "{0} is no multiple of 8": "{0} 不是 8 的倍数", "use {0} or {1}": "请用 {0} 或 {1}",
  "{0} is too much for a server": "{0} 超出服务器的上限", "{0} is the most": "最多 {0}", "{0} at once is the most": "一次最多 {0}",
  "has {0} characters": "有 {0} 个字符", "at most {0} are read": "最多读取 {0} 个",
  "names the adapter {tag}, and adapters are named in the prompt alone": "写有适配器 {tag}，而适配器只能写在提示词中", "move it there": "请把它移过去",
  "no sampler is called {name}": "没有名为 {name} 的采样器", "no schedule is called {name}": "没有名为 {name} 的调度", "did you mean {names}?": "是指 {names} 吗？",
  "is no setting of this model": "不是这个模型的设置",
  "says how much of a picture to change": "表示改变图片的程度", "give the picture to start from": "请提供起始图片",
  "no such picture was taken in": "没有收到过这张图片",
  // of models and adapters
  "no model is called {name}": "没有名为 {name} 的模型", "see the list of models": "请查看模型列表",
  "no kind of adapter is called {kind}": "没有名为 {kind} 的适配器类型", "has no name": "缺少名称", "{text} is no number": "{text} 不是数字",
  "{name} is the second of that name": "{name} 重复了", "{name} is a second VAE": "{name} 是第二个 VAE", "name one": "请只用一个",
  "{name} is made for {family}, and {model} is {other}": "{name} 适用于 {family}，而 {model} 是 {other}", "use one that fits, or another model": "请使用匹配的，或更换模型",
  // of users
  "there is no user {name}": "没有名为 {name} 的用户", "see the list of users": "请查看用户列表",
  // of pictures
  "this is {kind}, not a PNG, JPEG or WebP": "这是{kind}，不是 PNG、JPEG 或 WebP", "choose a PNG, JPEG or WebP file": "请选择 PNG、JPEG 或 WebP 文件",
  "this is no picture that is read here": "无法读取这种图片",
  "plain text": "纯文本", "an empty file": "空文件", "a web page": "网页", "JSON text": " JSON 文本", "XML text": " XML 文本", "a zip archive": " zip 压缩包", "a safetensors file": " safetensors 文件",
  // of the server
  "{0} jobs are waiting, which is all there is room for": "已有 {0} 个任务在等待，队列已满", "try again later": "请稍后重试",
  "{0} of your jobs are waiting, as many as you may have": "你已有 {0} 个任务在等待，达到上限", "wait for them": "请等待它们完成",
  "the server is stopping": "服务器正在停止", "what is queued goes on when it is started again": "排队的任务会在它重新启动后继续",
};

const PREFIX = /^(?<of><\w+:[^<>]*>|the picture): (?<what>.+)$/s; // a tag of the prompt, which the form looks for
let patterns = null;

/** A text of the server's errors in the language of the page. */
export function refusal(text) {
  if (language() !== "zh") return text;
  const named = PREFIX.exec(text)?.groups;
  if (named) return `${named.of === "the picture" ? "图片" : named.of}: ${refusal(named.what)}`;
  patterns ??= Object.entries(ZH).map(([said, zh]) => [patternOf(said), zh]);
  for (const [pattern, zh] of patterns) {
    const values = pattern.exec(text)?.slice(1);
    if (values) return zh.replace(/\{\w+\}/g, () => refusal(values.shift()));
  }
  return text;
}

const patternOf = (said) => new RegExp(`^${said.replace(/[.^?+]/g, "\\$&").replace(/\{(\w+)\}/g, (_, name) => (/\d/.test(name) ? "(-?[\\d.,x]+)" : "(.+)"))}$`, "s");
