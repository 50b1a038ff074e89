// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Markdown as models write it. Text becomes a tree of plain values, and the tree becomes elements: no markup is ever read, so `<img onerror=…>`
// stays the characters that it is. The tree can be looked at without a browser.
//
// The unit is the segment: a block at the outermost level, or one item of an outermost list. Only the last segment of a growing text can still
// change, whatever comes; that is what `MarkdownView` lives on.
//
// A tree's leaf is a string; other nodes are { tag, children, … } with `href` and `title` for links, `info` and `text` for code.

const DEPTH = 12;

const FENCE = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*?)[ \t]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)|( *)$|( )(?= ))/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const isBlank = (line) => line.trim() === "";

/// Where a line at the outermost level begins something that ends a paragraph.
function beginsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

/// The segments of the lines: { kind, first, last (lines), … }. `last` is the line after it.
function segmentsOf(lines) {
  const segments = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const segment = segmentAt(lines, at);
    segment.first = at;
    segments.push(segment);
    at = segment.last;
  }
  return segments;
}

function segmentAt(lines, at) {
  const line = lines[at];
  let found;
  if ((found = FENCE.exec(line))) {
    const [, indent, mark, info] = found;
    let last = at + 1;
    while (last < lines.length && !closesFence(lines[last], mark)) last += 1;
    const isOpen = last >= lines.length;
    const strip = new RegExp(`^ {0,${indent.length}}`);
    const text = lines.slice(at + 1, last).map((line) => line.replace(strip, ""));
    // After the last line's end there is no line yet.
    if (isOpen && text.at(-1) === "") text.pop();
    return { kind: "code", mark, indent: indent.length, info, text: text.join("\n"), isOpen, last: isOpen ? last : last + 1 };
  }
  if ((found = HEADING.exec(line))) return { kind: "heading", level: found[1].length, text: found[2] ?? "", last: at + 1 };
  if (RULE.test(line)) return { kind: "rule", last: at + 1 };
  if (QUOTE.test(line)) {
    let last = at + 1;
    while (last < lines.length && (QUOTE.test(lines[last]) || (!isBlank(lines[last]) && !beginsBlock(lines[last])))) last += 1;
    return { kind: "quote", lines: lines.slice(at, last).map((line) => line.replace(QUOTE, "")), last };
  }
  if ((found = ITEM.exec(line))) return itemAt(lines, at, found);
  if (line.includes("|") && at + 1 < lines.length && TABLE_RULE.test(lines[at + 1]) && cellsOf(line).length === cellsOf(lines[at + 1]).length) {
    let last = at + 2;
    while (last < lines.length && !isBlank(lines[last]) && lines[last].includes("|")) last += 1;
    return { kind: "table", lines: lines.slice(at, last), last };
  }
  let last = at + 1;
  while (last < lines.length && !isBlank(lines[last]) && !beginsBlock(lines[last])) {
    // A table may follow a line of text without a blank line between them.
    if (lines[last].includes("|") && last + 1 < lines.length && TABLE_RULE.test(lines[last + 1]) && lines[last + 1].includes("|")) break;
    last += 1;
  }
  return { kind: "paragraph", text: lines.slice(at, last).join("\n"), last };
}

