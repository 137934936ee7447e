// The system: what the devices hold, how full the disk is, what the log says, what can be set, and who may come in.

import { h, fill, fresh, put } from "../dom.js";
import { facts } from "../parts/facts.js";
import { icon } from "../parts/icons.js";
import { troubled } from "../parts/nothing.js";
import { dialog, sure } from "../parts/popover.js";
import { bytes, duration, moment, number } from "../words.js";

/** What this room asks for first; see the frame's. */
export const early = ["/api/system"];

const EVERY = 2000; // ms between two looks at the machine
const LINES = 200; // of the log
const SCOPES = ["read", "generate", "manage", "admin"];
const LIMITS = ["waiting", "per_minute", "pixels_per_day"]; // null is no limit

const words = {
  en: {
    "room.system": "System",
    "system.devices": "Devices", "system.memory": "{used} of {total} in use", "system.free": "Free", "system.other": "Other programs, and work in progress",
    "system.next": "goes first when room is needed", "system.idle": "Nothing is loaded. The first picture loads its model.",
    "system.off": "No worker runs yet. It starts with the first job.", "system.unload": "Unload models", "system.unload.after": "They go once the work at hand is done", "system.bar": "Memory of {name}",
    "system.state.idle": "idle", "system.state.working": "working", "system.state.starting": "starting", "system.state.off": "asleep",
    "system.lane.library": "Work on the shelves",
    "system.disk": "Disk", "system.disk.bar": "Disk", "system.outputs": "Outputs", "system.models": "Models", "system.rest": "Everything else",
    "system.server": "Server", "system.version": "Version", "system.uptime": "Up for", "system.queue": "Queue", "system.queue.told": "{running} running, {waiting} waiting",
    "system.user": "Signed in as", "system.scopes": "May", "system.signout": "Sign out", "system.signedout": "You are signed out. `bottega serve --link` prints a new link.",
    "system.log": "Log", "system.log.follow": "Follow", "system.log.copy": "the log", "system.log.empty": "The log is empty.", "system.log.none": "It holds no warnings and no errors.", "system.log.level": "Only warnings and errors",
    "system.settings": "Settings", "system.settings.saved": "{name} is {value} now", "system.settings.fixed": "These stand in settings.toml in the home folder, and are read when the server starts.",
    "system.setting.model": "Model", "system.setting.model.help": "What a recipe that names none is made with", "system.setting.device": "Device", "system.setting.precision": "Precision",
    "system.setting.parallel_downloads": "Downloads at once", "system.setting.keep_free_mb": "Disk kept free (MB)", "system.setting.open_doors": "Doors open to this machine",
    "system.setting.fetch_pictures": "Pictures by address", "system.setting.requests_per_second": "Requests a second",
    "system.users": "Users and keys", "system.users.none": "Nobody but this machine's owner. Add users so that others can come in with keys of their own.",
    "system.users.add": "Add a user", "system.users.name": "Name", "system.users.name.help": "Up to 32 of a-z, 0-9, dot, dash, underscore", "system.users.again": "It is the same person, who comes back", "system.users.scopes": "May",
    "system.users.change": "Change", "system.users.changing": "Change {name}", "system.users.save": "Save",
    "system.limits": "Limits", "system.limits.help": "An empty one is no limit. A picture of 1024 × 1024 has about a million pixels; days are those of UTC.",
    "system.limit.none": "none", "system.limit.waiting": "Jobs waiting at once", "system.limit.per_minute": "Jobs a minute", "system.limit.pixels_per_day": "Pixels a day",
    "system.users.remove": "Remove", "system.users.removed": "{name} is removed; what they made stays", "system.users.sure": "Remove {name}? Their key is let in no longer. What they made stays.",
    "system.users.key": "The key of {name}", "system.users.key.once": "It is shown this once and kept nowhere. Whoever has it may use the server as {name}.",
    "system.users.renew": "New key", "system.users.renew.sure": "Give {name} a new key? The old one, and browsers that came in with it, are let in no longer.",
    "system.users.copy": "Copy the key", "system.users.done": "I have it",
    "system.scope.read": "look", "system.scope.generate": "make", "system.scope.manage": "manage the models", "system.scope.admin": "everything",
    "system.true": "yes", "system.false": "no", "system.nothing": "none",
  },
  zh: {
    "room.system": "系统",
    "system.devices": "设备", "system.memory": "已用 {used}，共 {total}", "system.free": "空闲", "system.other": "其他程序与正在进行的工作",
    "system.next": "需要空间时最先移出", "system.idle": "没有载入任何模型。第一张图片会载入它的模型。",
    "system.off": "还没有工作进程，有任务时会自动启动。", "system.unload": "卸载模型", "system.unload.after": "当前工作完成后卸载", "system.bar": "{name} 的内存",
    "system.state.idle": "空闲", "system.state.working": "忙碌", "system.state.starting": "正在启动", "system.state.off": "休眠",
    "system.lane.library": "模型库的工作",
    "system.disk": "磁盘", "system.disk.bar": "磁盘", "system.outputs": "作品", "system.models": "模型", "system.rest": "其他",
    "system.server": "服务器", "system.version": "版本", "system.uptime": "已运行", "system.queue": "队列", "system.queue.told": "{running} 个进行中，{waiting} 个等待",
    "system.user": "当前用户", "system.scopes": "权限", "system.signout": "退出", "system.signedout": "你已退出。运行 `bottega serve --link` 可得到新的链接。",
    "system.log": "日志", "system.log.follow": "跟随", "system.log.copy": "日志", "system.log.empty": "日志是空的。", "system.log.none": "其中没有警告，也没有错误。", "system.log.level": "只看警告和错误",
    "system.settings": "设置", "system.settings.saved": "{name} 已设为 {value}", "system.settings.fixed": "这些写在主目录的 settings.toml 中，服务器启动时读取。",
    "system.setting.model": "模型", "system.setting.model.help": "配方没有指明模型时使用", "system.setting.device": "设备", "system.setting.precision": "精度",
    "system.setting.parallel_downloads": "同时下载数", "system.setting.keep_free_mb": "磁盘保留空间（MB）", "system.setting.open_doors": "对本机程序开放接口",
    "system.setting.fetch_pictures": "按地址读取图片", "system.setting.requests_per_second": "每秒请求数",
    "system.users": "用户与密钥", "system.users.none": "只有本机的主人。添加用户后，其他人可以用自己的密钥进入。",
    "system.users.add": "添加用户", "system.users.name": "名称", "system.users.name.help": "最多 32 个字符：a-z、0-9、点、短横线、下划线", "system.users.again": "是同一个人回来", "system.users.scopes": "权限",
    "system.users.change": "更改", "system.users.changing": "更改 {name}", "system.users.save": "保存",
    "system.limits": "限额", "system.limits.help": "留空表示不限。一张 1024 × 1024 的图片约有一百万像素；日期按 UTC 计算。",
    "system.limit.none": "不限", "system.limit.waiting": "同时等待的任务", "system.limit.per_minute": "每分钟任务数", "system.limit.pixels_per_day": "每天像素数",
    "system.users.remove": "移除", "system.users.removed": "{name} 已移除；其作品仍保留", "system.users.sure": "移除 {name}？其密钥将失效，作品仍保留。",
    "system.users.key": "{name} 的密钥", "system.users.key.once": "密钥只显示这一次，不会保存在任何地方。持有者可以用 {name} 的身份使用服务器。",
    "system.users.renew": "新密钥", "system.users.renew.sure": "给 {name} 换一个新密钥？旧密钥和用它登录的浏览器将失效。",
    "system.users.copy": "复制密钥", "system.users.done": "已保存",
    "system.scope.read": "查看", "system.scope.generate": "创作", "system.scope.manage": "管理模型", "system.scope.admin": "全部",
    "system.true": "是", "system.false": "否", "system.nothing": "无",
  },
};

