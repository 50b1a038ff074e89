// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Markdown and the reader of events, without a browser: node --test Tests/Page/*.test.mjs

import assert from "node:assert/strict";
import { test } from "node:test";

import { SegmentReader, inline, parse, safeAddress } from "../../Sources/CMartletPage/page/markdown.js";
import { EventParser } from "../../Sources/CMartletPage/page/sse.js";

/// Trees as HTML, which is easier to read in a test. Text is escaped as a browser would have to.
function html(tree) {
  if (typeof tree === "string") return tree.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  if (tree.tag === "code-block") return `<pre ${tree.info}>${html(tree.text)}</pre>`;
  const more = (tree.href ? ` href=${tree.href}` : "") + (tree.title ? ` title=${tree.title}` : "") + (tree.align ? ` align=${tree.align}` : "");
  const start = tree.tag === "ol" && tree.start !== 1 ? ` start=${tree.start}` : "";
  return `<${tree.tag}${more}${start}>${tree.children.map(html).join("")}` + (["br", "hr"].includes(tree.tag) ? "" : `</${tree.tag}>`);
}
const page = (text) => parse(text).map(html).join("");
const line = (text) => inline(text).map((node) => html(node)).join("");

const BLOCKS = [
  ["paragraphs", "one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"],
  ["headings", "# One #\n## Two\ntext\n####### seven", "<h1>One</h1><h2>Two</h2><p>text<br>####### seven</p>"],
  ["rules", "a\n\n---\n* * *\n___", "<p>a</p><hr><hr><hr>"],
  ["fences", "```py {1}\na\n\n  b\n```\nc", "<pre py {1}>a\n\n  b</pre><p>c</p>"],
  ["a fence in a fence", "````\n```\nx\n```\n````", "<pre >```\nx\n```</pre>"],
  ["a fence without an end", "~~~\na", "<pre >a</pre>"],
  ["quotes", "> a\nb\n> > c\n\nd", "<blockquote><p>a<br>b</p><blockquote><p>c</p></blockquote></blockquote><p>d</p>"],
  ["lists", "- a\n- b\n  - c\n\n    d\n- e", "<ul><li>a</li><li>b<ul><li>c<p>d</p></li></ul></li><li>e</li></ul>"],
  ["numbers", "3. a\n4. b\n\n1) c", "<ol start=3><li>a</li><li>b</li></ol><ol><li>c</li></ol>"],
  ["models indent by two or three", "1. a\n  - b\n2. c\n   - d", "<ol><li>a<ul><li>b</li></ul></li><li>c<ul><li>d</li></ul></li></ol>"],
  ["code in an item", "- a\n  ```\n  x\n\n  y\n  ```\n- b", "<ul><li>a<pre >x\n\ny</pre></li><li>b</li></ul>"],
  ["tasks", "- [ ] a\n- [x] b", "<ul><li>☐ a</li><li>☑ b</li></ul>"],
  ["tables", "|a|b|c|\n|-|:-:|-:|\n|1|`x|y`|\\||\n|2|\n\nend", "<table><thead><tr><th>a</th><th align=center>b</th><th align=right>c</th></tr></thead><tbody><tr><td>1</td><td align=center><code>x|y</code></td><td align=right>|</td></tr><tr><td>2</td><td align=center></td><td align=right></td></tr></tbody></table><p>end</p>"],
  ["a bar is no table", "a | b\nc | d", "<p>a | b<br>c | d</p>"],
  ["markup is text", "<img src=x onerror=alert(1)>\n\n<script>x</script>", "<p>&lt;img src=x onerror=alert(1)></p><p>&lt;script>x&lt;/script></p>"],
];
for (const [name, text, expected] of BLOCKS) test("blocks: " + name, () => assert.equal(page(text), expected));

