// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The server as the page sees it. Every address is relative to the document, so the page works behind any prefix. Whether the server is there, loads
// or answers is asked again and again while it does not answer, and seldom while it does.

import { readEvents } from "./sse.js";
import { apiKey } from "./settings.js";

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

function headers(more) {
  const key = apiKey();
  return key ? { ...more, Authorization: "Bearer " + key } : { ...more };
}

/// A response that is no success, in words.
async function errorOf(response) {
  let message = "";
  try {
    const body = await response.json();
    message = body?.error?.message ?? body?.message ?? (typeof body?.error === "string" ? body.error : "");
  } catch {
    // A proxy's page, or nothing.
  }
  if (response.status === 401) message ||= "The server asks for an API key.";
  return new ServerError(message || "The server answered with status " + response.status + ".", response.status);
}

/// Streams a chat completion: `onChunk` gets every chunk as an object. Returns whether the server said that it was done.
export async function streamChat(body, signal, onChunk) {
  let response;
  try {
    response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ServerError("The server cannot be reached.", 0);
  }
  if (!response.ok) throw await errorOf(response);
  let isDone = false;
  await readEvents(response.body, (data) => {
    if (data === "[DONE]") {
      isDone = true;
      return;
    }
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      return; // the half of an event at a broken stream's end
    }
    if (chunk.error) throw new ServerError(chunk.error.message ?? "The server ended the answer with an error.", Number(chunk.error.code) || 500);
    onChunk(chunk);
  });
  return isDone;
}

/// Streams the live view's snapshots until the signal is aborted or the stream ends.
export async function streamLive(withText, signal, onSnapshot) {
  const response = await fetch("martlet/live" + (withText ? "?text=1" : ""), { headers: headers(), signal });
  if (!response.ok) throw await errorOf(response);
  await readEvents(response.body, (data) => {
    let snapshot;
    try {
      snapshot = JSON.parse(data);
    } catch {
      return;
    }
    onSnapshot(snapshot);
  });
}

/// Watches the server's health. `state` is { kind: "unknown" | "ready" | "loading" | "down" | "locked", progress, message, models }, and where it is ready
/// `about`: the first model's architecture and context, where the server tells them.
export class ServerWatch {
  state = { kind: "unknown", progress: null, message: "", models: [] };
  #listeners = [];
  #timer = null;
  #failures = 0;
  #round = 0;

  onchange(listener) {
    this.#listeners.push(listener);
  }

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.check();
    });
    addEventListener("online", () => this.check());
    return this.check();
  }

  /// Asks now, and plans when to ask again.
  async check() {
    clearTimeout(this.#timer);
    const round = ++this.#round;
    const state = await this.#ask();
    if (round !== this.#round) return; // a later question is under way
    this.#failures = state.kind === "ready" ? 0 : this.#failures + 1;
    const before = JSON.stringify(this.state);
    this.state = state;
    if (JSON.stringify(state) !== before) for (const listener of this.#listeners) listener(state);
    const pause = { ready: 20000, locked: 20000, loading: 700 }[state.kind] ?? Math.min(800 + 400 * this.#failures, 4000);
    // A page that nobody looks at asks nothing: it asks when it is looked at again.
    if (!document.hidden || state.kind !== "ready") this.#timer = setTimeout(() => this.check(), pause);
  }

  async #ask() {
    const { models } = this.state;
    let health;
    try {
      health = await fetch("health", { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(8000) });
    } catch {
      return { kind: "down", progress: null, message: "", models };
    }
    if (health.status === 503) {
      let body = {};
      try {
        body = (await health.json()) ?? {};
      } catch {
        // Only the status, then.
      }
      const progress = body.progress ?? body.error?.progress;
      const message = body.message ?? body.error?.message ?? "";
      return { kind: "loading", progress: Number.isFinite(progress) ? Math.min(Math.max(progress, 0), 1) : null, message: String(message), models };
    }
    if (!health.ok && health.status !== 401) {
      return { kind: "down", progress: null, message: "It answers with status " + health.status + ".", models };
    }
    try {
      const response = await fetch("v1/models", { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(8000) });
      if (response.status === 401 || response.status === 403) {
        return { kind: "locked", progress: null, message: (await errorOf(response)).message, models };
      }
      if (!response.ok) return { kind: "down", progress: null, message: (await errorOf(response)).message, models };
      const list = await response.json();
      const all = list.data ?? [];
      const about = { architecture: all[0]?.meta?.architecture ?? null, context: all[0]?.max_model_len ?? null };
      return { kind: "ready", progress: null, message: "", models: all.map((model) => String(model.id)), about };
    } catch {
      return { kind: "down", progress: null, message: "", models };
    }
  }
}