export default {
  id: "system",
  order: 5,
  words,
  mount(element, context) {
    const room = new SystemRoom(element, context);
    return () => room.close();
  },
};

class SystemRoom {
  constructor(element, context) {
    Object.assign(this, { element, context, t: context.t, closed: false });
    this.follow = true;
    this.only = context.store.get("warnings", false);
    this.build();
    this.look();
    this.timer = setInterval(() => document.visibilityState === "visible" && this.lookAgain(), EVERY);
    this.start();
  }

  build() {
    const { t } = this;
    const part = (name, ...children) => h("section", { class: `system-part is-${name}`, aria: { label: t(`system.${name}`) } }, h("h2", { text: t(`system.${name}`) }), children);
    this.devices = h("div", { class: "devices" });
    this.unloading = h("button", { type: "button", class: "quiet", hidden: true, text: t("system.unload"), on: { click: () => this.unload() } });
    this.disk = h("div", {});
    this.server = h("div", {});
    this.settings = h("div", { class: "settings" });
    this.users = h("div", {});
    this.log = h("ol", { class: "log scrolls", tabindex: "0", aria: { label: t("system.log") }, on: { scroll: () => this.scrolled() } });
    const only = h("input", { type: "checkbox", class: "switch", checked: this.only, on: { change: () => { this.only = only.checked; this.context.store.set("warnings", this.only); this.drawLog(); } } });
    this.followButton = h("button", { type: "button", class: "quiet", aria: { pressed: "true" }, text: t("system.log.follow"), on: { click: () => this.setFollow(!this.follow) } });
    const [settings, users] = [part("settings", this.settings), part("users", this.users)];
    this.adminParts = [
      settings, users,
      h("section", { class: "system-part is-log", aria: { label: t("system.log") } }, h("div", { class: "system-head" }, h("h2", { text: t("system.log") }), h("span", { class: "grow" }),
        h("label", { class: "check-row" }, only, h("span", { text: t("system.log.level") })), this.followButton,
        h("button", { type: "button", class: "quiet square", title: t("frame.copy", { what: t("system.log.copy") }), aria: { label: t("frame.copy", { what: t("system.log.copy") }) }, on: { click: () => this.context.copy(this.logText()) } }, icon("copy"))), this.log),
    ];
    for (const each of this.adminParts) each.hidden = true;
    const devices = h("section", { class: "system-part is-devices", aria: { label: t("system.devices") } },
      h("div", { class: "system-head" }, h("h2", { text: t("system.devices") }), h("span", { class: "grow" }), this.unloading), this.devices);
    this.message = h("div", {});
    this.sheet = h("div", { class: "system-sheet" }, h("h1", { class: "unseen", text: t("room.system") }), this.message,
      h("div", { class: "system-column is-wide" }, devices, settings, this.adminParts[2]),
      h("div", { class: "system-column" }, part("server", this.server), part("disk", this.disk), users));
    put(this.element, h("div", { class: "system-page scrolls" }, this.sheet));
  }

