// The pictures of a dataset with their captions: chosen, dropped or taken from the gallery, said anew, taken out.

import { fill, h } from "../../dom.js";
import { addWords, bytes, t } from "../../words.js";
import { icon } from "../icons.js";

addWords({
  en: {
    "pictures.choose": "Choose pictures", "pictures.hint": "or drop them here, with .txt files of the same names as captions; folders too, and pictures from the Gallery",
    "pictures.caption": "What picture {n} shows", "pictures.caption.hint": "What does it show?", "pictures.remove": "Take picture {n} out", "pictures.removed": "A picture was taken out",
    "pictures.busy": "Taking in {done} of {total} …", "pictures.refused": "{name}: {what}", "pictures.kind": "Not PNG, JPEG or WebP: {n}", "pictures.texts": "Choose the pictures together with their .txt files", "pictures.list": "Pictures",
  },
  zh: {
    "pictures.choose": "选择图片", "pictures.hint": "也可拖放到这里，同名 .txt 作为说明；支持文件夹和画廊里的图片",
    "pictures.caption": "第 {n} 张图片的内容", "pictures.caption.hint": "画面里有什么？", "pictures.remove": "移除第 {n} 张图片", "pictures.removed": "已移除一张图片",
    "pictures.busy": "正在读取第 {done} / {total} 张……", "pictures.refused": "{name}：{what}", "pictures.kind": "不是 PNG、JPEG 或 WebP：{n}", "pictures.texts": "请把图片和它们的 .txt 文件一起选择", "pictures.list": "图片",
  },
});

const TYPES = ["image/png", "image/jpeg", "image/webp"];
const stem = (name) => name.replace(/\.[^.]*$/, "");

export class Pictures {
  /** `dataset()` answers with the id of one, begun where there is none yet; `changed(count)` hears of every change. */
  constructor({ api, toast, complain, saying, dataset, changed }) {
    Object.assign(this, { api, toast, complain, saying, dataset, changed, items: [], id: null, refused: "" });
    this.input = h("input", { type: "file", multiple: true, accept: [...TYPES, ".txt"].join(","), class: "unseen", tabindex: "-1", aria: { label: t("pictures.choose") }, on: { change: () => { this.take([...this.input.files]).catch(this.complain); this.input.value = ""; } } });
    this.choose = h("button", { type: "button", class: "pictures-choose", on: { click: () => this.input.click() } }, icon("picture"), h("span", { text: t("pictures.choose") }), h("span", { class: "soft small", text: t("pictures.hint") }));
    this.status = h("p", { class: "small soft", role: "status", hidden: true });
    this.wrongPlace = h("p", { class: "wrong", role: "alert", hidden: true });
    this.list = h("ul", { class: "pictures", aria: { label: t("pictures.list") } });
    this.element = h("section", { class: "pictures-part" }, this.choose, this.input, this.status, this.wrongPlace, this.list);
    this.element.addEventListener("dragover", (event) => { event.preventDefault(); this.choose.classList.add("is-over"); });
    this.element.addEventListener("dragleave", () => this.choose.classList.remove("is-over"));
    this.element.addEventListener("drop", (event) => { event.preventDefault(); this.choose.classList.remove("is-over"); this._dropped(event.dataTransfer).catch(this.complain); });
  }

  /** Shows a dataset; null shows none. */
  show(dataset) {
    this.id = dataset?.id ?? null;
    this.items = dataset?.pictures ?? [];
    fill(this.list, this.items.map((picture, index) => this._card(picture, index)));
    this._refuse("");
    this.changed(this.items.length);
  }

  /** Says what is wrong with the pictures, beside what was refused when they were taken in. */
  wrong(text) {
    const told = [this.refused, text].filter(Boolean).join(" · ");
    this.wrongPlace.hidden = !told;
    fill(this.wrongPlace, told && icon("warn", 14), told && h("span", { text: told }));
  }

  _refuse(text) {
    this.refused = text;
    this.wrong("");
  }

  focus() { this.choose.focus(); }

