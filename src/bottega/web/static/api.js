// Speaks the public API: JSON in and out, errors as one class that says what happened, to which field, what to do next.

import { parse, write } from "./exact.js";
import { refusal } from "./refusals.js";

/** What the server, or the way to it, refused, in the language of the page. `problems` are `{field, what, remedy}`, for the fields they belong to. */
export class ApiError extends Error {
  constructor(status, told) {
    const what = refusal(told.what || `HTTP ${status}`);
    super(what);
    this.name = "ApiError";
    this.status = status;
    this.kind = told.class || "";
    this.what = what;
    this.remedy = refusal(told.remedy || "");
    this.problems = (told.problems || []).map((problem) => ({ ...problem, what: refusal(problem.what), remedy: refusal(problem.remedy || "") }));
  }
}

/** A path with parameters; null, undefined and "" leave one out, arrays give it several times. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== undefined && one !== null && one !== "") query.append(name, String(one));
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

const watchers = new Set();
/** Calls `run(status)` after every answer of the server, and with 0 when it can't be reached. */
export function watchAnswers(run) {
  watchers.add(run);
  return () => watchers.delete(run);
}

async function ask(method, path, { body, headers = {}, signal, keepalive, parameters } = {}) {
  let answer;
  try {
    answer = await fetch(address(path, parameters), {
      method, body, signal, keepalive, headers: { Accept: "application/json", ...headers }, credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    for (const run of watchers) run(0);
    throw new ApiError(0, { class: "Unreachable", what: "unreachable", remedy: "" });
  }
  for (const run of watchers) run(answer.status);
  if (answer.status === 204) return null;
  const json = (answer.headers.get("Content-Type") || "").includes("json");
  if (!answer.ok) {
    let told = {};
    if (json) {
      try { told = (await answer.json()).error || {}; } catch { /* a broken body tells nothing more than its status */ }
    }
    throw new ApiError(answer.status, told);
  }
  return json ? parse(await answer.text()) : answer.blob();
}

const asJson = (body, options) => ({
  ...options, body: write(body ?? {}), headers: { "Content-Type": "application/json", ...(options?.headers || {}) },
});

export const api = {
  address,
  get: (path, parameters, options) => ask("GET", path, { ...options, parameters }),
  post: (path, body, options) => ask("POST", path, asJson(body, options)),
  patch: (path, body, options) => ask("PATCH", path, asJson(body, options)),
  delete: (path, options) => ask("DELETE", path, options),
  /** Sends a picture's bytes as they are. */
  upload: (path, blob, options = {}) =>
    ask("POST", path, { ...options, body: blob, headers: { "Content-Type": blob.type, "X-Bottega-Upload": "1", ...(options.headers || {}) } }),
};