  async start() {
    const { api } = this.context;
    this.lacking = false;
    try {
      this.me = (await this.context.met) ?? (await api.get("/api/me"));
    } catch (error) {
      this.lacking = true;
      return this.failed(error);
    }
    if (this.closed) return;
    this.drawServer();
    if (!this.me.scopes.includes("admin")) return;
    for (const each of this.adminParts) each.hidden = false;
    this.loadLog(); // the largest part of the room comes first
    this.loadSettings();
    this.loadUsers();
  }

  /** Shows how the machine is now; answers whether it could be asked. */
  async look() {
    try {
      this.told = await this.context.api.get("/api/system");
    } catch (error) {
      this.failed(error);
      return false;
    }
    if (this.closed) return false;
    fill(this.message);
    this.drawDevices();
    this.drawDisk();
    this.drawServer();
    if (this.lacking) this.start();
    return true;
  }

  async lookAgain() {
    if (await this.look() && this.me?.scopes.includes("admin") && this.follow) this.loadLog();
  }

  /** A part is missing; where the server could not be reached, it is asked for again as soon as it can. */
  missed(error) { this.lacking ||= error.kind === "Unreachable"; }

  failed(error) {
    this.missed(error);
    if (!this.closed) fill(this.message, troubled(this.context.saying(error), () => { fill(this.message); this.look(); this.start(); }));
  }

  // ------------------------------------------------------------------------------------------------------- memory

  drawDevices() {
    const { t } = this;
    const devices = this.told.devices;
    fill(this.devices, devices.length ? devices.map((device) => this.device(device)) : h("p", { class: "soft", text: t("system.off") }));
    const holds = devices.some((device) => device.models?.length);
    // A button that is hidden has no focus any more, and the keyboard would begin at the top of the page.
    if (!holds && this.unloading === document.activeElement) this.sheet.querySelector(".system-out")?.focus();
    this.unloading.hidden = !holds || !this.context.may("generate");
  }

