// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The last steps of the engine, a bar each, the newest at the right: above how full the batch was, below where the time went.

import { fit, palette } from "./colours.js";
import { count, element, plural, seconds } from "./dom.js";

const PITCH = 6;
const BATCH = 96; // pixels
const TIME = 84;
const GAP = 22;
const SCALE = 46; // for the numbers at the left
const MOST = 600;

export class StepStrip {
  #canvas = element("canvas", { tabindex: 0, role: "img" });
  #numbers = element("p.numbers");
  #readout = element("p.readout", { "aria-live": "polite" });
  #steps = [];
  #most = 1;
  #index = -1; // from the newest
  #ceiling = 0.001;

  constructor() {
    this.node = element(
      "section.steps",
      null,
      element("div.section-head", null, element("h2", null, "Steps"), this.#numbers, legend()),
      element("div.canvas-frame", null, this.#canvas),
      this.#readout,
    );
    const canvas = this.#canvas;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      if (event.clientX - box.left < SCALE) return -1;
      const index = Math.floor((box.right - event.clientX) / PITCH);
      return index >= 0 && index < this.#steps.length ? index : -1;
    };
    canvas.addEventListener("pointermove", (event) => this.#point(at(event)));
    canvas.addEventListener("pointerdown", (event) => this.#point(at(event)));
    canvas.addEventListener("pointerleave", () => document.activeElement !== canvas && this.#point(-1));
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.#steps.length && this.#index < 0 && this.#point(0));
    canvas.addEventListener("blur", () => this.#point(-1));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const shown = Math.floor((canvas.clientWidth - SCALE) / PITCH);
      this.#point(Math.min(Math.max(this.#index + step, 0), Math.min(this.#steps.length, shown) - 1));
    });
  }

  show(steps, most) {
    this.#most = Math.max(most, 1);
    const last = this.#steps.at(-1)?.number ?? -1;
    // An engine that was started again counts from the beginning.
    if (steps.length && steps.at(-1).number < last) this.#steps = [];
    const known = this.#steps.at(-1)?.number ?? -1;
    const fresh = steps.filter((step) => step.number > known);
    this.#steps.push(...fresh);
    if (this.#steps.length > MOST) this.#steps.splice(0, this.#steps.length - MOST);
    // Who points at a step keeps pointing at it while it moves.
    if (this.#index >= 0 && fresh.length) this.#index = Math.min(this.#index + fresh.length, this.#steps.length - 1);
    this.#canvas.setAttribute("aria-label", "The last " + plural(this.#steps.length, "step") + ". The arrow keys go from step to step.");
    this.draw();
    this.#read();
  }

  redraw() {
    this.draw();
  }

  draw() {
    const width = this.#canvas.clientWidth;
    if (!width) return;
    const height = BATCH + GAP + TIME;
    fit(this.#canvas, width, height);
    const context = this.#canvas.getContext("2d");
    const colours = palette();
    context.clearRect(0, 0, width, height);
    const shown = this.#steps.slice(-Math.floor((width - SCALE) / PITCH));
    this.#setCeiling(shown);
    this.#scale(context, colours, width);
    // Square roots: a step that gives five answers a token each is seen beside one that reads five hundred.
    const scaled = (tokens) => BATCH * Math.sqrt(Math.min(tokens / this.#most, 1));
    shown.forEach((step, at) => {
      const fromEnd = shown.length - 1 - at;
      const left = width - (fromEnd + 1) * PITCH;
      const wide = PITCH - 1.5;
      const tokens = step.context_tokens + step.generation_requests;
      const all = scaled(tokens);
      const contexts = tokens ? (all * step.context_tokens) / tokens : 0;
      context.fillStyle = colours.step_context;
      context.fillRect(left, BATCH - contexts, wide, contexts);
      context.fillStyle = colours.step_generation;
      context.fillRect(left, BATCH - all, wide, all - contexts);
      const perSecond = TIME / this.#ceiling;
      let top = BATCH + GAP + TIME;
      for (const [time, colour] of [
        [step.model_time, colours.time_model],
        [step.sampling_time, colours.time_sampling],
        [step.overhead_time, colours.time_overhead],
      ]) {
        const high = Math.min(time * perSecond, top - BATCH - GAP);
        context.fillStyle = colour;
        context.fillRect(left, top - high, wide, high);
        top -= high;
      }
      if (fromEnd === this.#index) {
        context.fillStyle = colours.ink;
        context.fillRect(left, BATCH + 3, wide, 3);
        context.globalAlpha = 0.12;
        context.fillRect(left - 1, 0, wide + 2, height);
        context.globalAlpha = 1;
      }
    });
  }

  /// A round number of seconds above all that is shown, that does not jump with every step.
  #setCeiling(shown) {
    let longest = 0.0005;
    for (const step of shown) longest = Math.max(longest, step.model_time + step.sampling_time + step.overhead_time);
    const power = 10 ** Math.floor(Math.log10(longest));
    this.#ceiling = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= longest) ?? 10 * power;
  }

  #scale(context, colours, width) {
    context.font = "11px " + colours.sans;
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.lineWidth = 1;
    const line = (y, words, isStrong) => {
      context.strokeStyle = isStrong ? colours.line_strong : colours.line;
      context.beginPath();
      context.moveTo(SCALE, Math.round(y) + 0.5);
      context.lineTo(width, Math.round(y) + 0.5);
      context.stroke();
      context.fillStyle = colours.ink_3;
      context.fillText(words, SCALE - 8, Math.min(Math.max(y, 6), BATCH + GAP + TIME - 6));
    };
    line(0, count(this.#most), true);
    line(BATCH / 2, count(Math.round(this.#most / 4)));
    line(BATCH, "0", true);
    const time = (value) => (this.#ceiling < 2 ? Number((1000 * value).toPrecision(3)) + " ms" : Number(value.toPrecision(3)) + " s");
    line(BATCH + GAP, time(this.#ceiling));
    line(BATCH + GAP + TIME / 2, time(this.#ceiling / 2));
    line(BATCH + GAP + TIME - 1, "0", true);
    context.textAlign = "left";
  }

  #point(index) {
    if (index === this.#index) return;
    this.#index = index;
    this.draw();
    this.#read();
  }

  #read() {
    const steps = this.#steps;
    const recent = steps.slice(-60);
    if (recent.length) {
      const mean = recent.reduce((sum, step) => sum + step.model_time + step.sampling_time + step.overhead_time, 0) / recent.length;
      this.#numbers.textContent = seconds(mean) + " a step";
    } else {
      this.#numbers.textContent = "";
    }
    let words = steps.length
      ? "Above, tokens of each step, of at most " + count(this.#most) + " (the scale is of square roots); below, its time."
      : "No step yet: the engine waits for a request.";
    const step = steps[steps.length - 1 - this.#index];
    if (this.#index >= 0 && step) {
      const parts = [];
      if (step.context_tokens) parts.push("reads " + plural(step.context_tokens, "token") + " of " + plural(step.context_requests, "prompt"));
      if (step.generation_requests) parts.push("gives " + plural(step.generation_requests, "answer") + " a token");
      words =
        "Step " + count(step.number) + " " + (parts.join(" and ") || "does nothing") + ": model " + seconds(step.model_time) + ", sampling " +
        seconds(step.sampling_time) + ", the rest " + seconds(step.overhead_time) + ".";
    }
    if (this.#readout.textContent !== words) this.#readout.textContent = words;
  }
}

function legend() {
  const entry = (name, words) => element("span.legend-entry", null, element("span.swatch." + name), words);
  return element(
    "div.legend",
    null,
    entry("step-context", "prompts"),
    entry("step-generation", "answers"),
    entry("time-model", "model"),
    entry("time-sampling", "sampling"),
    entry("time-overhead", "the rest"),
  );
}
