// The settings of the chosen model, drawn from its form; what is at its default is folded into one grey line.

import { fill, h, put } from "../../dom.js";
import { addWords, inLine, number, t } from "../../words.js";
import { control, fold, nameOf, said } from "../controls.js";
import { inWords } from "./knobs.js";

addWords({
  en: {
    "make.sampling": "Sampling", "make.sampler": "Sampler", "make.schedule": "Schedule", "make.steps": "Steps", "make.guidance": "Guidance",
    "make.steps.line": "{n} steps", "make.more": "More settings", "make.more.none": "all at their defaults", "make.more.find": "Find a setting",
    "make.more.idle": "{sampler} does not use it", "make.format": "File format", "make.quality": "Quality", "make.walks": "{sampler} walks its own schedule",
    "make.help.guidance": "how closely to follow the prompt", "make.help.steps": "more take longer; after some the picture hardly changes",
  },
  zh: {
    "make.sampling": "采样", "make.sampler": "采样器", "make.schedule": "调度", "make.steps": "步数", "make.guidance": "引导强度",
    "make.steps.line": "{n} 步", "make.more": "更多设置", "make.more.none": "均为默认值", "make.more.find": "查找设置",
    "make.more.idle": "{sampler} 不使用它", "make.format": "文件格式", "make.quality": "质量", "make.walks": "{sampler} 使用自己的调度",
    "make.help.guidance": "对提示词的遵循程度", "make.help.steps": "越多越慢；超过一定步数后画面变化很小",
  },
});

const FEW = 10; // settings that need no search

/** Two folds, "Sampling" and "More settings", for one draft. `changed()` hears of every change. */
export class Settings {
  constructor({ store, changed }) {
    this.changed = changed;
    this.store = store;
    const kept = (name) => ({ open: store.get(`open.${name}`, false), toggled: (open) => store.set(`open.${name}`, open) });
    this.sampling = fold(t("make.sampling"), kept("sampling"));
    this.more = fold(t("make.more"), kept("more"));
    this.elements = [this.sampling.element, this.more.element];
    this.fields = new Map();
  }

  /** Draws the settings of a form into the folds; `draft` is what they change, `vaes` what can be chosen among. */
  draw(form, forms, draft, vaes) {
    Object.assign(this, { form, forms, draft, vaes });
    this.fields.clear();
    const { defaults } = form;
    const told = (name, type, more) => ({ name, type, default: defaults[name], help: "", low: null, high: null, choices: [], ...more });
    const field = (path, knob, place, label) => {
      const drawn = control(knob, (value) => {
        if (value === null) delete place()[knob.name];
        else place()[knob.name] = value;
        drawn.wrong("");
        this.lines();
        this.changed();
      }, label ? { label } : {});
      drawn.set(place()[knob.name] ?? null);
      this.fields.set(path, { ...drawn, fold: path.startsWith("knobs.") || path.startsWith("output.") ? this.more : this.sampling });
      return drawn.element;
    };
    const sampling = () => this.draft.sampling;
    fill(this.sampling.body,
      field("sampling.sampler", told("sampler", "str", { choices: forms.samplers.map((sampler) => sampler.name) }), sampling, t("make.sampler")),
      field("sampling.schedule", told("schedule", "str", { choices: forms.schedules.map((schedule) => schedule.name) }), sampling, t("make.schedule")),
      this.walks = h("p", { class: "small soft", hidden: true }),
      field("sampling.steps", told("steps", "int", { low: 1, high: 150, help: t("make.help.steps") }), sampling, t("make.steps")),
      field("sampling.guidance", told("guidance", "float", { low: 0, high: 30, help: t("make.help.guidance") }), sampling, t("make.guidance")));
    const knobs = form.knobs.map((knob) => field(`knobs.${knob.name}`, inWords(knob), () => this.draft.knobs));
    const formats = forms.formats.map((format) => format.id);
    const output = () => this.draft.output;
    const files = [
      field("output.format", told("format", "str", { default: formats[0], choices: formats }), output, t("make.format")),
      field("output.quality", told("quality", "int", { default: 92, low: 1, high: 100 }), output, t("make.quality")),
    ];
    const all = [this.vae(), ...knobs, ...files];
    const find = all.length > FEW && h("input", {
      type: "search", placeholder: t("make.more.find"), aria: { label: t("make.more.find") },
      on: { input: () => { for (const one of all) one.hidden = !`${one.textContent} ${one.dataset.name}`.toLowerCase().includes(find.value.trim().toLowerCase()); } },
    });
    fill(this.more.body, find, all);
    this.lines();
  }

  /** The choice of what makes pictures of latents. */
  vae() {
    const { draft } = this;
    const own = { id: "none", name: t("adapters.vae.none") };
    const one = draft.vae && { ...draft.vae, id: idOf(draft.vae) };
    const found = [own, ...this.vaes, ...(one && ![own, ...this.vaes].some((vae) => vae.id === one.id) ? [one] : [])];
    const names = new Map([["", t("adapters.vae.automatic")], ...found.map((vae) => [vae.id, vae.name])]);
    const drawn = control({ name: "vae", type: "str", default: "", help: t("adapters.vae.help"), low: null, high: null, choices: [...names.keys()], names }, (id) => {
      const vae = found.find((other) => other.id === id);
      this.draft.vae = !id ? null : id === "none" ? { name: "none" } : { id: vae.id, name: vae.name, sha256: vae.sha256 ?? null };
      drawn.wrong("");
      this.lines();
      this.changed();
    }, { label: t("adapters.vae") });
    drawn.set(one ? one.id : null);
    this.fields.set("vae", { ...drawn, fold: this.more });
    return drawn.element;
  }

  /** Says in one line what each fold holds, and which settings the sampler leaves alone. */
  lines() {
    const { draft, form, forms } = this;
    const now = (name) => draft.sampling[name] ?? form.defaults[name];
    const sampler = forms.samplers.find((one) => one.name === now("sampler"));
    const schedule = sampler?.takes_schedule === false ? "" : now("schedule") === "Automatic" ? "" : now("schedule");
    this.sampling.line([[now("sampler"), schedule].filter(Boolean).join(" "), t("make.steps.line", { n: now("steps") }), number(now("guidance"), 2)].join(" · "));
    const known = form.knobs.filter((knob) => knob.name in draft.knobs).map((knob) => `${nameOf(knob.name)} ${said(draft.knobs[knob.name])}`);
    if (draft.vae) known.unshift(`${t("adapters.vae")} ${idOf(draft.vae) === "none" ? t("adapters.vae.none") : inLine(draft.vae.name)}`);
    if (draft.output.format) known.push(draft.output.format.toUpperCase());
    this.more.line(known.join(" · ") || t("make.more.none"));
    this.walks.hidden = sampler?.takes_schedule !== false;
    this.walks.textContent = t("make.walks", { sampler: sampler?.name });
    // A knob that some sampler obeys is idle under one that doesn't.
    const anyObeys = new Set(forms.samplers.flatMap((one) => one.options ?? []));
    for (const [path, field] of this.fields) {
      const name = path.replace("knobs.", "");
      const idle = path.startsWith("knobs.") && anyObeys.has(name) && !sampler?.options?.includes(name);
      field.element.classList.toggle("is-idle", Boolean(idle));
      field.element.title = idle ? t("make.more.idle", { sampler: sampler?.name }) : "";
    }
    this.fields.get("output.quality").element.hidden = !forms.formats.find((format) => format.id === (draft.output.format ?? forms.formats[0].id))?.lossy;
  }
}

const idOf = (vae) => vae.id ?? vae.name;