  async unload() {
    const { t, context } = this;
    try {
      await context.api.post("/api/system/unload");
    } catch (error) {
      return context.complain(error);
    }
    if (await this.look() && !this.unloading.hidden) context.toast({ text: t("system.unload.after") });
  }

  device(device) {
    const { t } = this;
    const total = device.memory_total ?? 0;
    const models = [...(device.models ?? [])].sort((a, b) => b.bytes - a.bytes);
    const held = models.reduce((sum, model) => sum + model.bytes, 0);
    // What is free is told once a worker has done something; until then it is what no model takes.
    const free = Math.min(device.memory_free ?? total - held, total - held);
    const other = total - free - held;
    const pieces = [
      ...models.map((model, index) => ({ name: model.name, bytes: model.bytes, sort: `is-model-${index % 4}`, next: model.next_out })),
      other > 0 && { name: t("system.other"), bytes: other, sort: "is-other" },
      free > 0 && { name: t("system.free"), bytes: free, sort: "is-free" },
    ].filter(Boolean);
    const name = device.name || device.lane;
    return h("article", { class: "device" },
      h("header", { class: "device-head" }, h("h3", { text: device.lane === "library" ? t("system.lane.library") : name }),
        h("span", { class: ["device-state", "soft", "small", `is-${device.state}`], text: t(`system.state.${device.state}`, {}, device.state) }), h("span", { class: "grow" }),
        total > 0 && device.memory_free !== null && h("span", { class: "soft small number", text: t("system.memory", { used: bytes(total - free), total: bytes(total) }) })),
      total > 0 && bar(t("system.bar", { name }), pieces, total),
      total > 0 && legend(pieces, t("system.next")),
      total > 0 && !models.length && device.lane !== "library" && h("p", { class: "soft small", text: t("system.idle") }));
  }

  drawDisk() {
    const { t } = this;
    const { free, total, outputs = 0, models = 0 } = this.told.disk;
    const pieces = [
      { name: t("system.models"), bytes: models, sort: "is-model-0" }, { name: t("system.outputs"), bytes: outputs, sort: "is-model-1" },
      { name: t("system.rest"), bytes: Math.max(0, total - free - outputs - models), sort: "is-other" }, { name: t("system.free"), bytes: free, sort: "is-free" },
    ].filter((piece) => piece.bytes > 0);
    fill(this.disk, h("div", { class: "device" }, bar(t("system.disk.bar"), pieces, total), legend(pieces)));
  }

  drawServer() {
    const { t, told, me } = this;
    const queue = told?.queue;
    fill(this.server, facts([
      [t("system.version"), told?.version, told?.version],
      [t("system.uptime"), told && duration(told.uptime)],
      [t("system.queue"), queue && t("system.queue.told", { running: number(queue.running ?? 0), waiting: number(queue.waiting ?? 0) })],
      [t("system.user"), me?.name], [t("system.scopes"), me && SCOPES.filter((scope) => me.scopes.includes(scope)).map((scope) => t(`system.scope.${scope}`)).join(", ")],
    ], this.context.copy), h("button", { type: "button", class: "system-out", text: t("system.signout"), on: { click: () => this.signOut() } }));
  }

  async signOut() {
    try {
      await this.context.api.delete("/api/session");
    } catch (error) {
      return this.context.complain(error);
    }
    this.close();
    this.context.leave(this.t("system.signedout"));
  }

  // --------------------------------------------------------------------------------------------------------- log

  async loadLog() {
    try {
      const { lines } = await this.context.api.get("/api/system/log", { lines: LINES });
      this.lines = lines;
    } catch (error) {
      this.lines = this.logKey = null;
      return fill(this.log, h("li", { class: "wrong", text: this.context.saying(error) }));
    }
    if (!this.closed) this.drawLog();
  }

