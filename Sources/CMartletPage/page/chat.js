// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The chat: the list at the side, the messages, the line that one types in, and the answers that are being written. Each answer is written into
// its message whether or not it is looked at, so several chats can be answered at once: that is what the server is good at.

import { byID, element, icon, iconButton, tell } from "./dom.js";
import { AnswerView, UserView } from "./message-view.js";
import { ServerError, streamChat, streamLive } from "./server.js";
import { recall, remember } from "./settings.js";
import { ChatStore, addMessage, exported, imported, newChat, pathOf, versionsOf } from "./store.js";
import { tokenOf } from "./tokens.js";

/// How long an answer that is to be alone waits for the others to be done.
const PATIENCE = 10000;
const NEAR = 48; // pixels from the end that count as being there

/// A phone has no such keys to speak of.
const hasKeys = !matchMedia("(pointer: coarse)").matches;

const EXAMPLES = [
  "Explain in four sentences why a language model needs a key/value cache.",
  "Write a Swift function that merges two sorted arrays.",
  "A short poem about a bird that never lands.",
];

export class ChatPage {
  #store = new ChatStore();
  #settings;
  #watch;
  #chat = newChat();
  #runs = new Map(); // message id: { chat, message, abort }
  #views = new Map(); // message id: view, of the messages that are shown
  #frame = null;
  #follows = true;
  #lastTop = 0;
  #scroll = byID("messages");
  #list = byID("message-list");
  #input = byID("input");
  #saves = new Map(); // chat id: timer

  constructor(settings, watch) {
    this.#settings = settings;
    this.#watch = watch;
    this.#chat = newChat(settings.defaultSystem);
  }

