// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Chats are kept in this browser, in IndexedDB, and nowhere else. A chat is a tree of messages: an edited message or an answer made again is a
// sibling of the earlier one, and nothing is lost. Two tabs may write the same chat: what is stored is the union of their messages.
//
// A chat: { id, title, created, updated, system, selected: { parent: child }, messages: { id: message } }.
// A message: { id, parent (null at the root), role, content, at, … and of answers reasoning, calls, logprobs, numbers, finish, error, model }.

import { tell } from "./dom.js";

const NAME = "martlet";
const FORMAT = "martlet-chats";

export const newID = () => {
  // randomUUID is only there on secure origins; a server in the next room is none.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
};

const asPromise = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export class ChatStore {
  #database = null;
  #memory = new Map(); // where the browser keeps nothing
  #hasToldFailure = false;
  #channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("martlet.chats") : null;
  /// Another tab changed something.
  onchange = () => {};

  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("chats", { keyPath: "id" });
        request.result.createObjectStore("titles", { keyPath: "id" });
      };
      this.#database = await asPromise(request);
      this.#database.onversionchange = () => this.#database.close();
      // What was sent before the browser had it open.
      for (const chat of this.#memory.values()) await this.put(chat);
      this.#memory.clear();
    } catch {
      tell("This browser keeps nothing for this page: chats are gone when the tab closes. Export what you need.");
    }
    if (this.#channel) this.#channel.onmessage = () => this.onchange();
  }

  /// { id, title, created, updated } of all chats, the latest first.
  async titles() {
    const titles = this.#database
      ? await asPromise(this.#database.transaction("titles").objectStore("titles").getAll())
      : [...this.#memory.values()].map(titleOf);
    return titles.sort((one, other) => other.updated - one.updated);
  }

  async chat(id) {
    if (!this.#database) return this.#memory.get(id) ?? null;
    return (await asPromise(this.#database.transaction("chats").objectStore("chats").get(id))) ?? null;
  }

  async all() {
    return this.#database ? asPromise(this.#database.transaction("chats").objectStore("chats").getAll()) : [...this.#memory.values()];
  }

  /// Keeps the chat. True where it is kept; where the disk or the browser's share of it is full, the reader is told, once.
  async put(chat) {
    if (!this.#database) {
      this.#memory.set(chat.id, chat);
      return true;
    }
    try {
      const transaction = this.#database.transaction(["chats", "titles"], "readwrite");
      const chats = transaction.objectStore("chats");
      const request = chats.get(chat.id);
      await new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
        request.onsuccess = () => {
          const known = request.result?.messages ?? {};
          for (const [id, message] of Object.entries(known)) chat.messages[id] ??= message;
          try {
            chats.put(chat);
            transaction.objectStore("titles").put(titleOf(chat));
          } catch (error) {
            reject(error);
            transaction.abort();
          }
        };
      });
      this.#hasToldFailure = false;
      this.#channel?.postMessage(chat.id);
      return true;
    } catch (error) {
      if (!this.#hasToldFailure) {
        this.#hasToldFailure = true;
        const isFull = error?.name === "QuotaExceededError";
        tell(
          isFull
            ? "This browser has no room left for chats. What you see is still here, but it is not kept: export it, or delete old chats."
            : "This browser could not keep the chat (" + (error?.message ?? error) + "). Export it before you close the tab.",
        );
      }
      return false;
    }
  }

  async delete(id) {
    if (!this.#database) {
      this.#memory.delete(id);
      return;
    }
    const transaction = this.#database.transaction(["chats", "titles"], "readwrite");
    transaction.objectStore("chats").delete(id);
    transaction.objectStore("titles").delete(id);
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    this.#channel?.postMessage(id);
  }
}

const titleOf = ({ id, title, created, updated }) => ({ id, title, created, updated });

export function newChat(system) {
  const now = Date.now();
  return { id: newID(), title: "", created: now, updated: now, system: system ?? "", selected: {}, messages: {} };
}

// MARK: The tree

/// The versions that stand at one place: all messages with this parent, the eldest first.
export function versionsOf(chat, parent) {
  return Object.values(chat.messages)
    .filter((message) => message.parent === parent)
    .sort((one, other) => one.at - other.at);
}

/// The messages that are shown, from the first to the last.
export function pathOf(chat) {
  const path = [];
  const children = new Map();
  for (const message of Object.values(chat.messages)) {
    if (!children.has(message.parent)) children.set(message.parent, []);
    children.get(message.parent).push(message);
  }
  let parent = null;
  while (true) {
    const versions = children.get(parent)?.sort((one, other) => one.at - other.at);
    if (!versions) return path;
    const chosen = chat.selected[parent ?? "root"];
    const message = versions.find((version) => version.id === chosen) ?? versions.at(-1);
    path.push(message);
    children.delete(parent); // a file may hold a circle
    parent = message.id;
  }
}

export function addMessage(chat, parent, message) {
  const latest = versionsOf(chat, parent).at(-1)?.at ?? 0;
  const added = { id: newID(), parent, at: Math.max(Date.now(), latest + 1), ...message };
  chat.messages[added.id] = added;
  chat.selected[parent ?? "root"] = added.id;
  chat.updated = Date.now();
  return added;
}

// MARK: Files

export function exported(chats) {
  return JSON.stringify({ format: FORMAT, version: 1, exported: new Date().toISOString(), chats }, null, 1);
}

/// The chats of an exported file. A file is hostile until checked: only what has the right type is taken.
export function imported(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (file?.format !== FORMAT || !Array.isArray(file.chats)) {
    throw new Error(`This file was not exported from here: it lacks "format": "${FORMAT}".`);
  }
  return file.chats.map(checkedChat).filter((chat) => chat !== null);
}

const text = (value, otherwise = "") => (typeof value === "string" ? value : otherwise);
const number = (value, otherwise) => (Number.isFinite(value) ? value : otherwise);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isID = (value) => typeof value === "string" && /^[0-9a-f]{8,64}$/.test(value);

function checkedChat(value) {
  if (!isObject(value) || !isID(value.id) || !isObject(value.messages)) return null;
  const chat = { ...newChat(text(value.system)), id: value.id, title: text(value.title) };
  chat.created = number(value.created, chat.created);
  chat.updated = number(value.updated, chat.updated);
  for (const message of Object.values(value.messages)) {
    if (!isObject(message) || !isID(message.id) || (message.role !== "user" && message.role !== "assistant")) continue;
    if (message.parent !== null && !isID(message.parent)) continue;
    const { id, parent, role } = message;
    const checked = { id, parent, role, content: text(message.content), at: number(message.at, chat.created) };
    if (role === "assistant") {
      checked.reasoning = text(message.reasoning);
      checked.reasoningTime = number(message.reasoningTime, null);
      checked.model = text(message.model);
      checked.finish = text(message.finish, null);
      checked.error = text(message.error, null);
      checked.isBroken = message.isBroken === true;
      if (Array.isArray(message.calls)) {
        checked.calls = message.calls.filter(isObject).map((call) => ({ id: text(call.id), name: text(call.name), arguments: text(call.arguments) }));
      }
      if (Array.isArray(message.logprobs)) checked.logprobs = message.logprobs.map(checkedToken).filter((token) => token !== null);
      if (isObject(message.numbers)) {
        checked.numbers = Object.fromEntries(Object.entries(message.numbers).filter(([, value]) => Number.isFinite(value)));
      }
    }
    chat.messages[id] = checked;
  }
  // A message whose parent is missing would never be seen.
  for (const message of Object.values(chat.messages)) {
    if (message.parent !== null && !chat.messages[message.parent]) message.parent = null;
  }
  if (isObject(value.selected)) {
    for (const [parent, child] of Object.entries(value.selected)) {
      if ((parent === "root" || isID(parent)) && isID(child)) chat.selected[parent] = child;
    }
  }
  return chat;
}

function checkedToken(value) {
  if (!Array.isArray(value) || typeof value[0] !== "string" || !Number.isFinite(value[1]) || !Array.isArray(value[2])) return null;
  return [value[0], value[1], value[2].filter((other) => Array.isArray(other) && typeof other[0] === "string" && Number.isFinite(other[1]))];
}
