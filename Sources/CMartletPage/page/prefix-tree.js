// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The prefix cache as an icicle: a prompt goes down, from its first token on; prompts that begin alike share the top. A node is as wide as the pages
// below it, its own included.

import { fit, palette } from "./colours.js";
import { count, element, plural, seconds } from "./dom.js";

const MOST_HEIGHT = 300;

export class PrefixTree {
  #canvas = element("canvas", { tabindex: 0, role: "img" });
  #readout = element("p.readout", { "aria-live": "polite" });
  #numbers = element("p.numbers");
  #mode = "idle";
  #nodes = [];
  #boxes = [];
  #isCut = false;
  #index = -1;
  #next = -1;
  #empty = element("p.nothing", null, "Nothing is cached yet. The beginnings of prompts will hang here.");

  constructor() {
    const button = (mode, words) =>
      element("button", {
        type: "button",
        "aria-pressed": String(mode === this.#mode),
        onclick: (event) => {
          this.#mode = mode;
          for (const other of event.currentTarget.parentNode.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
          this.draw();
        },
      }, words);
    this.node = element(
      "section.tree",
      null,
      element(
        "div.section-head",
        null,
        element("h2", null, "Prefix tree"),
        this.#numbers,
        element("div.choice", { role: "group", "aria-label": "Colour of the tree" }, button("idle", "by age"), button("holders", "by use")),
      ),
      element("div.canvas-frame", null, this.#canvas),
      this.#empty,
      this.#readout,
    );
    const canvas = this.#canvas;
    canvas.addEventListener("pointermove", (event) => this.#point(this.#nodeAt(event)));
    canvas.addEventListener("pointerdown", (event) => this.#point(this.#nodeAt(event)));
    canvas.addEventListener("pointerleave", () => document.activeElement !== canvas && this.#point(-1));
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.#index < 0 && this.#nodes.length && this.#point(0));
    canvas.addEventListener("blur", () => this.#point(-1));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  show({ nodes, is_cut: isCut }) {
    this.#isCut = isCut;
    this.#nodes = nodes.map(([parent, tokens, pages, holders, idle, retention]) => ({
      parent, tokens, pages, holders, idle, retention, children: [], weight: Math.max(pages, 0.5), depth: 0, before: 0,
    }));
    this.#nodes.forEach((node, index) => {
      const parent = this.#nodes[node.parent];
      if (!parent) return;
      parent.children.push(index);
      node.depth = parent.depth + 1;
      node.before = parent.before + parent.tokens;
    });
    for (let index = this.#nodes.length - 1; index >= 0; index -= 1) {
      const node = this.#nodes[index];
      if (this.#nodes[node.parent]) this.#nodes[node.parent].weight += node.weight;
    }
    // What the cache gives up first: of leaves that nobody holds the one of the lowest retention, and of those the longest unused.
    this.#next = -1;
    this.#nodes.forEach((node, index) => {
      if (node.children.length || node.holders) return;
      const best = this.#nodes[this.#next];
      if (!best || node.retention < best.retention || (node.retention === best.retention && node.idle > best.idle)) this.#next = index;
    });
    if (isCut) this.#next = -1; // it may be among those that are not told
    let tokens = 0;
    for (const node of this.#nodes) tokens += node.tokens;
    const said = count(tokens) + " tokens in " + plural(nodes.length, "node") + (isCut ? " shown, there are more" : "");
    this.#numbers.textContent = nodes.length ? said : "";
    this.#canvas.setAttribute("aria-label", "Prefix tree: " + (this.#numbers.textContent || "empty") + ". The arrow keys go through it.");
    this.#canvas.parentNode.hidden = nodes.length === 0;
    this.#empty.hidden = nodes.length > 0;
    if (this.#index >= nodes.length) this.#index = -1;
    this.draw();
    this.#read();
  }

  redraw() {
    this.draw();
  }

  draw() {
    const width = this.#canvas.clientWidth;
    if (!width || !this.#nodes.length) return;
    const depth = Math.max(...this.#nodes.map((node) => node.depth)) + 1;
    const row = Math.max(Math.min(Math.floor(MOST_HEIGHT / depth), 42), 7);
    fit(this.#canvas, width, depth * row + 1);
    const context = this.#canvas.getContext("2d");
    const colours = palette();
    context.clearRect(0, 0, width, depth * row + 1);
    const roots = this.#nodes.flatMap((node, index) => (this.#nodes[node.parent] ? [] : [index]));
    this.#boxes = new Array(this.#nodes.length);
    this.#place(roots, 0, width, row);
    context.font = "500 11px " + colours.sans;
    context.textBaseline = "middle";
    const most = Math.max(...this.#nodes.map((node) => node.holders), 1);
    this.#nodes.forEach((node, index) => {
      const { left, top, wide } = this.#boxes[index];
      const shownWide = Math.max(wide - 1.5, 0.5);
      const high = row - 2;
      // Fresh is strong and fades over ten minutes; by use, what nobody holds is bare.
      const strength =
        this.#mode === "idle" ? 1 - Math.min(Math.log1p(node.idle) / Math.log1p(600), 1) : node.holders ? 0.35 + (0.65 * node.holders) / most : 0;
      context.fillStyle = colours.map_kept;
      context.fillRect(left, top, shownWide, high);
      context.globalAlpha = 0.12 + 0.78 * strength;
      context.fillStyle = this.#mode === "idle" ? colours.tree_idle : colours.tree_use;
      if (strength > 0 || this.#mode === "idle") context.fillRect(left, top, shownWide, high);
      context.globalAlpha = 1;
      if (node.retention === 2) {
        context.fillStyle = colours.gold;
        context.fillRect(left, top, shownWide, 3);
      }
      if (index === this.#next && wide > 3) {
        context.strokeStyle = colours.red;
        context.setLineDash([4, 3]);
        context.lineWidth = 1.5;
        context.strokeRect(left + 0.75, top + 0.75, Math.max(shownWide - 1.5, 1), high - 1.5);
        context.setLineDash([]);
      }
      if (index === this.#index) {
        context.strokeStyle = colours.ink;
        context.lineWidth = 2;
        context.strokeRect(left + 1, top + 1, Math.max(shownWide - 2, 1), high - 2);
      }
      const words = count(node.tokens);
      if (high >= 14 && context.measureText(words).width + 12 < wide) {
        context.fillStyle = strength > 0.55 ? colours.tree_text : colours.ink;
        context.fillText(words, left + 6, top + high / 2 + (node.retention === 2 ? 1.5 : 0.5));
      }
    });
  }

  #place(level, left, width, row) {
    const rest = [[level, left, width]];
    while (rest.length) {
      const [siblings, from, wide] = rest.pop();
      let sum = 0;
      for (const index of siblings) sum += this.#nodes[index].weight;
      let at = from;
      for (const index of siblings) {
        const node = this.#nodes[index];
        const share = (wide * node.weight) / sum;
        this.#boxes[index] = { left: at, top: node.depth * row, wide: share, row };
        if (node.children.length) rest.push([node.children, at, share]);
        at += share;
      }
    }
  }

  #nodeAt(event) {
    const box = this.#canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    return this.#boxes.findIndex(({ left, top, wide, row }) => x >= left && x < left + wide && y >= top && y < top + row);
  }

  #key(event) {
    const node = this.#nodes[this.#index];
    if (!node) return;
    const siblings = this.#nodes[node.parent]?.children ?? this.#nodes.flatMap((other, index) => (this.#nodes[other.parent] ? [] : [index]));
    const at = siblings.indexOf(this.#index);
    let to;
    if (event.key === "ArrowUp") to = this.#nodes[node.parent] ? node.parent : this.#index;
    else if (event.key === "ArrowDown") to = node.children[0] ?? this.#index;
    else if (event.key === "ArrowLeft") to = siblings[Math.max(at - 1, 0)];
    else if (event.key === "ArrowRight") to = siblings[Math.min(at + 1, siblings.length - 1)];
    else return;
    event.preventDefault();
    this.#point(to);
  }

  #point(index) {
    if (index === this.#index) return;
    this.#index = index;
    this.draw();
    this.#read();
  }

  #read() {
    const node = this.#nodes[this.#index];
    let words = "As wide as the pages below. Gold is kept longest; dashed goes first.";
    if (node) {
      const use = node.holders ? "held by " + plural(node.holders, "request") : "unused for " + seconds(node.idle);
      const level = ["low retention", "", "high retention"][node.retention];
      words =
        "Tokens " + count(node.before + 1) + " to " + count(node.before + node.tokens) + " of a prompt, " + plural(node.pages, "page") + ", " + use +
        (level ? ", " + level : "") + (this.#index === this.#next ? "; the first to be given up" : "") + ".";
    } else if (!this.#nodes.length) {
      words = "";
    }
    if (this.#readout.textContent !== words) this.#readout.textContent = words;
  }
}