  drawLog() {
    if (!this.lines) return;
    const entries = this.lines.filter((entry) => !this.only || /^(warn|error|crit)/i.test(entry.level));
    const key = JSON.stringify([this.lines.length > 0, entries.length, entries.at(-1), this.only]);
    if (key === this.logKey) return;
    this.logKey = key;
    fill(this.log, entries.length ? entries.map(({ at, level, message }) => h("li", { class: `is-${level.toLowerCase()}` },
      h("time", { class: "number", text: at ? clock(at) : "", title: at ? exactly(at) : null }), h("span", { class: "log-text" }, inWords(message)))) : h("li", { class: "soft", text: this.t(this.lines.length ? "system.log.none" : "system.log.empty") }));
    if (this.follow) this.log.scrollTop = this.log.scrollHeight;
  }

  logText() {
    return (this.lines ?? []).map(({ at, level, message }) => [at && new Date(at * 1000).toISOString(), level, message].filter(Boolean).join(" ")).join("\n");
  }

  scrolled() {
    const atEnd = this.log.scrollTop + this.log.clientHeight > this.log.scrollHeight - 24;
    if (atEnd !== this.follow) this.setFollow(atEnd);
  }

  setFollow(follow) {
    this.follow = follow;
    this.followButton.setAttribute("aria-pressed", String(follow));
    if (follow) this.log.scrollTop = this.log.scrollHeight;
  }

  // ---------------------------------------------------------------------------------------------------- settings

  async loadSettings() {
    try {
      this.drawSettings(await this.context.api.get("/api/settings"));
    } catch (error) {
      this.missed(error);
      fill(this.settings, h("p", { class: "wrong", text: this.context.saying(error) }));
    }
  }

  drawSettings(told) {
    const { t, context } = this;
    const list = h("datalist", { id: fresh("models") });
    const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
    const change = async (value) => {
      wrong.hidden = true;
      model.removeAttribute("aria-invalid");
      try {
        this.drawSettings(await context.api.patch("/api/settings", { model: value }));
        context.toast({ text: t("system.settings.saved", { name: t("system.setting.model"), value }), undo: () => change(told.model) });
      } catch (error) {
        wrong.textContent = context.saying(error.problems?.[0] ?? error);
        wrong.hidden = false;
        model.setAttribute("aria-invalid", "true");
      }
    };
    let typing = 0;
    const find = async () => {
      const { items } = await context.api.get("/api/models", { q: model.value === told.model ? "" : model.value, kind: "checkpoint", runs: true, limit: 20 });
      fill(list, items.map((item) => h("option", { value: item.name })));
    };
    const model = h("input", {
      type: "text", list: list.id, value: told.model, autocomplete: "off", spellcheck: "false",
      on: { focus: find, input: () => { clearTimeout(typing); typing = setTimeout(find, 120); }, change: () => model.value.trim() && change(model.value.trim()) },
    });
    const others = Object.entries(told).filter(([name]) => name !== "model");
    fill(this.settings, h("div", { class: "setting" }, h("label", { class: "setting-row" },
      h("span", { class: "setting-name" }, t("system.setting.model"), h("small", { class: "soft", text: t("system.setting.model.help") })), model, list), wrong),
    h("div", { class: "setting-fixed" }, facts(others.map(([name, value]) => [t(`system.setting.${name}`, {}, name.replaceAll("_", " ")), saidOf(t, value)]), context.copy),
      h("p", { class: "soft small", text: t("system.settings.fixed") })));
  }

  // ------------------------------------------------------------------------------------------------------- users

  async loadUsers() {
    try {
      this.drawUsers((await this.context.api.get("/api/users")).items);
    } catch (error) {
      this.missed(error);
      fill(this.users, h("p", { class: "wrong", text: this.context.saying(error) }));
    }
  }

