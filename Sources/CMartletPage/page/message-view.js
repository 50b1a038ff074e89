// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// One message on the page. The margin says who speaks and, of an answer, what it cost.

import { copyButton, count, element, icon, iconButton, plural, rate, seconds } from "./dom.js";
import { MarkdownView, renderMarkdown } from "./markdown-view.js";
import { TokenView } from "./tokens.js";

/// What can be done with messages; the chat fills it in.
/// { edit(message, text), again(message), alone(message), goOn(message), show(message), isRunning(message) }

function versionsControl(versions, message, actions) {
  if (versions.length < 2) return null;
  const at = versions.indexOf(message);
  const go = (step) => actions.show(versions[at + step], step < 0 ? "back" : "forward");
  return element(
    "span.versions",
    { role: "group", "aria-label": "Versions" },
    iconButton("back", "Earlier version", () => go(-1), { disabled: at === 0, data: { go: "back" } }),
    element("span", null, at + 1 + " / " + versions.length),
    iconButton("forward", "Later version", () => go(1), { disabled: at === versions.length - 1, data: { go: "forward" } }),
  );
}

export class UserView {
  constructor(message, versions, actions) {
    this.message = message;
    const body = element("div.body", null, element("div.said", null, message.content));
    const bar = element(
      "div.actions",
      null,
      versionsControl(versions, message, actions),
      iconButton("edit", "Edit and send again", () => this.#edit(body, bar, actions)),
      copyButton("Copy the message", () => message.content),
    );
    this.node = element(
      "article.message.user",
      { "aria-label": "You", data: { id: message.id } },
      element("header.margin", null, element("span.speaker", null, "You")),
      body,
      bar,
    );
  }

  #edit(body, bar, actions) {
    const area = element("textarea", { value: this.message.content, "aria-label": "Your message", rows: 3 });
    const end = () => {
      body.replaceChildren(element("div.said", null, this.message.content));
      bar.hidden = false;
      bar.querySelector("button[title^=Edit]").focus();
    };
    const send = () => {
      if (area.value.trim() === "") return;
      if (!actions.edit(this.message, area.value)) area.focus();
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      } else if (event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        end();
      }
    });
    bar.hidden = true;
    body.replaceChildren(
      element(
        "div.editor",
        null,
        area,
        element(
          "div.editor-row",
          null,
          element("span.hint", null, "The earlier version stays: arrows beside the message lead back to it."),
          element("button.plain", { type: "button", onclick: end }, "Cancel"),
          element("button.primary", { type: "button", onclick: send }, "Send"),
        ),
      ),
    );
    area.style.height = Math.min(area.scrollHeight + 4, 400) + "px";
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }
}

const ENDS = {
  length: "Cut off at the limit of tokens.",
  tool_calls: "It calls a tool and waits for the result. This page runs no tools.",
  content_filter: "Ended by a filter.",
  stopped: "You stopped it here.",
  deadline: "Ended by the server's time limit.",
};

export class AnswerView {
  #shown = 0; // characters of the answer
  #markdown;
  #text = element("div.markdown");
  #reasoning = null;
  #reasoningText = null;
  #calls = element("div.calls");
  #tokens = null;
  #status = element("div.status");
  #again = element("div.status.again", { role: "status" });
  #facts = element("div.facts");
  #body;
  #bar;
  #actions;
  #versions;

