// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// What the reader sets, and where it is kept: sampling for every chat, the system message with its chat, the key for this tab or this browser.

import { byID, element, tell } from "./dom.js";

/// The sampling settings, as the API names them. Empty means that the field is not sent, and the server's default holds.
const FIELDS = [
  { name: "temperature", title: "Temperature", min: 0, max: 5, step: 0.1, help: "0 always takes the likeliest token; higher is more surprising." },
  { name: "max_tokens", title: "Most tokens", min: 1, step: 1, isWhole: true, help: "Where an answer is cut at the latest." },
  { name: "top_p", title: "Top p", min: 0, max: 1, step: 0.05, help: "Only the likeliest tokens that together have this probability." },
  { name: "top_k", title: "Top k", min: -1, step: 1, isWhole: true, help: "Only this many of the likeliest tokens." },
  { name: "min_p", title: "Min p", min: 0, max: 1, step: 0.01, help: "Only tokens with at least this share of the likeliest one's probability." },
  { name: "seed", title: "Seed", step: 1, isWhole: true, help: "The same seed gives the same answer; empty draws a new one each time." },
  { name: "repetition_penalty", title: "Repetition", min: 0.01, max: 10, step: 0.05, help: "Penalty for what has occurred: above 1 repeats less." },
  { name: "presence_penalty", title: "Presence", min: -2, max: 2, step: 0.1, help: "Penalty for tokens that the answer already has." },
  { name: "frequency_penalty", title: "Frequency", min: -2, max: 2, step: 0.1, help: "Penalty that grows with each time a token is used." },
];

export function recall(key, otherwise = null) {
  try {
    return localStorage.getItem("martlet." + key) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(key, value) {
  try {
    if (value === null || value === "") localStorage.removeItem("martlet." + key);
    else localStorage.setItem("martlet." + key, value);
    return true;
  } catch {
    return false;
  }
}

function storageOf(kind) {
  try {
    return kind === "tab" ? sessionStorage : localStorage;
  } catch {
    return null;
  }
}

let keyInMemory = "";

export function apiKey() {
  return storageOf("tab")?.getItem("martlet.key") ?? storageOf("browser")?.getItem("martlet.key") ?? keyInMemory;
}

function keepKey(key, kind) {
  keyInMemory = key;
  try {
    storageOf("tab")?.removeItem("martlet.key");
    storageOf("browser")?.removeItem("martlet.key");
    if (key) storageOf(kind)?.setItem("martlet.key", key);
  } catch {
    tell("This browser keeps no key: it is gone when the page is loaded again.");
  }
}

/// The panel at the side. Calls back where something else must change with it.
export class Settings {
  #inputs = new Map();
  onsystem = () => {};
  onkey = () => {};

  constructor() {
    const kept = this.#kept();
    const grid = byID("sampling");
    for (const field of FIELDS) {
      const input = element("input", {
        id: "field-" + field.name,
        type: "number",
        inputmode: field.isWhole ? "numeric" : "decimal",
        min: field.min,
        max: field.max,
        step: field.isWhole ? 1 : "any",
        placeholder: "default",
        value: kept[field.name] ?? "",
        title: field.help,
        autocomplete: "off",
        oninput: () => this.#changed(),
      });
      this.#inputs.set(field.name, input);
      grid.append(element("label.field", { title: field.help }, element("span", null, field.title), input));
    }
    const stop = byID("field-stop");
    stop.value = kept.stop ?? "";
    stop.addEventListener("input", () => this.#changed());
    this.#inputs.set("stop", stop);
    byID("sampling-reset").addEventListener("click", () => {
      for (const input of this.#inputs.values()) input.value = "";
      this.#changed();
    });

    const logprobs = byID("field-logprobs");
    logprobs.checked = recall("logprobs") === "1";
    logprobs.addEventListener("change", () => remember("logprobs", logprobs.checked ? "1" : null));

    const system = byID("field-system");
    system.addEventListener("input", () => this.onsystem(system.value));
    byID("system-keep").addEventListener("click", () => {
      remember("system", system.value);
      tell(system.value ? "New chats will begin with this system message." : "New chats will begin without a system message.");
    });

    const key = byID("field-key");
    const kind = byID("field-key-kind");
    key.value = apiKey();
    kind.value = storageOf("browser")?.getItem("martlet.key") ? "browser" : "tab";
    const changed = () => {
      keepKey(key.value.trim(), kind.value);
      this.onkey();
    };
    key.addEventListener("change", changed);
    kind.addEventListener("change", changed);
    byID("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      changed();
    });
    this.#mark();
  }

  get wantsLogprobs() {
    return byID("field-logprobs").checked;
  }

  get defaultSystem() {
    return recall("system", "");
  }

  showSystem(text) {
    byID("field-system").value = text;
  }

  /// The fields of a request. What is empty or no number is left out.
  get sampling() {
    const values = {};
    for (const field of FIELDS) {
      const text = this.#inputs.get(field.name).value.trim();
      if (text === "") continue;
      const value = Number(text);
      if (Number.isFinite(value)) values[field.name] = field.isWhole ? Math.round(value) : value;
    }
    const stop = this.#inputs.get("stop").value
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => line.replaceAll("\\n", "\n"));
    if (stop.length) values.stop = stop;
    return values;
  }

  #kept() {
    try {
      return JSON.parse(recall("sampling", "{}")) ?? {};
    } catch {
      return {};
    }
  }

  #changed() {
    const values = {};
    for (const [name, input] of this.#inputs) if (input.value !== "") values[name] = input.value;
    remember("sampling", Object.keys(values).length ? JSON.stringify(values) : null);
    this.#mark();
  }

  /// Says how many settings differ from the server's.
  #mark() {
    let set = 0;
    for (const input of this.#inputs.values()) {
      input.closest(".field")?.classList.toggle("is-set", input.value !== "");
      if (input.value !== "") set += 1;
    }
    byID("sampling-state").textContent = set === 0 ? "All as the server has them." : set === 1 ? "One set here." : set + " set here.";
    byID("sampling-reset").hidden = set === 0;
  }
}