  drawUsers(users) {
    const { t } = this;
    const act = (what, user, run) => h("button", { type: "button", class: "quiet", data: { act: what, user: user.name }, aria: { label: `${t(`system.users.${what}`)}: ${user.name}` }, text: t(`system.users.${what}`), on: { click: () => run(user) } });
    const line = (parts) => h("p", { class: "soft small", text: parts.filter(Boolean).join(" · ") });
    fill(this.users, users.length ? h("ul", { class: "users" }, users.map((user) => {
      const limits = LIMITS.filter((name) => user.quota[name] !== null);
      return h("li", { class: "user" },
        h("div", { class: "grow" }, h("strong", { text: user.name }), line([user.scopes.map((scope) => t(`system.scope.${scope}`)).join(", "), user.created && moment(user.created)]),
          limits.length > 0 && line(limits.map((name) => `${t(`system.limit.${name}`)}: ${number(user.quota[name])}`.replaceAll(" ", "\u00a0")))),
        h("div", { class: "user-acts" }, act("change", user, (one) => this.changing(one)), act("renew", user, (one) => this.renewing(one)), act("remove", user, (one) => this.removing(one))));
    })) : h("p", { class: "soft small prose", text: t("system.users.none") }),
    h("button", { type: "button", class: "users-add", on: { click: () => this.adding() } }, icon("plus"), h("span", { text: t("system.users.add") })));
  }

  adding() {
    const { t, context } = this;
    const name = h("input", { type: "text", required: true, autofocus: true, maxlength: "32", pattern: "[a-z0-9][a-z0-9._\\-]*", autocomplete: "off", spellcheck: "false" });
    const again = h("input", { type: "checkbox" });
    const back = h("label", { class: "check-row", hidden: true }, again, h("span", { text: t("system.users.again") }));
    // What was wrong with one name says nothing of another.
    name.addEventListener("input", () => { back.hidden = true; again.checked = false; });
    this.rightsDialog({
      title: t("system.users.add"), act: t("system.users.add"), scopes: ["read", "generate"], quota: {},
      first: [h("label", { class: "form-row" }, h("span", { text: t("system.users.name") }), name, h("small", { class: "soft", text: t("system.users.name.help") })), back],
      async send(rights) {
        try {
          return await context.api.post("/api/users", { name: name.value.trim(), again: again.checked, ...rights });
        } catch (error) {
          back.hidden = error.kind !== "LeftBehind";
          throw error;
        }
      },
      done: async (user) => {
        await Promise.all([this.loadUsers(), this.showKey(user)]);
        this.focusAdding();
      },
    });
  }

  changing({ name, scopes, quota }) {
    const { t, context } = this;
    this.rightsDialog({
      title: t("system.users.changing", { name }), act: t("system.users.save"), scopes, quota, first: [],
      send: (rights) => {
        // What was not touched is not sent: somebody else may have changed it since.
        const changes = { quota: Object.fromEntries(Object.entries(rights.quota).filter(([limit, value]) => value !== quota[limit])) };
        if (String(rights.scopes) !== String(scopes)) changes.scopes = rights.scopes;
        return context.api.patch(`/api/users/${encodeURIComponent(name)}`, changes);
      },
      done: async () => {
        await this.loadUsers();
        this.users.querySelector(`[data-act="change"][data-user="${name}"]`)?.focus();
      },
    });
  }

  /**
   * Asks what somebody may do and ask for, beginning with these scopes and this quota, below the `first` rows. What was
   * chosen is sent, and `done` is told what was answered; what was refused is said, and everything stays as it was typed.
   */
  rightsDialog({ title, act, first, scopes, quota, send, done }) {
    const { t, context } = this;
    dialog(title, (body, close) => {
      const boxes = SCOPES.map((scope) => [scope, h("input", { type: "checkbox", checked: scopes.includes(scope), autofocus: true })]); // the first, where nothing stands before it
      const limits = LIMITS.map((name) => [name, h("input", { type: "number", class: "number", min: "1", step: "1", inputmode: "numeric", placeholder: t("system.limit.none"), value: quota[name] ?? "" })]);
      const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
      const submit = h("button", { type: "submit", class: "main", text: act });
      put(body, h("form", { class: "form", on: {
        input: () => { wrong.hidden = true; },
        submit: async (event) => {
          event.preventDefault();
          submit.disabled = true;
          try {
            const answer = await send({
              scopes: boxes.filter(([, box]) => box.checked).map(([scope]) => scope),
              quota: Object.fromEntries(limits.map(([name, input]) => [name, input.value === "" ? null : Number(input.value)])),
            });
            close();
            await done(answer);
          } catch (error) {
            const problem = error.problems?.[0];
            wrong.textContent = context.saying(problem ?? error);
            wrong.hidden = false;
            limits.find(([name]) => problem?.field === `quota.${name}`)?.[1].focus();
          } finally {
            submit.disabled = false;
          }
        },
      } }, first,
      h("fieldset", { class: "form-set" }, h("legend", { text: t("system.users.scopes") }), boxes.map(([scope, box]) => h("label", { class: "check-row" }, box, h("span", { text: t(`system.scope.${scope}`) })))),
      h("fieldset", { class: "form-set" }, h("legend", { text: t("system.limits") }), limits.map(([name, input]) => h("label", { class: "limit-row" }, h("span", { text: t(`system.limit.${name}`) }), input)),
        h("small", { class: "soft", text: t("system.limits.help") })),
      wrong, h("div", { class: "form-acts" }, submit)));
    }, { className: "small" });
  }