  constructor(message, versions, actions) {
    this.message = message;
    this.#actions = actions;
    this.#versions = versions;
    this.#body = element("div.body", null, this.#text, this.#calls, this.#status, this.#again);
    this.#bar = element("div.actions");
    this.node = element(
      "article.message.assistant",
      { "aria-label": "Answer", data: { id: message.id } },
      element("header.margin", null, element("span.speaker", { title: message.model }, message.model || "Answer"), this.#facts),
      this.#body,
      this.#bar,
    );
    this.#markdown = new MarkdownView(this.#text);
    if (actions.isRunning(message)) this.update();
    else this.finish();
  }

  /// Shows what came since the last frame; false where some of it is left for the next.
  update() {
    const { message } = this;
    if (message.reasoning) this.#updateReasoning(false);
    this.#updateCalls();
    let isAll = true;
    if (message.logprobs?.length && this.#tokens === null && this.#shown === 0) this.#showTokens(true);
    if (this.#tokens) this.#tokens.update();
    else isAll = this.#updateText(false);
    const isSilent = !message.content && !message.reasoning && !message.calls?.length;
    this.node.classList.toggle("is-running", true);
    this.node.classList.toggle("is-silent", isSilent);
    return isAll;
  }

  #updateText(isLast) {
    const { content } = this.message;
    if (content.length > this.#shown) {
      this.#markdown.append(content.slice(this.#shown));
      this.#shown = content.length;
      this.#isBehind = true;
    }
    if (this.#isBehind) this.#isBehind = !this.#markdown.update(isLast);
    return !this.#isBehind;
  }
  #isBehind = false;

  /// The answer is complete, or broken.
  finish() {
    const { message } = this;
    this.node.classList.remove("is-running", "is-silent");
    if (message.reasoning) this.#updateReasoning(true);
    this.#updateCalls();
    if (message.logprobs?.length && this.#tokens === null && this.#shown === 0) this.#showTokens(true);
    if (this.#tokens) this.#tokens.update();
    else this.#updateText(true);
    this.#showStatus();
    this.showAgain(null);
    this.#showFacts();
    this.#showActions();
  }

  // MARK: Parts

  #updateReasoning(isOver) {
    const { message } = this;
    if (this.#reasoning === null) {
      this.#reasoningText = element("div.reasoning-text");
      this.#reasoning = element(
        "details.reasoning",
        { ontoggle: () => this.#growReasoning() },
        element("summary", null, icon("thought"), element("span")),
        this.#reasoningText,
      );
      this.#body.prepend(this.#reasoning);
    }
    const isThinking = !isOver && !message.content && !message.calls?.length;
    const time = message.reasoningTime;
    const words = isThinking ? "Thinking" + (time ? " for " + seconds(time) : "") + " …" : time ? "Thought for " + seconds(time) : "Thoughts";
    const label = this.#reasoning.querySelector("summary span");
    if (label.textContent !== words) label.textContent = words;
    this.#growReasoning();
  }

  /// Only where somebody reads it.
  #growReasoning() {
    if (!this.#reasoning.open) return;
    const text = this.message.reasoning;
    const node = this.#reasoningText.firstChild;
    if (!node) this.#reasoningText.append(document.createTextNode(text));
    else if (node.length < text.length) node.appendData(text.slice(node.length));
  }

  #updateCalls() {
    for (const [index, call] of (this.message.calls ?? []).entries()) {
      let node = this.#calls.children[index];
      if (!node) {
        node = element(
          "figure.call",
          null,
          element(
            "figcaption",
            null,
            icon("tool"),
            element("span", null, "Calls "),
            element("code.name"),
            copyButton("Copy the arguments", () => call.arguments),
          ),
          element("pre", { tabindex: 0 }, element("code")),
        );
        this.#calls.append(node);
      }
      node.querySelector(".name").textContent = call.name;
      let text = call.arguments;
      try {
        text = JSON.stringify(JSON.parse(text), null, 2);
      } catch {
        // Not complete yet: as it comes.
      }
      const code = node.querySelector("pre code");
      if (code.textContent !== text) code.textContent = text;
    }
  }

  #showTokens(wanted) {
    if (wanted) {
      this.#tokens = new TokenView(this.message.logprobs);
      this.#text.replaceChildren(this.#tokens.node);
    } else {
      this.#tokens = null;
      this.#text.replaceChildren(renderMarkdown(this.message.content));
      this.#shown = this.message.content.length;
    }
    this.#text.classList.toggle("as-tokens", wanted);
  }

  #showStatus() {
    const { message } = this;
    this.#status.replaceChildren();
    const canGoOn = message.content !== "";
    const goOn = () => element("button.plain", { type: "button", onclick: () => this.#actions.goOn(message) }, "Continue");
    const retry = () => element("button.plain", { type: "button", onclick: () => this.#actions.again(message) }, "Retry");
    if (message.error || message.isBroken) {
      const said = message.error || "The page was closed while this answer was written.";
      const kept = message.content || message.reasoning ? " What had come is kept." : "";
      this.#status.append(
        element("div.note.is-error", null, element("span", null, said + kept), element("span.buttons", null, canGoOn && goOn(), retry())),
      );
    } else if (message.finish && message.finish !== "stop") {
      const words = ENDS[message.finish] ?? "Ended with “" + message.finish + "”.";
      const mayGoOn = canGoOn && message.finish !== "tool_calls";
      this.#status.append(element("div.note", null, element("span", null, words), mayGoOn && element("span.buttons", null, goOn())));
    } else if (!message.content && !message.calls?.length) {
      this.#status.append(element("div.note", null, element("span", null, "The answer is empty."), element("span.buttons", null, retry())));
    }
  }

  /// What became of it when it was run again alone; `words` while that is under way, or where it failed.
  showAgain(words) {
    const { again } = this.message;
    if (!words && again) {
      const beside =
        again.others === null ? "" : again.others === 0 ? " with nobody beside it" : " with up to " + plural(again.others, "other request") + " beside it";
      words =
        "Run again" + beside + (again.differsAt === null
          ? ", it is the same, every one of " + plural(again.count, "character") + "."
          : ", it differs from character " + count(again.differsAt + 1) + " on.");
    }
    const isDifferent = Boolean(again) && again.differsAt !== null;
    this.#again.replaceChildren(...(words ? [element(isDifferent ? "div.note.is-error" : "div.note", null, element("span", null, words))] : []));
  }

  #showFacts() {
    const { numbers } = this.message;
    this.#facts.replaceChildren();
    if (!numbers) return;
    const fact = (words, title) => this.#facts.append(element("span", { title }, words));
    if (numbers.completion) fact(plural(numbers.completion, "token"), "Tokens of the answer, the end included");
    else if (numbers.pieces) fact("about " + plural(numbers.pieces, "token"), "The server did not come to say how many; so many pieces of text came");
    const tokens = numbers.completion ?? numbers.pieces;
    if (tokens > 1 && numbers.time > 0) fact(rate((tokens - 1) / numbers.time) + " tokens/s", "From the first token to the last");
    if (numbers.first > 0) fact("first after " + seconds(numbers.first), "From sending to the first token");
    if (numbers.prompt) {
      const cached = numbers.cached ?? 0;
      fact(
        "prompt " + count(numbers.prompt) + (cached ? ", " + count(cached) + " cached" : ""),
        plural(numbers.prompt, "token") + " of prompt, of which " + count(cached) + " were in the cache and not computed again",
      );
    }
  }

  #showActions() {
    const { message } = this;
    const swap = message.logprobs?.length
      ? element("button.plain.small", { type: "button", "aria-pressed": String(this.#tokens !== null), onclick: () => {
          this.#showTokens(this.#tokens === null);
          this.#showActions();
          this.#bar.querySelector("[aria-pressed]").focus();
        } }, this.#tokens ? "Show as text" : "Show tokens")
      : null;
    const isWhole = !message.error && !message.isBroken && message.finish !== "stopped" && message.finish !== "deadline";
    const mayRunAlone = isWhole && message.asked && Number.isSafeInteger(message.seed);
    this.#bar.replaceChildren(
      ...[
        versionsControl(this.#versions, message, this.#actions),
        iconButton("again", "Answer again", () => this.#actions.again(message)),
        mayRunAlone && iconButton("alone", "Run it again alone: the same request must give the same answer", () => this.#actions.alone(message)),
        copyButton("Copy the answer", () => message.content),
        swap,
      ].filter(Boolean),
    );
  }
}