function closesFence(line, mark) {
  const found = /^ {0,3}(`+|~+)[ \t]*$/.exec(line);
  return found !== null && found[1][0] === mark[0] && found[1].length >= mark.length;
}

function itemAt(lines, at, found) {
  const marker = found[2];
  // Where the item's text stands; lines that stand as far belong to it, and models are often a blank short.
  const indent = found[1].length + marker.length + (found[3]?.length ?? 1);
  const content = [lines[at].slice(indent)];
  const enough = Math.min(indent, found[1].length + 2);
  let last = at + 1;
  let fence = null;
  while (last < lines.length) {
    const line = lines[last];
    const depth = line.length - line.trimStart().length;
    if (isBlank(line)) {
      let next = last + 1;
      while (next < lines.length && isBlank(lines[next])) next += 1;
      if (next >= lines.length) break;
      const nextDepth = lines[next].length - lines[next].trimStart().length;
      if (nextDepth < enough) break;
      content.push("");
    } else if (depth >= enough) {
      const inner = line.slice(Math.min(indent, depth));
      content.push(inner);
      const mark = FENCE.exec(inner)?.[2];
      if (fence === null) fence = mark ?? null;
      else if (closesFence(inner, fence)) fence = null;
    } else if (fence === null && !beginsBlock(line) && !isBlank(lines[last - 1])) {
      content.push(line.trimStart());
    } else {
      break;
    }
    last += 1;
  }
  const number = Number.parseInt(marker, 10);
  const isOrdered = !Number.isNaN(number);
  return { kind: "item", isOrdered, number, indent: found[1].length, list: isOrdered ? marker.at(-1) : marker, lines: content, last };
}

function cellsOf(line) {
  let text = line.trim();
  if (text.startsWith("|")) text = text.slice(1);
  if (text.endsWith("|") && !text.endsWith("\\|")) text = text.slice(0, -1);
  const cells = [""];
  let isCode = false;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "\\" && text[at + 1] === "|") {
      cells[cells.length - 1] += "|";
      at += 1;
    } else if (text[at] === "|" && !isCode) {
      cells.push("");
    } else {
      if (text[at] === "`") isCode = !isCode;
      cells[cells.length - 1] += text[at];
    }
  }
  return cells.map((cell) => cell.trim());
}

/// The tree of one segment. An item's is its `li`; who holds it makes the list.
function treeOf(segment, depth) {
  switch (segment.kind) {
    case "code":
      return { tag: "code-block", info: segment.info, text: segment.text, children: [] };
    case "heading":
      return { tag: "h" + segment.level, children: inline(segment.text) };
    case "rule":
      return { tag: "hr", children: [] };
    case "quote":
      return { tag: "blockquote", children: blocksOf(segment.lines, depth + 1) };
    case "table": {
      const [head, rule, ...rows] = segment.lines.map(cellsOf);
      const align = rule.map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : null));
      const row = (cells, tag) => ({
        tag: "tr",
        children: head.map((_, column) => ({ tag, align: align[column], children: inline(cells[column] ?? "") })),
      });
      return {
        tag: "table",
        children: [
          { tag: "thead", children: [row(head, "th")] },
          { tag: "tbody", children: rows.map((cells) => row(cells, "td")) },
        ],
      };
    }
    case "item": {
      const task = /^\[([ xX])\] /.exec(segment.lines[0]);
      const lines = task ? [segment.lines[0].slice(4), ...segment.lines.slice(1)] : segment.lines;
      const blocks = blocksOf(lines, depth + 1);
      // A first paragraph stands beside its marker without a paragraph's space.
      const children = blocks[0]?.tag === "p" ? [...blocks[0].children, ...blocks.slice(1)] : blocks;
      if (task) children.unshift(task[1] === " " ? "☐ " : "☑ ");
      return { tag: "li", children };
    }
    default:
      return { tag: "p", children: inline(segment.text) };
  }
}

const isSameList = (one, other) =>
  one?.kind === "item" && other?.kind === "item" && one.isOrdered === other.isOrdered && one.list === other.list;

function blocksOf(lines, depth) {
  if (depth > DEPTH) return [{ tag: "p", children: [lines.join("\n")] }];
  const blocks = [];
  let before = null;
  for (const segment of segmentsOf(lines)) {
    const tree = treeOf(segment, depth);
    if (segment.kind !== "item") blocks.push(tree);
    else if (isSameList(before, segment)) blocks.at(-1).children.push(tree);
    else blocks.push({ tag: segment.isOrdered ? "ol" : "ul", start: segment.number, children: [tree] });
    before = segment;
  }
  return blocks;
}

/// The tree of a whole text.
export function parse(text) {
  return blocksOf(text.replaceAll("\r\n", "\n").split("\n"), 0);
}

