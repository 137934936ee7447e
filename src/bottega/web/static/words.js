// What the page says, in English and in Simplified Chinese; rooms and parts add their own words under the same rules.

const words = { en: {}, zh: {} };
export const LANGUAGES = { en: "English", zh: "简体中文" };

/** The language of the page: "en" or "zh". */
export const language = () => (document.documentElement.lang.startsWith("zh") ? "zh" : "en");

/** Adds words by language; a later word of the same key wins. */
export function addWords(told) {
  for (const [tongue, entries] of Object.entries(told)) Object.assign(words[tongue], entries);
}

/** The words of a key with its `{values}` filled in; an unknown key says itself, unless there is a `fallback`. */
export function t(key, values = {}, fallback = key) {
  const text = words[language()][key] ?? words.en[key] ?? fallback;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

const RIGHT_TO_LEFT = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;

/** A name for a line of facts: one that is written from right to left would take the numbers after it to its other side. */
export function inLine(name) {
  return RIGHT_TO_LEFT.test(name) ? `\u200e${name}\u200e` : name;
}

/** The keys that one of the languages has no words for; settings and the like have their own names in English. */
export const untold = () => Object.keys(words.en).filter((key) => !(key in words.zh));

/** A number as people write it in both languages; not by Intl, whose first number takes 30 ms of a page's first paint. */
export function number(value, digits = 0) {
  const [whole, part] = String(Number(Number(value).toFixed(digits))).split(".");
  const grouped = whole.replace(/\B(?=(?:\d{3})+$)/g, ",");
  return part ? `${grouped}.${part}` : grouped;
}

const formats = new Map(); // what writes dates, which takes long to make

/** A time (unix seconds) as people write it; `wish` are the options of Intl.DateTimeFormat. */
export function dated(seconds, wish) {
  const key = language() + JSON.stringify(wish);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(language() === "zh" ? "zh-CN" : "en", wish));
  return formats.get(key).format(seconds * 1000);
}

/** Bytes in words: 47 MB. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return `${number(size, size < 9.95 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

/** Seconds in words: 0.8 s, 12 s, 3 min 5 s, 2 h 10 min. */
export function duration(seconds) {
  if (seconds < 9.95) return `${number(seconds, 1)} ${t("unit.s")}`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} ${t("unit.s")}`;
  if (whole < 3600) return `${Math.floor(whole / 60)} ${t("unit.min")}${whole % 60 ? ` ${whole % 60} ${t("unit.s")}` : ""}`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} ${t("unit.h")} ${minutes % 60} ${t("unit.min")}`;
}

/** A time (unix seconds): the hour today, else the day as well. */
export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  const hour = { hour: "2-digit", minute: "2-digit" };
  return dated(seconds, today ? hour : { day: "numeric", month: "short", year: "numeric", ...hour });
}

addWords({
  en: {
    "unit.s": "s", "unit.min": "min", "unit.h": "h",
    "frame.skip": "Skip to the room",
    "frame.rooms": "Rooms",
    "frame.search": "Search",
    "frame.theme": "Light or dark", "frame.theme.auto": "As the system", "frame.theme.light": "Light", "frame.theme.dark": "Dark",
    "frame.more": "More", "frame.language": "Language", "frame.keys": "Keys", "frame.api": "API description",
    "frame.keys.title": "Keys", "frame.keys.frame": "Everywhere", "frame.keys.help": "Show the keys", "frame.keys.room": "Go to {room}",
    "frame.lost": "The server does not answer. Trying again …",
    "frame.locked": "This page has no key to the workshop.",
    "frame.locked.what": "Open the link that bottega serve prints when it starts, or sign in with your key.",
    "frame.locked.key": "Sign in",
    "frame.unreachable": "The server does not answer",
    "frame.unreachable.remedy": "is it still running? What you typed is kept",
    "frame.broken": "This room could not be opened",
    "frame.broken.again": "Try again",
    "frame.nowhere": "There is nothing at this address", "frame.nowhere.go": "Go to {room}",
    "frame.notices": "Notices",
    "frame.undo": "Undo", "frame.close": "Close", "frame.copied": "Copied", "frame.copy": "Copy {what}",
    "frame.waiting": "{n} waiting or running",
  },
  zh: {
    "unit.s": "秒", "unit.min": "分", "unit.h": "小时",
    "frame.skip": "跳到内容",
    "frame.rooms": "房间",
    "frame.search": "搜索",
    "frame.theme": "浅色或深色", "frame.theme.auto": "跟随系统", "frame.theme.light": "浅色", "frame.theme.dark": "深色",
    "frame.more": "更多", "frame.language": "语言", "frame.keys": "快捷键", "frame.api": "API 说明",
    "frame.keys.title": "快捷键", "frame.keys.frame": "通用", "frame.keys.help": "显示快捷键", "frame.keys.room": "前往{room}",
    "frame.lost": "服务器没有响应，正在重试……",
    "frame.locked": "这个页面还没有工坊的钥匙。",
    "frame.locked.what": "请打开 bottega serve 启动时打印的链接，或用你的密钥登录。",
    "frame.locked.key": "登录",
    "frame.unreachable": "服务器没有响应",
    "frame.unreachable.remedy": "它还在运行吗？你输入的内容已保留",
    "frame.broken": "无法打开这个房间",
    "frame.broken.again": "重试",
    "frame.nowhere": "这个地址上什么也没有", "frame.nowhere.go": "前往{room}",
    "frame.notices": "通知",
    "frame.undo": "撤销", "frame.close": "关闭", "frame.copied": "已复制", "frame.copy": "复制{what}",
    "frame.waiting": "{n} 个等待或进行中",
  },
});
