// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// An answer as its tokens, each coloured by how sure the model was of it, with what else it might have said. One element can be focused, and the
// arrow keys walk through the tokens: a thousand stops of the Tab key would be a trap.
//
// A token is kept as [text, log-probability, [[text, log-probability], …]].

import { byID, element } from "./dom.js";

/// From the API's form. A token that is half a character is shown by its bytes.
export function tokenOf({ token, logprob, bytes, top_logprobs: others }) {
  return [shown(token, bytes), logprob, (others ?? []).map((other) => [shown(other.token, other.bytes), other.logprob])];
}

function shown(text, bytes) {
  if (!text?.includes("\ufffd") || !Array.isArray(bytes)) return text ?? "";
  return "⟨" + bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ") + "⟩";
}

/// Five shades are as many as an eye keeps apart.
export function shadeOf(logprob) {
  const probability = Math.exp(logprob);
  return probability >= 0.9 ? 0 : probability >= 0.6 ? 1 : probability >= 0.3 ? 2 : probability >= 0.1 ? 3 : 4;
}

const percent = (logprob) => {
  const value = 100 * Math.exp(logprob);
  return value >= 99.95 ? "100 %" : value >= 9.95 ? value.toFixed(0) + " %" : value >= 0.095 ? value.toFixed(1) + " %" : "< 0.1 %";
};

const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "(nothing)";

export class TokenView {
  #tokens;
  #count = 0;
  #chosen = -1;
  #chunk = null;

  constructor(tokens) {
    this.#tokens = tokens;
    this.node = element("div.tokens", {
      tabindex: 0,
      role: "group",
      "aria-label": "Tokens of the answer. The arrow keys go from token to token and say what else was likely.",
      onkeydown: (event) => this.#key(event),
      onpointerover: (event) => event.pointerType === "mouse" && this.#choose(this.#indexOf(event.target)),
      onpointerleave: (event) => event.pointerType === "mouse" && this.#choose(-1),
      onclick: (event) => this.#choose(this.#indexOf(event.target)),
      onfocusout: () => this.#choose(-1),
    });
    this.update();
  }

  update() {
    for (; this.#count < this.#tokens.length; this.#count += 1) {
      // Chunks keep the browser from laying out a whole book for each token.
      if (this.#count % 400 === 0) {
        this.#chunk = element("span.token-chunk");
        this.node.append(this.#chunk);
      }
      const [text, logprob] = this.#tokens[this.#count];
      this.#chunk.append(element("span.token.shade-" + shadeOf(logprob), { data: { index: this.#count } }, text));
    }
  }

  #indexOf(target) {
    return target instanceof HTMLElement && target.dataset.index ? Number(target.dataset.index) : -1;
  }

  #at(index) {
    return this.node.children[Math.floor(index / 400)]?.children[index % 400];
  }

  #key(event) {
    const moves = { ArrowRight: 1, ArrowDown: 10, ArrowLeft: -1, ArrowUp: -10 };
    if (event.key === "Home") this.#choose(0);
    else if (event.key === "End") this.#choose(this.#count - 1);
    else if (event.key === "Escape" && this.#chosen >= 0) this.#choose(-1);
    else if (event.key in moves) this.#choose(this.#chosen < 0 ? 0 : Math.min(Math.max(this.#chosen + moves[event.key], 0), this.#count - 1));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #choose(index) {
    if (index === this.#chosen) return;
    this.#at(this.#chosen)?.classList.remove("is-chosen");
    this.#chosen = index;
    const tip = byID("tip");
    const token = this.#at(index);
    if (index < 0 || !token) {
      tip.hidden = true;
      return;
    }
    token.classList.add("is-chosen");
    const [text, logprob, others] = this.#tokens[index];
    const rows = [...others];
    if (!rows.some((other) => other[0] === text)) rows.push([text, logprob]);
    rows.sort((one, other) => other[1] - one[1]);
    tip.replaceChildren(
      element("p", null, element("code", null, visible(text)), " log-probability " + logprob.toFixed(2).replace("-", "−")),
      element(
        "table",
        null,
        rows.map(([other, value]) => {
          const bar = element("span.bar");
          bar.style.width = Math.max(100 * Math.exp(value), 1) + "%";
          return element(
            "tr" + (other === text ? ".is-taken" : ""),
            null,
            element("td", null, element("code", null, visible(other))),
            element("td.number", null, percent(value)),
            element("td.bars", null, bar),
          );
        }),
      ),
    );
    tip.hidden = false;
    const box = token.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(box.left, 8), innerWidth - size.width - 8);
    const isAbove = box.bottom + size.height + 12 > innerHeight;
    tip.style.left = left + "px";
    tip.style.top = (isAbove ? Math.max(box.top - size.height - 6, 8) : box.bottom + 6) + "px";
    if (document.activeElement === this.node) token.scrollIntoView({ block: "nearest" });
  }
}