// MARK: Within a line

const PUNCTUATION = /[!-/:-@[-`{-~\p{P}\p{S}]/u;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", "#39": "'", mdash: "—", ndash: "–", hellip: "…" };

/// Only these may be followed from what a model wrote: everything else, `javascript:` first, stays text.
export function safeAddress(address) {
  const clean = address.replace(/[\u0000-\u0020\u007f]/g, "");
  return /^(?:https?:\/\/|mailto:)/i.test(clean) ? clean : null;
}

/// Emphasis, code, links and breaks of a block's text, as nodes.
export function inline(text) {
  const pieces = [];
  const noCloser = new Set(); // runs of backticks of which none follows: they are not looked for twice
  let plain = "";
  const flush = () => {
    if (plain) pieces.push(plain);
    plain = "";
  };
  let at = 0;
  while (at < text.length) {
    const character = text[at];
    let found;
    switch (character) {
      case "\\":
        if (text[at + 1] === "\n") {
          flush();
          pieces.push({ tag: "br", children: [] });
          at += 2;
        } else if (at + 1 < text.length && /[!-/:-@[-`{-~]/.test(text[at + 1])) {
          plain += text[at + 1];
          at += 2;
        } else {
          plain += character;
          at += 1;
        }
        continue;
      case "\n":
        plain = plain.replace(/ +$/, "");
        flush();
        pieces.push({ tag: "br", children: [] });
        at += 1;
        while (text[at] === " ") at += 1;
        continue;
      case "`": {
        let end = at;
        while (text[end] === "`") end += 1;
        const length = end - at;
        const close = noCloser.has(length) ? -1 : closingRun(text, end, length);
        if (close < 0) {
          noCloser.add(length);
          plain += text.slice(at, end);
          at = end;
        } else {
          flush();
          let code = text.slice(end, close).replaceAll("\n", " ");
          if (/^ .*[^ ].* $/s.test(code)) code = code.slice(1, -1);
          pieces.push({ tag: "code", children: [code] });
          at = close + length;
        }
        continue;
      }
      case "<":
        if ((found = /^<((?:https?:\/\/|mailto:)[^\s<>]*)>/i.exec(text.slice(at, at + 2048)))) {
          flush();
          pieces.push(link(found[1].replace(/^mailto:/i, ""), found[1]));
          at += found[0].length;
          continue;
        }
        if ((found = /^<br ?\/?>/i.exec(text.slice(at, at + 6)))) {
          flush();
          pieces.push({ tag: "br", children: [] });
          at += found[0].length;
          continue;
        }
        break;
      case "&":
        if ((found = /^&(#39|[a-z]+);/.exec(text.slice(at, at + 9))) && Object.hasOwn(ENTITIES, found[1])) {
          plain += ENTITIES[found[1]];
          at += found[0].length;
          continue;
        }
        break;
      case "h":
        if ((at === 0 || !/[\p{L}\p{N}]/u.test(text[at - 1])) && (found = /^https?:\/\/[^\s<>"`]+/.exec(text.slice(at, at + 2048)))) {
          const address = bareAddress(found[0]);
          if (address.length > 8) {
            flush();
            pieces.push(link(address, address));
            at += address.length;
            continue;
          }
        }
        break;
      case "!":
        if (text[at + 1] === "[") {
          flush();
          pieces.push({ bracket: true, isImage: true, text: "![" });
          at += 2;
          continue;
        }
        break;
      case "[":
        flush();
        pieces.push({ bracket: true, isImage: false, text: "[" });
        at += 1;
        continue;
      case "]": {
        flush();
        let open = pieces.length - 1;
        while (open >= 0 && !pieces[open].bracket) open -= 1;
        if (open >= 0) {
          const target = text[at + 1] === "(" ? targetAt(text, at + 2) : null;
          if (target) {
            const children = resolve(pieces.splice(open).slice(1));
            // A picture would be fetched from elsewhere: its name is shown, as a link.
            pieces.push(link(children.length ? children : target.address, target.address, target.title));
            at = target.end;
            continue;
          }
          pieces[open] = pieces[open].text;
        }
        plain += "]";
        at += 1;
        continue;
      }
      case "*":
      case "_":
      case "~": {
        let end = at;
        while (text[end] === character) end += 1;
        const before = at === 0 ? " " : text[at - 1];
        const after = text[end] ?? " ";
        const left = !/\s/.test(after) && (!PUNCTUATION.test(after) || /\s/.test(before) || PUNCTUATION.test(before));
        const right = !/\s/.test(before) && (!PUNCTUATION.test(before) || /\s/.test(after) || PUNCTUATION.test(after));
        const opens = character === "_" ? left && (!right || PUNCTUATION.test(before)) : left;
        const closes = character === "_" ? right && (!left || PUNCTUATION.test(after)) : right;
        flush();
        if (character === "~" && end - at !== 2) pieces.push(text.slice(at, end));
        else pieces.push({ mark: character, length: end - at, original: end - at, opens, closes });
        at = end;
        continue;
      }
    }
    plain += character;
    at += 1;
  }
  flush();
  return resolve(pieces);
}

function closingRun(text, from, length) {
  let at = text.indexOf("`", from);
  while (at >= 0) {
    let end = at;
    while (text[end] === "`") end += 1;
    if (end - at === length) return at;
    at = text.indexOf("`", end);
  }
  return -1;
}

/// A bare address without the punctuation of the sentence that it stands in.
function bareAddress(text) {
  let address = text;
  while (/[.,:;!?'"*_~\])}]$/.test(address)) {
    if (address.endsWith(")") && (address.match(/\(/g)?.length ?? 0) >= (address.match(/\)/g)?.length ?? 0)) break;
    address = address.slice(0, -1);
  }
  return address;
}

// An address, in angle brackets or with parentheses in pairs; a title in quotes; and the parenthesis that ends both.
const TARGET = /^[ \n]*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*))(?:[ \n]+(?:"([^"]*)"|'([^']*)'))?[ \n]*\)/;

/// `address "title")` after `](`.
function targetAt(text, start) {
  const found = TARGET.exec(text.slice(start, start + 4096));
  return found && { address: found[1] ?? found[2], title: found[3] ?? found[4], end: start + found[0].length };
}

function link(content, address, title) {
  const children = typeof content === "string" ? [content] : content;
  const href = safeAddress(address);
  return href ? { tag: "a", href, title, children } : { tag: "span", children };
}

/// Pairs the marks of emphasis, as CommonMark does it: a closer takes the nearest opener of its kind.
function resolve(pieces) {
  const list = pieces.map((piece) => (piece.bracket ? piece.text : piece));
  const bottoms = new Map(); // below which no opener for this kind of closer is left: keeps the search linear
  for (let close = 0; close < list.length; close += 1) {
    const closer = list[close];
    if (!closer?.mark || !closer.closes || closer.length === 0) continue;
    const key = closer.mark + closer.opens + (closer.original % 3);
    let open = close - 1;
    const bottom = bottoms.get(key) ?? -1;
    for (; open > bottom; open -= 1) {
      const opener = list[open];
      if (opener?.mark !== closer.mark || !opener.opens || opener.length === 0) continue;
      // The rule of three: a run that both opens and closes pairs with another only where their lengths do not add up to a multiple of three.
      const isOdd = (opener.closes || closer.opens) && (opener.original + closer.original) % 3 === 0 && opener.original % 3 !== 0;
      if (!isOdd) break;
    }
    if (open <= bottom) {
      bottoms.set(key, close - 1);
      continue;
    }
    const opener = list[open];
    const use = closer.mark === "~" || (opener.length >= 2 && closer.length >= 2) ? 2 : 1;
    const children = list.slice(open + 1, close).filter((piece) => piece !== null);
    const node = { tag: closer.mark === "~" ? "del" : use === 2 ? "strong" : "em", children: marksAsText(children) };
    opener.length -= use;
    closer.length -= use;
    // Places stay where they are, so that `bottoms` keep their meaning: what went into the node is null.
    list.fill(null, open + 1, close);
    if (close - open > 1) {
      list[open + 1] = node;
    }
    if (closer.length > 0) close -= 1;
  }
  return joined(marksAsText(list.filter((piece) => piece !== null)));
}

function marksAsText(pieces) {
  return joined(pieces.map((piece) => (piece.mark ? piece.mark.repeat(piece.length) : piece)).filter((piece) => piece !== ""));
}

function joined(pieces) {
  const result = [];
  for (const piece of pieces) {
    if (typeof piece === "string" && typeof result.at(-1) === "string") result[result.length - 1] += piece;
    else result.push(piece);
  }
  return result;
}

// MARK: A text that grows

/// Says of a growing text which segments are new and which may still change; the text before those is never looked at again.
export class SegmentReader {
  #source = "";
  #start = 0; // of the first segment that may still change
  #fence = null; // of a last segment that is open code: { mark, indent, scanned }
  #before = null; // the last segment that will not change

  get source() {
    return this.#source;
  }

  append(text) {
    this.#source += text;
  }

  /// The segments that will not change any more since the last call, and those that may: one as a rule, two where the last line, which is not
  /// complete, seems to begin another. Each has a `tree`, and `joins`: it goes on with the list of the segment before it.
  ///
  /// Open code has no tree of its text: it has `grown`, the complete lines since the last call, and `rest`, the line that is not complete.
  read() {
    if (this.#fence) {
      const code = this.#readFence();
      if (code) return { closed: [], open: [code] };
    }
    const source = this.#source.slice(this.#start);
    const lines = source.split("\n").map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
    const segments = segmentsOf(lines);
    // A segment is settled where the first line of the next one is complete: `-` may become `-5`, which goes on with a paragraph.
    const complete = lines.length - 1;
    let settled = 0;
    while (settled + 1 < segments.length) {
      const next = segments[settled + 1];
      if (next.first + (next.kind === "table" ? 1 : 0) >= complete) break;
      settled += 1;
    }
    let before = this.#before;
    for (const segment of segments) {
      segment.joins = isSameList(before, segment);
      before = segment;
    }
    const closed = segments.slice(0, settled);
    const open = segments.slice(settled);
    for (const segment of closed) segment.tree = treeOf(segment, 0);
    if (!open.length) return { closed, open };
    if (closed.length) this.#before = closed.at(-1);
    let at = 0;
    for (let line = 0; line < open[0].first; line += 1) at = source.indexOf("\n", at) + 1;
    this.#start += at;
    const last = open.at(-1);
    const firstLine = this.#source.indexOf("\n", this.#start) + 1;
    if (open.length === 1 && last.kind === "code" && last.isOpen && firstLine > 0) {
      this.#fence = { mark: last.mark, indent: last.indent, scanned: firstLine };
      return { closed, open: [{ ...this.#readFence(), info: last.info, joins: false }] };
    }
    for (const segment of open) segment.tree = treeOf(segment, 0);
    return { closed, open };
  }

  #readFence() {
    const fence = this.#fence;
    const strip = new RegExp(`^ {0,${fence.indent}}`);
    const grown = [];
    let end;
    while ((end = this.#source.indexOf("\n", fence.scanned)) >= 0) {
      const line = this.#source.slice(fence.scanned, end).replace(/\r$/, "");
      if (closesFence(line, fence.mark)) {
        this.#fence = null;
        return null;
      }
      grown.push(line.replace(strip, ""));
      fence.scanned = end + 1;
    }
    const rest = this.#source.slice(fence.scanned).replace(/\r$/, "");
    // A closing fence without its line's end is one already, but may yet grow into something else.
    return { kind: "code", isOpen: true, grown, rest: closesFence(rest, fence.mark) ? "" : rest.replace(strip, "") };
  }
}