  /** Takes files in: pictures, and texts of the same names as what they show. */
  async take(files) {
    const texts = new Map();
    for (const file of files) if (/\.txt$/i.test(file.name)) texts.set(stem(file.webkitRelativePath || file.place || file.name), (await file.text()).trim());
    const pictures = files.filter((file) => TYPES.includes(file.type));
    const others = files.length - pictures.length - texts.size;
    if (!pictures.length) return this._refuse(t(others ? "pictures.kind" : "pictures.texts", { n: others }));
    this._refuse("");
    const refused = others ? [t("pictures.kind", { n: others })] : [];
    const id = await this.dataset();
    for (const [index, file] of pictures.entries()) {
      this._busy(t("pictures.busy", { done: index + 1, total: pictures.length }));
      const caption = texts.get(stem(file.webkitRelativePath || file.place || file.name)) ;
      try {
        this._put(await this.api.upload(`/api/datasets/${id}/pictures`, file, { parameters: { caption: caption?.slice(0, 2000) } }));
      } catch (error) { refused.push(t("pictures.refused", { name: file.name, what: this.saying(error) })); }
    }
    this._busy("");
    this._refuse(refused.join(" · "));
    this.changed(this.items.length);
  }

  async _dropped(data) {
    const links = data.getData("text/uri-list").split(/\s+/).filter((link) => link.startsWith(location.origin));
    const outputs = links.map((link) => /\/api\/outputs\/([^/?#]+)\//.exec(link)?.[1]).filter(Boolean);
    const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...data.files];
    if (outputs.length) {
      const id = await this.dataset();
      return this.show(await this.api.post(`/api/datasets/${id}/outputs`, { outputs }));
    }
    if (!entries.some((entry) => entry.isDirectory)) return this.take(files);
    return this.take((await Promise.all(entries.map(within))).flat());
  }

  _put(picture) {
    const at = this.items.findIndex((one) => one.id === picture.id);
    if (at >= 0) { this.items[at] = picture; this.list.children[at].replaceWith(this._card(picture, at)); return; }
    this.items.push(picture);
    this.list.append(this._card(picture, this.items.length - 1));
  }

  _card(picture, index) {
    const n = index + 1;
    const place = `/api/datasets/${this.id}/pictures/${picture.id}`;
    const caption = h("textarea", { rows: "2", value: picture.caption, placeholder: t("pictures.caption.hint"), aria: { label: t("pictures.caption", { n }) }, on: { change: () => {
      this.written = Promise.all([this.written, this._write(picture, place, caption.value)]);
    } } });
    return h("li", { class: "picture" },
      h("img", { src: `${place}/thumbnail?size=256`, alt: picture.caption, loading: "lazy", decoding: "async", width: picture.width, height: picture.height }),
      h("button", { type: "button", class: "picture-close", title: t("pictures.remove", { n }), aria: { label: t("pictures.remove", { n }) }, on: { click: () => this._remove(picture, place) } }, icon("close", 12)),
      caption, h("span", { class: "small soft number", text: `${picture.width} × ${picture.height} · ${bytes(picture.bytes)}` }));
  }

  async _write(picture, place, caption) {
    try {
      picture.caption = (await this.api.patch(place, { caption })).caption;
      this.changed(this.items.length);
    } catch (error) { this.complain(error); }
  }

  /** Resolves when the server knows every caption, that which is being typed too. */
  settled() {
    const field = document.activeElement;
    if (this.list.contains(field)) {
      field.blur();
      field.focus();
    }
    return this.written;
  }

  /** Takes a picture out once nobody has undone it. */
  async _remove(picture, place) {
    const before = await (await fetch(place)).blob();
    try { await this.api.delete(place); } catch (error) { return this.complain(error); }
    const id = this.id;
    this.items = this.items.filter((one) => one !== picture);
    this.show({ id, pictures: this.items });
    this.choose.focus();
    this.toast({ text: t("pictures.removed"), undo: async () => {
      try {
        const put = await this.api.upload(`/api/datasets/${id}/pictures`, before, { parameters: { caption: picture.caption } });
        if (this.id === id) { this._put(put); this.changed(this.items.length); }
      } catch (error) { this.complain(error); }
    } });
  }

  _busy(text) {
    this.status.hidden = !text;
    this.status.textContent = text;
  }
}

/** The files of what was dropped, those in folders too. */
async function within(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [Object.assign(file, { place: entry.fullPath })];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(within))).flat();
}