// Emphasis as in the examples of the CommonMark specification, section 6.2.
const INLINE = [
  ["*foo bar*", "<em>foo bar</em>"],
  ["a * foo bar*", "a * foo bar*"],
  ['a*"foo"*', 'a*"foo"*'],
  ["5*6*78", "5<em>6</em>78"],
  ["_foo bar_", "<em>foo bar</em>"],
  ["foo_bar_", "foo_bar_"],
  ["snake_case_name", "snake_case_name"],
  ["foo-_(bar)_", "foo-<em>(bar)</em>"],
  ["**foo bar**", "<strong>foo bar</strong>"],
  ["** foo bar**", "** foo bar**"],
  ["foo**bar**", "foo<strong>bar</strong>"],
  ["__foo, __bar__, baz__", "<strong>foo, <strong>bar</strong>, baz</strong>"],
  ["*foo**bar**baz*", "<em>foo<strong>bar</strong>baz</em>"],
  ["*foo**bar*", "<em>foo**bar</em>"],
  ["***foo** bar*", "<em><strong>foo</strong> bar</em>"],
  ["*foo **bar***", "<em>foo <strong>bar</strong></em>"],
  ["foo***bar***baz", "foo<em><strong>bar</strong></em>baz"],
  ["**foo*", "*<em>foo</em>"],
  ["*foo**", "<em>foo</em>*"],
  ["***foo*", "**<em>foo</em>"],
  ["*foo _bar* baz_", "<em>foo _bar</em> baz_"],
  ["**foo [bar](https://a.b/)**", "<strong>foo <a href=https://a.b/>bar</a></strong>"],
  ["~~a~~ ~b~", "<del>a</del> ~b~"],
  ["`` a`b `` `*c*`", "<code>a`b</code> <code>*c*</code>"],
  ["`a ``b", "`a ``b"],
  ["\\*a\\* \\q", "*a* \\q"],
  ["a  \nb\\\nc<br>d", "a<br>b<br>c<br>d"],
  ["&lt;b&gt; &amp;amp; &#39; &unknown;", "&lt;b> &amp;amp; ' &amp;unknown;"],
  ["[a](https://b.c/d_(e) \"f g\")", "<a href=https://b.c/d_(e) title=f g>a</a>"],
  ["[*a* `]`](<https://b.c/>)", "<a href=https://b.c/><em>a</em> <code>]</code></a>"],
  ["![a](https://b.c/d.png)", "<a href=https://b.c/d.png>a</a>"],
  ["[a](javascript:alert(1)) [b](data:text/html,x) [c](/d)", "<span>a</span> <span>b</span> <span>c</span>"],
  ["[a] (b) [c", "[a] (b) [c"],
  ["see https://a.b/c_d. (https://e.f/g(h))", "see <a href=https://a.b/c_d>https://a.b/c_d</a>. (<a href=https://e.f/g(h)>https://e.f/g(h)</a>)"],
  ["<https://a.b/> <mailto:c@d.e>", "<a href=https://a.b/>https://a.b/</a> <a href=mailto:c@d.e>c@d.e</a>"],
];
for (const [text, expected] of INLINE) test("inline: " + text, () => assert.equal(line(text), expected));

test("only http, https and mailto may be followed", () => {
  for (const bad of ["javascript:x", " JaVaScript:x", "java\nscript:x", "\u0001javascript:x", "data:x", "vbscript:x", "file:///x", "//a.b/", "blob:https://a.b/c"]) {
    assert.equal(safeAddress(bad), null, JSON.stringify(bad));
  }
  assert.equal(safeAddress(" https://a.b/ "), "https://a.b/");
});

/// What a reader would see at the end of a stream that came in these pieces.
function streamed(pieces) {
  const reader = new SegmentReader();
  const settled = [];
  let open = [];
  let code = null;
  for (const piece of pieces) {
    reader.append(piece);
    const read = reader.read();
    settled.push(...read.closed);
    if (read.open[0]?.grown) {
      const [{ grown, rest, info }] = read.open;
      if (info !== undefined) code = { tag: "code-block", info, lines: [], children: [] };
      code.lines.push(...grown);
      open = [{ kind: "code", tree: { ...code, text: [...code.lines, ...(rest ? [rest] : [])].join("\n") } }];
    } else {
      open = read.open;
    }
  }
  const blocks = [];
  for (const segment of [...settled, ...open]) {
    if (segment.kind !== "item") blocks.push(segment.tree);
    else if (segment.joins) blocks.at(-1).children.push(segment.tree);
    else blocks.push({ tag: segment.isOrdered ? "ol" : "ul", start: segment.number, children: [segment.tree] });
  }
  return blocks.map(html).join("");
}

function generator(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("a text that grows ends as the whole text is, however it is cut", () => {
  const random = generator(20261129);
  const lines = ["", "", "text with *words*", "-5 below", "- item", "  - inner", "  more", "1. one", "1.5 million", "2. two", "```js", "x = 1", "```", "> quote",
    "# head", "---", "| a | b |", "|---|---|", "| 1 | 2 |", "text | bar", "- [ ] task", "    indented", "* star", "**bold", "still**"];
  for (let round = 0; round < 3000; round += 1) {
    const text = Array.from({ length: 1 + Math.floor(random() * 12) }, () => lines[Math.floor(random() * lines.length)]).join("\n");
    const pieces = [];
    for (let at = 0; at < text.length; ) {
      const next = at + 1 + Math.floor(random() * 6);
      pieces.push(text.slice(at, next));
      at = next;
    }
    assert.equal(streamed(pieces), page(text), JSON.stringify(text));
  }
});

test("hostile texts are read in time that grows with their length", () => {
  for (const piece of ["*a ", "**a* ", "[a](", "![", "`", "`a``b", "> ", "- ", "_a*", "<https:", "|a", "~~a "]) {
    const text = piece.repeat(20000);
    const start = performance.now();
    parse(text);
    const time = performance.now() - start;
    // Quadratic time would be minutes; this passes on a slow and busy machine.
    assert.ok(time < 5000, `${JSON.stringify(piece)} took ${time} ms`);
  }
});

test("events are the same however the stream is cut", () => {
  const stream = ": comment\ndata: one\n\ndata:two\r\ndata: three\r\n\r\nevent: x\nid: 4\rdata:  four\r\rretry: 1\n\ndata\n\ndata: last";
  const expected = ["one", "two\nthree", " four", "last"];
  const random = generator(7);
  for (let round = 0; round < 500; round += 1) {
    const events = [];
    const parser = new EventParser((data) => events.push(data));
    for (let at = 0; at < stream.length; ) {
      const next = at + 1 + Math.floor(random() * 9);
      parser.push(stream.slice(at, next));
      at = next;
    }
    parser.finish();
    assert.deepEqual(events, expected);
  }
});
