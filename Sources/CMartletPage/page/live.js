// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The live view: what the engine does, as it does it. It is connected only while it is looked at; the server gathers nothing for nobody.

import { colourOf, isDark } from "./colours.js";
import { byID, count, element, plural, rate, seconds, tell } from "./dom.js";
import { PageMap } from "./page-map.js";
import { PrefixTree } from "./prefix-tree.js";
import { streamLive } from "./server.js";
import { StepStrip } from "./step-strip.js";

const WINDOW = 3; // seconds over which rates are taken

export class LivePage {
  #watch;
  #isShown = false;
  #abort = null;
  #snapshot = null;
  #frame = null;
  #maps = [];
  #tree = new PrefixTree();
  #strip = new StepStrip();
  #table = new RequestTable();
  #past = []; // { time, prompt, cached, generated, steps, requests: Map(number: generated) } of the window
  #steps = []; // not drawn yet
  #chosen = null;

  constructor(watch) {
    this.#watch = watch;
    byID("live-tree").append(this.#tree.node);
    byID("live-steps").append(this.#strip.node);
    byID("live-requests").append(this.#table.node);
    this.#table.onrequest = (number) => this.#choose(number);
    document.addEventListener("visibilitychange", () => this.#follow());
    byID("live-text").addEventListener("change", () => {
      this.#disconnect();
      this.#follow();
    });
    watch.onchange(() => this.#follow());
    new ResizeObserver(() => this.#redraw()).observe(byID("live-content"));
  }

  show(isShown) {
    this.#isShown = isShown;
    this.#follow();
    if (isShown) this.#redraw();
  }

  /// The theme changed.
  redraw() {
    this.#redraw();
    if (this.#snapshot) this.#draw();
  }

  #redraw() {
    if (!this.#isShown) return;
    for (const part of [...this.#maps, this.#tree, this.#strip]) part.redraw();
  }

  // MARK: Connection

  #follow() {
    if (!this.#isShown || document.hidden) this.#disconnect();
    else if (!this.#abort) this.#connect();
  }

  #disconnect() {
    this.#abort?.abort();
    this.#abort = null;
  }

  async #connect() {
    const abort = new AbortController();
    this.#abort = abort;
    const text = byID("live-text");
    let failures = 0;
    while (!abort.signal.aborted) {
      let pause = 1000;
      try {
        await streamLive(text.checked, abort.signal, (snapshot) => {
          failures = 0;
          this.#take(snapshot);
        });
        this.#say(this.#snapshot ? "The server ended the view; asking again." : "Connecting …");
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error.status === 403 && text.checked) {
          text.checked = false;
          tell("This server does not show prompts: it was started without --live-prompts.");
          pause = 0;
        } else if (error.status === 404) {
          this.#say("This server has no live view.");
          pause = 15000;
        } else if (error.status === 401) {
          this.#say("The server asks for an API key: see the settings.");
          pause = 3000;
        } else if (error.status === 503) {
          this.#say("The model is loading.");
        } else {
          this.#say("The server is not there; trying again.");
          this.#watch.check();
        }
      }
      failures += 1;
      await new Promise((resolve) => {
        setTimeout(resolve, Math.min(pause * failures, 15000));
        abort.signal.addEventListener("abort", resolve, { once: true });
      });
    }
  }

  #say(words) {
    byID("live-state").textContent = words;
    byID("live").classList.toggle("is-live", words === "live");
  }

  #take(snapshot) {
    this.#snapshot = snapshot;
    this.#steps.push(...(snapshot.steps ?? []));
    if (this.#steps.length > 1000) this.#steps.splice(0, this.#steps.length - 600);
    const { totals } = snapshot;
    if (this.#past.length && snapshot.time < this.#past.at(-1).time) this.#past = [];
    this.#past.push({
      time: snapshot.time,
      prompt: totals.prompt_tokens,
      generated: totals.generated_tokens,
      requests: new Map(snapshot.requests.map((request) => [request.number, request.generated_tokens])),
    });
    while (this.#past.length > 2 && snapshot.time - this.#past[0].time > WINDOW) this.#past.shift();
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#draw();
    });
  }

  // MARK: Drawing

  #draw() {
    const snapshot = this.#snapshot;
    if (!snapshot || !this.#isShown) return;
    this.#say(snapshot.is_running ? "live" : "The engine takes no requests any more.");
    byID("live-content").hidden = false;
    const maps = byID("live-maps");
    while (this.#maps.length < snapshot.pools.length) {
      const map = new PageMap();
      map.onrequest = (number) => this.#choose(number);
      this.#maps.push(map);
      maps.append(map.node);
    }
    while (this.#maps.length > snapshot.pools.length) this.#maps.pop().node.remove();
    snapshot.pools.forEach((pool, index) => this.#maps[index].show(pool, index, snapshot.pools.length > 1));
    this.#tree.show(snapshot.prefix_tree);
    this.#strip.show(this.#steps, snapshot.max_num_tokens);
    this.#steps = [];
    this.#showTotals(snapshot);
    this.#table.show(snapshot, this.#past);
  }

  #choose(number) {
    if (number === this.#chosen) return;
    this.#chosen = number;
    for (const map of this.#maps) map.choose(number);
    this.#table.choose(number);
  }

  #showTotals(snapshot) {
    const { totals } = snapshot;
    const first = this.#past[0];
    const time = snapshot.time - first.time;
    const per = (value) => (time > 0 ? rate(Math.max(value, 0) / time) : "–");
    const prompts = totals.prompt_tokens + totals.cached_prompt_tokens;
    const pages = snapshot.pools.reduce((sum, pool) => sum + pool.pages, 0);
    const held = snapshot.pools.reduce((sum, pool) => sum + pool.held, 0);
    figure("total-running", count(snapshot.running_requests), "of " + count(snapshot.max_batch_size) + " places");
    let line = snapshot.waiting_tokens ? count(snapshot.waiting_tokens) + " tokens" : "nobody in line";
    if (snapshot.paused_requests) line = count(snapshot.paused_requests) + " paused";
    figure("total-waiting", count(snapshot.waiting_requests), line);
    figure("total-writing", per(totals.generated_tokens - first.generated), count(totals.generated_tokens) + " in all");
    figure("total-reading", per(totals.prompt_tokens - first.prompt), count(totals.prompt_tokens) + " in all");
    const cached = totals.cached_prompt_tokens;
    figure("total-cached", prompts ? Math.round((100 * cached) / prompts) + " %" : "–", count(cached) + " not computed");
    figure("total-pages", pages ? Math.round((100 * held) / pages) + " %" : "–", count(held) + " of " + count(pages));
  }
}

function figure(id, value, note) {
  const node = byID(id);
  const [strong, small] = [node.querySelector("strong"), node.querySelector("small")];
  if (strong.textContent !== value) strong.textContent = value;
  if (small.textContent !== note) small.textContent = note;
}

const STATES = {
  waiting: "waiting",
  reading: "reading",
  generating: "writing",
  paused: "paused",
};
const OBSTACLES = { batch: "for a place", pages: "for pages" };

class RequestTable {
  #body = element("tbody");
  #rows = new Map(); // number: { row, cells }
  #more = element("p.readout");
  #numbers = element("p.numbers");
  #chosen = null;
  #nothing = element("p.nothing", null, "No request. Ask something in the chat, and watch it here.");
  #frame;
  onrequest = () => {};

  constructor() {
    const heads = [
      ["Request", ""],
      ["State", ""],
      ["Prompt", ""],
      ["Written", "number"],
      ["Tokens/s", "number wide"],
      ["Pages", "number wide"],
      ["First after", "number wide"],
      ["Pauses", "number wide"],
      ["Age", "number"],
    ];
    this.#frame = element(
      "div.table-frame",
      { tabindex: 0, role: "region", "aria-label": "Requests" },
      element(
        "table.requests",
        null,
        element("thead", null, element("tr", null, heads.map(([words, kind]) => element("th", { scope: "col", class: kind }, words)))),
        this.#body,
      ),
    );
    this.node = element(
      "section",
      null,
      element(
        "div.section-head",
        null,
        element("h2", null, "Requests"),
        this.#numbers,
        element(
          "div.legend",
          null,
          element("span.legend-entry", null, element("span.swatch.part-cached"), "cached"),
          element("span.legend-entry", null, element("span.swatch.part-computed"), "computed"),
        ),
      ),
      this.#frame,
      this.#nothing,
      this.#more,
    );
  }

  show(snapshot, past) {
    const { requests } = snapshot;
    const dark = isDark();
    // Those that ended go first: a row that is moved loses the focus.
    const numbers = new Set(requests.map((request) => request.number));
    for (const [number, { row }] of this.#rows) {
      if (numbers.has(number)) continue;
      row.remove();
      this.#rows.delete(number);
    }
    requests.forEach((request, index) => {
      let entry = this.#rows.get(request.number);
      if (!entry) {
        entry = this.#make(request);
        this.#rows.set(request.number, entry);
      }
      this.#fill(entry, request, past, dark);
      if (this.#body.children[index] !== entry.row) this.#body.insertBefore(entry.row, this.#body.children[index] ?? null);
    });
    const { totals } = snapshot;
    this.#numbers.textContent = plural(totals.requests, "request") + " so far" + (totals.pauses ? ", " + plural(totals.pauses, "pause") : "");
    this.#nothing.hidden = requests.length > 0;
    this.#frame.hidden = requests.length === 0;
    this.#more.textContent = snapshot.requests_left_out ? "And " + plural(snapshot.requests_left_out, "more request") + "." : "";
  }

  choose(number) {
    this.#rows.get(this.#chosen)?.row.classList.remove("is-chosen");
    this.#chosen = number;
    this.#rows.get(number)?.row.classList.add("is-chosen");
  }

  #make(request) {
    const cell = (kind) => element("td", { class: kind });
    const cells = {
      number: element("th", { scope: "row" }),
      state: cell("state"),
      prompt: cell("prompt"),
      written: cell("number"),
      rate: cell("number wide"),
      pages: cell("number wide"),
      first: cell("number wide"),
      pauses: cell("number wide"),
      age: cell("number"),
    };
    const swatch = element("span.swatch");
    const name = element("button.request-name", {
      type: "button",
      title: request.id || "A text that is scored",
      onfocus: () => this.onrequest(request.number),
      onblur: () => this.onrequest(null),
    }, swatch, String(request.number));
    cells.number.append(name);
    const cached = element("span.part-cached");
    const computed = element("span.part-computed");
    const said = element("span.prompt-count");
    const text = element("div.prompt-text", { hidden: true });
    cells.prompt.append(element("div.progress", { "aria-hidden": "true" }, cached, computed), said, text);
    const row = element(
      "tr",
      { onpointerenter: () => this.onrequest(request.number), onpointerleave: () => this.onrequest(null) },
      Object.values(cells),
    );
    if (request.number === this.#chosen) row.classList.add("is-chosen");
    return { row, cells, swatch, cached, computed, said, text };
  }

  #fill({ row, cells, swatch, cached, computed, said, text }, request, past, dark) {
    const put = (node, words) => {
      if (node.textContent !== words) node.textContent = words;
    };
    swatch.style.backgroundColor = colourOf(request.number, dark);
    row.dataset.state = request.state;
    put(cells.state, (STATES[request.state] ?? request.state) + (OBSTACLES[request.waits_for] ? " " + OBSTACLES[request.waits_for] : ""));
    const whole = Math.max(request.prompt_tokens, 1);
    const fromCache = Math.min(request.cached_prompt_tokens, request.computed_prompt_tokens);
    cached.style.width = (100 * fromCache) / whole + "%";
    computed.style.width = (100 * Math.max(request.computed_prompt_tokens - fromCache, 0)) / whole + "%";
    const isRead = request.computed_prompt_tokens >= request.prompt_tokens;
    put(said, isRead ? count(request.prompt_tokens) : count(request.computed_prompt_tokens) + " of " + count(request.prompt_tokens));
    put(cells.written, count(request.generated_tokens));
    put(cells.rate, request.state === "generating" ? rateOf(request, past) : "–");
    put(cells.pages, request.pages.map((pages) => count(pages)).join(" + "));
    put(cells.first, Number.isFinite(request.time_to_first_token) ? seconds(request.time_to_first_token) : "–");
    put(cells.pauses, request.pauses ? count(request.pauses) : "–");
    put(cells.age, seconds(request.age));
    text.hidden = !request.text;
    put(text, request.text ?? "");
  }
}

/// Over what is remembered of the request.
function rateOf(request, past) {
  const now = past.at(-1);
  const first = past.find((moment) => moment.requests.has(request.number));
  const time = first ? now.time - first.time : 0;
  return time > 0.15 ? rate((request.generated_tokens - first.requests.get(request.number)) / time) : "–";
}