  async start() {
    this.#bind();
    await this.#store.open();
    this.#store.onchange = () => this.#showTitles();
    await this.#takeRescued();
    const current = recall("chat");
    const chat = current ? await this.#store.chat(current) : null;
    // Whoever was quicker than the browser's disk has begun a chat already, and keeps it.
    if (Object.keys(this.#chat.messages).length) remember("chat", this.#chat.id);
    else this.#open(chat ?? newChat(this.#settings.defaultSystem));
    await this.#showTitles();
  }

  /// What was being written when the page was closed.
  async #takeRescued() {
    let rescued = [];
    try {
      rescued = JSON.parse(recall("rescued", "[]"));
    } catch {
      // Half of it is worth nothing.
    }
    remember("rescued", null);
    for (const { chat: id, message } of rescued) {
      const chat = await this.#store.chat(id);
      const known = chat?.messages[message.id];
      if (!known?.isBroken || known.content.length > message.content.length) continue;
      Object.assign(known, message);
      await this.#store.put(chat);
    }
  }

  // MARK: Reading and typing

  #bind() {
    const input = this.#input;
    input.addEventListener("input", () => {
      this.#fitInput();
      remember("draft", input.value);
      this.#showComposer();
    });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#send();
      }
    });
    input.value = recall("draft", "");
    byID("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running) this.#stop();
      else this.#send();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && this.#running && !byID("chat").hidden) this.#stop();
    });
    this.#scroll.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.#scroll;
      // Who scrolls up reads; who comes back to the end wants to follow again.
      if (scrollHeight - scrollTop - clientHeight < NEAR) this.#follows = true;
      else if (scrollTop < this.#lastTop - 2) this.#follows = false;
      this.#lastTop = scrollTop;
      this.#showJump();
    });
    new ResizeObserver(() => this.#follows && this.#toEnd()).observe(this.#scroll);
    byID("jump").addEventListener("click", () => {
      this.#follows = true;
      this.#toEnd();
      this.#showJump();
    });
    byID("new-chat").addEventListener("click", () => {
      this.#open(newChat(this.#settings.defaultSystem));
      this.#closeDrawer();
      input.focus();
    });
    byID("export-all").addEventListener("click", async () => this.#export(await this.#store.all(), "martlet-chats"));
    const file = byID("import-file");
    byID("import").addEventListener("click", () => file.click());
    file.addEventListener("change", async () => {
      for (const one of file.files) await this.#import(one);
      file.value = "";
    });
    this.#settings.onsystem = (text) => {
      this.#chat.system = text;
      this.#save(this.#chat);
    };
    this.#watch.onchange(() => {
      this.#showComposer();
      if (!Object.keys(this.#chat.messages).length) this.#show();
    });
    // A database is too slow for a page that goes.
    addEventListener("pagehide", () => {
      const rescued = [...this.#runs.values()].map(({ chat, message }) => ({ chat: chat.id, message: { ...message, logprobs: null } }));
      if (rescued.length) remember("rescued", JSON.stringify(rescued));
    });
  }

  get #running() {
    for (const run of this.#runs.values()) if (run.chat === this.#chat) return run;
    return null;
  }

  #fitInput() {
    this.#input.style.height = "auto";
    this.#input.style.height = Math.min(this.#input.scrollHeight + 2, 0.4 * innerHeight) + "px";
  }

  #showComposer() {
    const { kind } = this.#watch.state;
    const isRunning = this.#running !== null;
    const button = byID("send");
    button.classList.toggle("is-stop", isRunning);
    button.title = isRunning ? "Stop (Esc)" : "Send (Enter)";
    button.setAttribute("aria-label", isRunning ? "Stop" : "Send");
    button.querySelector("use").setAttribute("href", isRunning ? "#icon-stop" : "#icon-send");
    button.disabled = !isRunning && (kind !== "ready" || this.#input.value.trim() === "");
    const words = {
      loading: "The model is loading. What you type is kept.",
      down: "The server is not there. What you type is kept.",
      locked: "The server asks for a key: see the settings.",
    };
    byID("hint").textContent = words[kind] ?? (hasKeys ? (isRunning ? "Esc stops the answer" : "Enter sends, Shift+Enter begins a new line") : "");
  }

  #toEnd() {
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#lastTop = this.#scroll.scrollTop;
  }

  #showJump() {
    this.#scroll.classList.toggle("follows", this.#follows);
    byID("jump").hidden = this.#follows;
  }

  // MARK: Chats

  #open(chat) {
    const running = [...this.#runs.values()].find((run) => run.chat.id === chat.id);
    this.#chat = running?.chat ?? chat;
    remember("chat", this.#chat.id);
    this.#settings.showSystem(this.#chat.system);
    this.#follows = true;
    this.#show();
    this.#markTitle();
  }

  #show() {
    this.#views.clear();
    this.#list.replaceChildren();
    const path = pathOf(this.#chat);
    for (const message of path) this.#append(message);
    byID("empty").hidden = path.length > 0;
    if (!path.length) this.#showEmpty();
    this.#showComposer();
    this.#fitInput();
    if (this.#follows) this.#toEnd();
    this.#showJump();
  }

  #append(message) {
    const versions = versionsOf(this.#chat, message.parent);
    const view = message.role === "user" ? new UserView(message, versions, this.#actions) : new AnswerView(message, versions, this.#actions);
    this.#views.set(message.id, view);
    this.#list.append(view.node);
    return view;
  }

  #showEmpty() {
    const { kind, models } = this.#watch.state;
    byID("empty-title").textContent = kind === "ready" && models[0] ? models[0] + " is ready." : "Martlet";
    byID("examples").replaceChildren(
      ...EXAMPLES.map((example) =>
        element("button.example", {
          type: "button",
          onclick: () => {
            this.#input.value = example;
            this.#fitInput();
            this.#showComposer();
            this.#input.focus();
          },
        }, element("span", null, example), icon("forward")),
      ),
    );
  }

  async #showTitles() {
    const titles = await this.#store.titles();
    const list = byID("chat-list");
    list.replaceChildren(
      ...titles.map((title) => {
        const open = element(
          "button.chat-title",
          { type: "button", onclick: () => this.#choose(title.id) },
          element("span", null, title.title || "Untitled"),
        );
        return element(
          "li",
          { data: { id: title.id } },
          open,
          element(
            "span.chat-actions",
            null,
            iconButton("edit", "Rename this chat", () => this.#rename(title.id, open)),
            iconButton("export", "Export this chat", async () => {
              const chat = await this.#store.chat(title.id);
              if (chat) this.#export([chat], fileName(chat.title));
            }),
            iconButton("delete", "Delete this chat", () => this.#delete(title.id)),
          ),
        );
      }),
    );
    byID("no-chats").hidden = titles.length > 0;
    byID("export-all").disabled = titles.length === 0;
    this.#markTitle();
  }

  #markTitle() {
    for (const item of byID("chat-list").children) {
      const isCurrent = item.dataset.id === this.#chat.id;
      item.classList.toggle("is-current", isCurrent);
      if (isCurrent) item.firstChild.setAttribute("aria-current", "true");
      else item.firstChild.removeAttribute("aria-current");
      item.classList.toggle("is-running", [...this.#runs.values()].some((run) => run.chat.id === item.dataset.id));
    }
  }

  async #choose(id) {
    const chat = await this.#store.chat(id);
    if (!chat) return;
    this.#open(chat);
    this.#closeDrawer();
  }

  #closeDrawer() {
    document.body.classList.remove("shows-chats");
    byID("toggle-chats").setAttribute("aria-expanded", "false");
  }

  #rename(id, button) {
    const input = element("input.rename", { value: button.textContent, "aria-label": "Title of the chat", maxlength: 200 });
    let isOver = false;
    const end = async (isKept) => {
      if (isOver) return;
      isOver = true;
      const title = input.value.trim();
      if (isKept && title) {
        const chat = id === this.#chat.id ? this.#chat : await this.#store.chat(id);
        if (chat) {
          chat.title = title;
          await this.#store.put(chat);
        }
      }
      await this.#showTitles();
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") {
        event.preventDefault();
        end(false);
      }
    });
    input.addEventListener("blur", () => end(true));
    button.replaceWith(input);
    input.select();
  }

  async #delete(id) {
    for (const run of this.#runs.values()) if (run.chat.id === id) run.abort.abort("deleted");
    clearTimeout(this.#saves.get(id));
    const chat = await this.#store.chat(id);
    await this.#store.delete(id);
    if (id === this.#chat.id) this.#open(newChat(this.#settings.defaultSystem));
    await this.#showTitles();
    if (!chat) return;
    tell("“" + (chat.title || "Untitled") + "” is deleted.", {
      title: "Undo",
      run: async () => {
        await this.#store.put(chat);
        await this.#showTitles();
      },
    });
  }

  #export(chats, name) {
    const address = URL.createObjectURL(new Blob([exported(chats)], { type: "application/json" }));
    element("a", { href: address, download: name + ".json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  async #import(file) {
    try {
      const chats = imported(await file.text());
      for (const chat of chats) {
        const known = await this.#store.chat(chat.id);
        if (known) chat.messages = { ...known.messages, ...chat.messages };
        await this.#store.put(chat);
      }
      tell(chats.length === 1 ? "One chat is imported." : chats.length + " chats are imported.");
      if (chats.length) this.#open(chats[0]);
      await this.#showTitles();
    } catch (error) {
      tell(file.name + " was not imported: " + error.message);
    }
  }

  /// Keeps the chat soon; many changes are one write.
  #save(chat, pause = 300) {
    if (!Object.keys(chat.messages).length || this.#saves.has(chat.id)) return;
    this.#saves.set(chat.id, setTimeout(async () => {
      this.#saves.delete(chat.id);
      await this.#store.put(chat);
    }, pause));
  }

  async #saveNow(chat) {
    clearTimeout(this.#saves.get(chat.id));
    this.#saves.delete(chat.id);
    await this.#store.put(chat);
    await this.#showTitles();
  }

  // MARK: Asking

  #send() {
    const text = this.#input.value;
    if (text.trim() === "" || this.#running) return;
    if (!this.#isReady()) return;
    const chat = this.#chat;
    if (!chat.title) chat.title = titleFrom(text);
    const last = pathOf(chat).at(-1);
    const message = addMessage(chat, last?.id ?? null, { role: "user", content: text });
    this.#input.value = "";
    remember("draft", null);
    this.#fitInput();
    byID("empty").hidden = true;
    this.#append(message);
    this.#follows = true;
    this.#answer(message);
  }

  #isReady() {
    if (this.#watch.state.kind === "ready") return true;
    this.#watch.check();
    this.#showComposer();
    const hint = byID("hint");
    hint.classList.remove("is-urgent");
    void hint.offsetWidth; // begins the animation again
    hint.classList.add("is-urgent");
    return false;
  }

  /// Whether an answer can be asked for here and now; where not, says why.
  #mayAnswer() {
    if (this.#running) tell("An answer is being written: stop it first.");
    else if (!this.#isReady()) tell("The server does not answer at the moment. Nothing is lost: try again when it does.");
    else return true;
    return false;
  }

  #actions = {
    isRunning: (message) => this.#runs.has(message.id),
    edit: (message, text) => {
      if (!this.#mayAnswer()) return false;
      const edited = addMessage(this.#chat, message.parent, { role: "user", content: text });
      this.#show();
      this.#answer(edited);
      return true;
    },
    again: (message) => {
      if (!this.#mayAnswer()) return;
      const asked = this.#chat.messages[message.parent];
      if (asked) this.#answer(asked, true);
    },
    alone: (message) => this.#runAlone(message),
    goOn: (message) => {
      if (!this.#mayAnswer()) return;
      this.#run(message, true, () => this.#show());
    },
    show: (message, direction) => {
      if (!message) return;
      this.#chat.selected[message.parent ?? "root"] = message.id;
      this.#save(this.#chat);
      const top = this.#scroll.scrollTop;
      this.#follows = false;
      this.#show();
      this.#scroll.scrollTop = top;
      const control = this.#views.get(message.id)?.node;
      const buttons = [`[data-go="${direction}"]`, "button"].map((name) => control?.querySelector(`.versions ${name}:not(:disabled)`));
      buttons.find((button) => button)?.focus();
    },
  };

  #answer(asked, isAnew = false) {
    const model = this.#watch.state.models[0] ?? "";
    // Broken until it is complete: so a tab that is closed in between finds it as what it is.
    const message = addMessage(this.#chat, asked.id, { role: "assistant", content: "", reasoning: "", model, isBroken: true });
    this.#run(message, false, () => (isAnew ? this.#show() : this.#append(message)));
  }

  #stop() {
    this.#running?.abort.abort("stopped");
  }

  async #run(message, goesOn, show) {
    const chat = this.#chat;
    const abort = new AbortController();
    this.#runs.set(message.id, { chat, message, abort });
    // Of an answer that went on no single request is the whole.
    if (goesOn) Object.assign(message, { isBroken: true, error: null, finish: null, asked: null, seed: null, again: null });
    else message.asked = { system: chat.system, sampling: this.#settings.sampling };
    this.#follows = true;
    const writer = new AnswerWriter(message, goesOn);
    show();
    this.#showComposer();
    this.#toEnd();
    byID("announcer").textContent = "Answering";

    const before = goesOn ? { ...message.numbers } : {};
    let error = null;
    let isDone = false;
    this.#saveNow(chat);
    try {
      isDone = await streamChat(this.#body(chat, message, goesOn), abort.signal, (chunk) => {
        writer.take(chunk);
        this.#draw();
        this.#save(chat, writer.tokens > 2000 ? 8000 : 1500);
      });
    } catch (thrown) {
      error = thrown;
    }
    const numbers = writer.numbers(before);
    if (Object.keys(numbers).length) message.numbers = numbers;
    if (abort.signal.aborted) {
      Object.assign(message, { isBroken: false, finish: "stopped" });
    } else if (error) {
      message.error = error instanceof ServerError ? error.message : "The connection broke.";
      this.#watch.check();
    } else if (!message.finish && !isDone) {
      message.error = "The connection ended before the answer did.";
      this.#watch.check();
    } else {
      message.isBroken = false;
      message.finish ??= "stop";
    }
    if (message.error && !/[.!?…]$/.test(message.error)) message.error += ".";
    this.#runs.delete(message.id);
    this.#markTitle();
    const view = this.#views.get(message.id);
    if (view?.message === message) {
      view.finish();
      if (this.#follows) this.#toEnd();
    }
    byID("announcer").textContent = message.error ? "The answer broke off" : "The answer is complete";
    this.#showComposer();
    if (abort.signal.reason !== "deleted") {
      chat.updated = Date.now();
      await this.#saveNow(chat);
    }
  }

  /// The same request once more, with the seed that the first answer had: whoever was served beside that, the second must be the same. It begins when
  /// nobody else is served, or after a while, and says who was.
  async #runAlone(message) {
    if (!this.#mayAnswer()) return;
    const chat = this.#chat;
    const abort = new AbortController();
    const key = "alone " + message.id;
    this.#runs.set(key, { chat, message, abort });
    this.#showComposer();
    const say = (words) => this.#views.get(message.id)?.showAgain(words);
    say("It waits until nobody else is served …");

    let others = null;
    let isAsked = false;
    const watching = new AbortController();
    await new Promise((resolve) => {
      setTimeout(resolve, PATIENCE);
      abort.signal.addEventListener("abort", resolve);
      const look = (snapshot) => {
        const beside = snapshot.running_requests + snapshot.waiting_requests - (isAsked ? 1 : 0);
        if (isAsked) others = Math.max(others ?? 0, beside);
        else if (beside === 0) resolve();
      };
      // Where the live view is not to be had, nobody knows.
      streamLive(false, watching.signal, look).catch(() => resolve());
    });

    const again = { content: "", reasoning: "", calls: null };
    let error = null;
    try {
      abort.signal.throwIfAborted();
      isAsked = true;
      const writer = new AnswerWriter(again, false);
      const { system, sampling } = message.asked;
      const isDone = await streamChat(this.#body(chat, message, false, system, { ...sampling, seed: message.seed }), abort.signal, (chunk) => {
        writer.take(chunk);
        say("It is written again: " + again.content.length + " of " + message.content.length + " characters …");
      });
      if (!isDone) throw new ServerError("the connection ended before the answer did", 0);
    } catch (thrown) {
      error = thrown;
    }
    watching.abort();
    this.#runs.delete(key);
    this.#markTitle();
    this.#showComposer();
    if (!error) {
      const whole = ({ reasoning, content, calls }) =>
        [reasoning, content, ...(calls ?? []).flatMap((call) => [call.name, call.arguments])].join("\n");
      const [first, second] = [whole(message), whole(again)];
      let at = 0;
      while (at < first.length && first[at] === second[at]) at += 1;
      message.again = { others, differsAt: first === second ? null : at, count: first.length };
    }
    say(error && !abort.signal.aborted ? "It could not be run again: " + error.message + "." : null);
    if (abort.signal.reason !== "deleted") await this.#saveNow(chat);
  }

  /// Once a frame, however many chunks came.
  #draw() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      let isAll = true;
      for (const id of this.#runs.keys()) {
        const view = this.#views.get(id);
        if (view && !view.update()) isAll = false;
      }
      if (this.#follows) this.#toEnd();
      if (!isAll) this.#draw();
    });
  }

  #body(chat, answer, goesOn, system = chat.system, sampling = this.#settings.sampling) {
    const messages = [];
    if (system.trim()) messages.push({ role: "system", content: system });
    for (const message of pathOf(chat)) {
      if (message === answer) break;
      const content = message.content || (message.calls ?? []).map((call) => call.name + "(" + call.arguments + ")").join("\n");
      // An answer of which nothing came has nothing to say in the next.
      if (content) messages.push({ role: message.role, content });
    }
    const body = { model: this.#watch.state.models[0], messages, stream: true, stream_options: { include_usage: true }, ...sampling };
    if (this.#settings.wantsLogprobs) Object.assign(body, { logprobs: true, top_logprobs: 5 });
    if (goesOn) {
      messages.push({ role: "assistant", content: answer.content });
      Object.assign(body, { add_generation_prompt: false, continue_final_message: true });
    }
    return body;
  }
}

/// Writes the chunks of a stream into a message, and keeps the times.
class AnswerWriter {
  tokens = 0; // chunks with text: what there is to count before the usage comes
  #message;
  #sent = performance.now();
  #first = null;
  #last = null;
  #reasoningSince = null;
  #usage = null;

  constructor(message, goesOn) {
    this.#message = message;
    // Half of an answer with log-probabilities would be shown as if it were all.
    if (goesOn) message.logprobs = null;
    this.#goesOn = goesOn;
  }
  #goesOn;

  take(chunk) {
    const message = this.#message;
    if (chunk.model) message.model = String(chunk.model);
    if (chunk.usage) this.#usage = chunk.usage;
    if (Number.isSafeInteger(chunk.seed) && !this.#goesOn) message.seed = chunk.seed;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const delta = choice.delta ?? {};
    const reasoning = delta.reasoning_content || delta.reasoning;
    if (reasoning || delta.content || delta.tool_calls || choice.logprobs?.content?.length) {
      this.#last = performance.now();
      this.#first ??= this.#last;
      this.tokens += 1;
    }
    if (reasoning) {
      this.#reasoningSince ??= performance.now();
      message.reasoning += reasoning;
      message.reasoningTime = (performance.now() - this.#reasoningSince) / 1000;
    }
    if (delta.content) {
      if (this.#reasoningSince !== null && message.content === "") message.reasoningTime = (performance.now() - this.#reasoningSince) / 1000;
      message.content += delta.content;
    }
    for (const call of delta.tool_calls ?? []) {
      message.calls ??= [];
      const index = call.index ?? 0;
      if (!Number.isInteger(index) || index < 0 || index > 63) continue;
      while (message.calls.length <= index) message.calls.push({ id: "", name: "", arguments: "" });
      const known = message.calls[index];
      known.id += call.id ?? "";
      known.name += call.function?.name ?? "";
      known.arguments += call.function?.arguments ?? "";
    }
    if (!this.#goesOn && choice.logprobs?.content?.length) {
      message.logprobs ??= [];
      for (const token of choice.logprobs.content) message.logprobs.push(tokenOf(token));
    }
    if (choice.finish_reason) message.finish = choice.stop_reason === "deadline" ? "deadline" : choice.finish_reason;
  }

  /// { first, time, completion, prompt, cached }, and `pieces` where no usage came, as where the reader stopped the answer. An answer that went on
  /// has the tokens and the time of both parts.
  numbers(before) {
    const numbers = {};
    if (this.#first !== null) {
      numbers.first = before.first ?? (this.#first - this.#sent) / 1000;
      numbers.time = (before.time ?? 0) + (this.#last - this.#first) / 1000;
    }
    if (this.#usage) {
      numbers.completion = (before.completion ?? before.pieces ?? 0) + (this.#usage.completion_tokens ?? 0);
      numbers.prompt = this.#usage.prompt_tokens;
      numbers.cached = this.#usage.prompt_tokens_details?.cached_tokens ?? 0;
    } else if (this.tokens) {
      numbers.pieces = (before.completion ?? before.pieces ?? 0) + this.tokens;
    }
    return numbers;
  }
}

function titleFrom(text) {
  const line = text.trim().split("\n")[0];
  return line.length > 60 ? line.slice(0, 60).replace(/\s+\S*$/, "") + " …" : line;
}

const fileName = (title) => title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 48) || "chat";
