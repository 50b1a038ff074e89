// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The pages of a pool, a cell each, in the order of their numbers: whose they are, which are shared, which are kept for those that begin alike.

import { colourOf, fit, hatching, isDark, palette } from "./colours.js";
import { bytes, count, element, plural } from "./dom.js";

const FREE = 0;
const SHARED = 2;
const KEPT = 3;
const MOST_HEIGHT = 340;

export class PageMap {
  #canvas = element("canvas", { tabindex: 0, role: "img" });
  #cursor = element("div.cell-cursor", { hidden: true });
  #title = element("h2");
  #numbers = element("p.numbers");
  #readout = element("p.readout", { "aria-live": "polite" });
  #pool = null;
  #kinds = new Uint8Array(0);
  #owners = new Int32Array(0);
  #drawn = null; // what the canvas shows: kinds and owners
  #grid = { pitch: 1, columns: 1, group: 1, cells: 0 };
  #index = -1; // the cell that is pointed at
  #chosen = null; // the request whose pages stand out
  #isPointing = false;
  /// A cell of this request is pointed at (null: of none).
  onrequest = () => {};

  constructor() {
    this.node = element(
      "section.map",
      null,
      element("div.section-head", null, this.#title, this.#numbers),
      element("div.canvas-frame", null, this.#canvas, this.#cursor),
      this.#readout,
    );
    const canvas = this.#canvas;
    canvas.addEventListener("pointermove", (event) => this.#point(this.#cellAt(event)));
    canvas.addEventListener("pointerdown", (event) => this.#point(this.#cellAt(event)));
    canvas.addEventListener("pointerleave", () => document.activeElement !== canvas && this.#point(-1));
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.#index < 0 && this.#point(0));
    canvas.addEventListener("blur", () => this.#point(-1));
    canvas.addEventListener("keydown", (event) => {
      const { columns, cells } = this.#grid;
      const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
      let to;
      if (event.key in moves) to = this.#index + moves[event.key];
      else if (event.key === "Home") to = 0;
      else if (event.key === "End") to = cells - 1;
      else return;
      event.preventDefault();
      this.#point(Math.min(Math.max(to, 0), cells - 1));
    });
  }

  show(pool, index, many) {
    this.#pool = pool;
    if (this.#kinds.length !== pool.pages) {
      this.#kinds = new Uint8Array(pool.pages);
      this.#owners = new Int32Array(pool.pages);
      this.#drawn = null;
    }
    let at = 0;
    for (const [length, kind, request] of pool.runs) {
      this.#kinds.fill(kind, at, at + length);
      this.#owners.fill(request, at, at + length);
      at += length;
    }
    const window = pool.window ? ", window of " + count(pool.window) : "";
    this.#title.textContent = many ? "Pages of pool " + (index + 1) + window : "Pages" + window;
    this.#numbers.textContent = count(pool.held) + " held · " + count(pool.kept) + " kept · " + count(pool.free) + " free";
    this.#numbers.title = "A page is " + plural(pool.page_size, "token") + ", " + bytes(pool.page_bytes);
    this.#canvas.setAttribute(
      "aria-label",
      "Map of " + plural(pool.pages, "page") + ": " + this.#numbers.textContent + ". The arrow keys go from page to page.",
    );
    this.draw();
    this.#read();
  }

  /// The pages of this request stand out; null for none.
  choose(request) {
    if (request === this.#chosen) return;
    this.#chosen = request;
    this.#drawn = null;
    this.draw();
  }

  /// Everything anew: the colours or the size changed.
  redraw() {
    this.#drawn = null;
    if (this.#pool) this.draw();
  }

  #layOut(width) {
    const { pages } = this.#pool;
    let pitch = 18;
    while (pitch > 4 && Math.ceil(pages / Math.floor(width / pitch)) * pitch > MOST_HEIGHT) pitch -= 1;
    const columns = Math.max(Math.floor(width / pitch), 1);
    // More pages than can be seen: a cell stands for several.
    const group = Math.max(Math.ceil(pages / (columns * Math.floor((1.5 * MOST_HEIGHT) / pitch))), 1);
    const cells = Math.ceil(pages / group);
    this.#grid = { pitch, columns, group, cells, height: Math.max(Math.ceil(cells / columns), 1) * pitch };
  }

  /// Of a cell's pages the first that somebody holds, then one that is kept.
  #pageOf(cell) {
    const { group } = this.#grid;
    const first = cell * group;
    if (group === 1) return first;
    let kept = -1;
    for (let page = first; page < Math.min(first + group, this.#kinds.length); page += 1) {
      if (this.#kinds[page] !== FREE && this.#kinds[page] !== KEPT) return page;
      if (this.#kinds[page] === KEPT && kept < 0) kept = page;
    }
    return kept < 0 ? first : kept;
  }

  draw() {
    const width = this.#canvas.clientWidth;
    if (!width) return;
    this.#layOut(width);
    const { pitch, columns, cells, height } = this.#grid;
    if (fit(this.#canvas, width, height)) this.#drawn = null;
    const context = this.#canvas.getContext("2d");
    const colours = palette();
    const dark = isDark();
    if (this.#drawn?.length !== cells) {
      context.clearRect(0, 0, width, height);
      this.#drawn = new Float64Array(cells).fill(-1);
    }
    const size = pitch - (pitch > 6 ? 2 : 1);
    const hatch = hatching(context, colours.map_hatch);
    let colour = null;
    let owner = -2;
    for (let cell = 0; cell < cells; cell += 1) {
      const page = this.#pageOf(cell);
      const kind = this.#kinds[page];
      const request = this.#owners[page];
      const code = kind + 4 * (request + 1);
      if (this.#drawn[cell] === code) continue;
      this.#drawn[cell] = code;
      const left = (cell % columns) * pitch;
      const top = Math.floor(cell / columns) * pitch;
      context.clearRect(left, top, pitch, pitch);
      if (kind === FREE || kind === KEPT) {
        context.globalAlpha = this.#chosen === null ? 1 : 0.5;
        context.fillStyle = kind === FREE ? colours.map_free : colours.map_kept;
        context.fillRect(left, top, size, size);
        if (kind === KEPT && size >= 6) {
          context.fillStyle = colours.map_kept_dot;
          const dot = Math.max(Math.round(size / 5), 1.5);
          context.fillRect(left + (size - dot) / 2, top + (size - dot) / 2, dot, dot);
        }
      } else {
        if (request !== owner) {
          owner = request;
          colour = colourOf(request, dark);
        }
        context.globalAlpha = this.#chosen === null || this.#chosen === request ? 1 : 0.18;
        context.fillStyle = colour;
        context.fillRect(left, top, size, size);
        if (kind === SHARED) {
          context.fillStyle = hatch;
          context.fillRect(left, top, size, size);
        }
      }
    }
    context.globalAlpha = 1;
    this.#moveCursor();
  }

  #cellAt(event) {
    const box = this.#canvas.getBoundingClientRect();
    const { pitch, columns, cells } = this.#grid;
    const column = Math.floor((event.clientX - box.left) / pitch);
    const cell = Math.floor((event.clientY - box.top) / pitch) * columns + column;
    return column >= 0 && column < columns && cell >= 0 && cell < cells ? cell : -1;
  }

  #point(cell) {
    if (cell === this.#index) return;
    this.#index = cell;
    this.#moveCursor();
    this.#read();
  }

  #moveCursor() {
    const { pitch, columns, cells } = this.#grid;
    this.#cursor.hidden = this.#index < 0 || this.#index >= cells;
    if (this.#cursor.hidden) return;
    this.#cursor.style.width = this.#cursor.style.height = pitch + 2 + "px";
    const [left, top] = [(this.#index % columns) * pitch - 2, Math.floor(this.#index / columns) * pitch - 2];
    this.#cursor.style.transform = `translate(${left}px, ${top}px)`;
  }

  #read() {
    const pool = this.#pool;
    const { group, cells } = this.#grid;
    let words;
    let request = null;
    if (this.#index < 0 || this.#index >= cells) {
      const each = plural(pool.page_size, "token") + " and " + bytes(pool.page_bytes) + " a page";
      words = count(pool.pages) + " pages, " + each + (group > 1 ? "; a cell stands for " + group : "") + ".";
    } else {
      const page = this.#pageOf(this.#index);
      const kind = this.#kinds[page];
      const owner = this.#owners[page];
      const said = [
        "is free",
        "is held by request " + owner,
        "is shared by several requests, first by " + owner,
        "is kept for prompts that begin alike",
      ];
      words = "Page " + count(page) + " " + (said[kind] ?? "is unknown") + ".";
      if (kind !== FREE && kind !== KEPT) request = owner;
    }
    if (this.#readout.textContent !== words) this.#readout.textContent = words;
    // Who does not point has no say: a request may be pointed at in the table.
    if (this.#index >= 0 || this.#isPointing) this.onrequest(request);
    this.#isPointing = this.#index >= 0;
  }
}