  showKey({ name, key }) {
    const { t, context } = this;
    return dialog(t("system.users.key", { name }), (body, close) => put(body, h("div", { class: "form" },
      h("p", { text: t("system.users.key.once", { name }) }), h("p", { class: "key" }, h("code", { text: key })),
      h("div", { class: "form-acts" }, h("button", { type: "button", class: "quiet", text: t("system.users.done"), on: { click: () => close() } }),
        h("button", { type: "button", class: "main", autofocus: true, on: { click: () => context.copy(key) } }, icon("copy"), h("span", { text: t("system.users.copy") }))))));
  }

  async renewing({ name }) {
    const { t, context } = this;
    if (!await sure(t("system.users.renew"), t("system.users.renew.sure", { name }))) return;
    try {
      this.showKey(await context.api.post(`/api/users/${encodeURIComponent(name)}/key`));
    } catch (error) {
      context.complain(error);
      this.loadUsers();
    }
  }

  async removing({ name }) {
    const { t, context } = this;
    if (!await sure(t("system.users.remove"), t("system.users.sure", { name }))) return;
    try {
      await context.api.delete(`/api/users/${encodeURIComponent(name)}`);
      context.toast({ text: t("system.users.removed", { name }) });
    } catch (error) {
      context.complain(error);
    }
    await this.loadUsers();
    this.focusAdding(); // the list is drawn anew, and whoever was in it goes on from here
  }

  focusAdding() { this.users.querySelector(".users-add")?.focus(); }

  close() {
    this.closed = true;
    clearInterval(this.timer);
  }
}

/** One bar of pieces by their bytes. */
function bar(label, pieces, total) {
  return h("div", { class: "bytes-bar", role: "img", aria: { label: `${label}: ${pieces.map((piece) => `${piece.name} ${bytes(piece.bytes)}`).join(", ")}` } },
    pieces.map((piece) => h("span", { class: ["bytes-piece", piece.sort, piece.next && "is-next"], title: `${piece.name} · ${bytes(piece.bytes)}`, style: { "flex-grow": piece.bytes / total } })));
}

function legend(pieces, next = "") {
  return h("ul", { class: "legend" }, pieces.map((piece) => h("li", {}, h("span", { class: ["swatch", piece.sort, piece.next && "is-next"], aria: { hidden: "true" } }),
    h("span", { class: "cut", text: piece.name, title: piece.name }), h("span", { class: "number soft", text: bytes(piece.bytes) }), piece.next && h("span", { class: "legend-next", text: next }))));
}

/** What was written down, and the figures behind it, which are JSON, as far as they say more. */
function inWords(message) {
  const at = message.indexOf(" {");
  let told = null;
  try {
    told = at > 0 && JSON.parse(message.slice(at));
  } catch { /* not figures: text like any other */ }
  if (!told) return message;
  const said = message.slice(0, at);
  const more = Object.entries(told).filter(([, value]) => value !== null && value !== "" && !said.includes(String(value)));
  return [said, h("span", { class: "log-more", text: more.map(([name, value]) => `  ${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join("") })];
}

const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);

/** Day and time as a log has them; not by Intl, which takes 20 ms of the first paint. */
function exactly(at) {
  const date = new Date(at * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(at)}`;
}

function saidOf(t, value) {
  if (typeof value === "boolean") return t(value ? "system.true" : "system.false");
  if (Array.isArray(value)) return value.join(", ") || t("system.nothing");
  if (typeof value === "number") return number(value, 2);
  return value === "" ? t("system.nothing") : String(value);
}
