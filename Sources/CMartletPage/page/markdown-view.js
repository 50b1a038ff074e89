// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Shows markdown that grows. What is settled is put on the page once and left alone; only the open end is made again, at most once a frame, and
// less often where that takes long. Code grows by its new lines. So an answer costs what it adds, however long it is.

import { copyButton, element } from "./dom.js";
import { SegmentReader, parse } from "./markdown.js";

const DEPTH = 48; // of elements; emphasis in emphasis without an end is a joke at the layout's expense
const LINES = 120; // of code in one element: the browser lays out again what it adds to

/// Elements of a tree.
export function render(tree, depth = 0) {
  if (typeof tree === "string") return document.createTextNode(tree);
  if (depth > DEPTH) return document.createTextNode(textOf(tree));
  if (tree.tag === "code-block") {
    const code = new CodeBlock(tree.info);
    code.append(tree.text.split("\n"));
    return code.node;
  }
  const node = document.createElement(tree.tag);
  if (tree.tag === "a") {
    node.href = tree.href;
    node.target = "_blank";
    node.rel = "noopener noreferrer nofollow";
    if (tree.title) node.title = tree.title;
  }
  if (tree.tag === "ol" && tree.start !== 1) node.start = tree.start;
  if (tree.align) node.classList.add("align-" + tree.align);
  for (const child of tree.children) node.append(render(child, depth + 1));
  // A wide table scrolls in its own frame, not the page.
  return tree.tag === "table" ? element("div.table-frame", { tabindex: 0, role: "region", "aria-label": "Table" }, node) : node;
}

function textOf(tree) {
  let text = "";
  const rest = [tree];
  while (rest.length) {
    const next = rest.pop();
    if (typeof next === "string") text += next;
    else if (next.text) text += next.text;
    else rest.push(...next.children.toReversed());
  }
  return text;
}

export function renderMarkdown(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(...parse(text).map((tree) => render(tree)));
  return fragment;
}

class CodeBlock {
  #code = element("code");
  #lines = []; // complete ones
  #rest = null;
  #chunk = null;
  #chunkLines = 0;

  constructor(info) {
    const language = info.split(/[\s{,]/)[0].slice(0, 24);
    this.node = element(
      "figure.code",
      null,
      element("figcaption", null, element("span", null, language || "text"), copyButton("Copy the code", () => this.text)),
      element("pre", { tabindex: 0 }, this.#code),
    );
  }

  get text() {
    return this.#rest ? [...this.#lines, this.#rest.data].join("\n") : this.#lines.join("\n");
  }

  /// Complete lines, and the beginning of one more.
  append(lines, rest = "") {
    this.#rest?.remove();
    this.#rest = null;
    for (const line of lines) {
      if (this.#chunk === null || this.#chunkLines === LINES) {
        this.#chunk = element("span");
        this.#chunkLines = 0;
        this.#code.append(this.#chunk);
      }
      // One text node a chunk, so that a long block stays a short list of nodes.
      const text = this.#chunk.firstChild;
      if (text) text.appendData("\n" + line);
      else this.#chunk.append(document.createTextNode(line));
      this.#chunkLines += 1;
      this.#lines.push(line);
    }
    // An empty line in a chunk of its own would have no height.
    if (this.#chunk?.firstChild?.data === "") this.#chunk.firstChild.data = "\u200b";
    if (rest) {
      this.#rest = document.createTextNode(rest);
      this.#code.append(this.#rest);
    }
  }
}

export class MarkdownView {
  #reader = new SegmentReader();
  #node;
  #open = []; // elements of segments that may still change
  #list = null; // the list that a next item may join
  #code = null; // the open code's block
  #notBefore = 0;

  constructor(node) {
    this.#node = node;
  }

  get source() {
    return this.#reader.source;
  }

  append(text) {
    this.#reader.append(text);
  }

  /// Puts on the page what was appended; false where that is left for a later frame because the last time took long.
  update(isLast = false) {
    const start = performance.now();
    if (start < this.#notBefore && !isLast) return false;
    const { closed, open } = this.#reader.read();
    if (this.#code && !closed.length && open.length === 1 && open[0].grown) {
      this.#code.append(open[0].grown, open[0].rest);
    } else {
      for (const node of this.#open) {
        const list = node.parentNode;
        node.remove();
        if (list !== this.#node && !list.hasChildNodes()) list.remove();
      }
      this.#open = [];
      this.#code = null;
      for (const segment of closed) this.#place(segment);
      for (const segment of open) this.#open.push(this.#place(segment));
    }
    const cost = performance.now() - start;
    // Never more than a fifth of the time.
    this.#notBefore = cost > 4 ? start + 5 * cost : 0;
    return true;
  }

  #place(segment) {
    if (segment.grown) {
      this.#code = new CodeBlock(segment.info);
      this.#code.append(segment.grown, segment.rest);
      this.#node.append(this.#code.node);
      return this.#code.node;
    }
    const node = render(segment.tree);
    if (segment.kind !== "item") {
      this.#node.append(node);
      return node;
    }
    if (!segment.joins || this.#list === null || this.#list !== this.#node.lastChild) {
      this.#list = document.createElement(segment.isOrdered ? "ol" : "ul");
      if (segment.isOrdered && segment.number !== 1) this.#list.start = segment.number;
      this.#node.append(this.#list);
    }
    this.#list.append(node);
    return node;
  }
}
