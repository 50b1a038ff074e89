#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Serves the page of `martlet serve` with a server behind it that only pretends: for work on the page, and for tests of it alone.

    Tests/Page/stub_server.py [--port 8100] [--prefix /a/b] [--loading SECONDS] [--key KEY] [--quiet-engine]

Needs nothing but Python. The page's files come from Sources/CMartletPage/page as they are at the moment, but only those that
CMartletPage.c embeds. What is answered depends on words of the last message: markdown, code, think, tool, break, slow, long, limit,
error, refuse, unsafe, empty, echo (the request itself, as JSON). Log-probabilities come where the request asks for them.
"""

import argparse
import json
import math
import pathlib
import random
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "Sources/CMartletPage"
MODEL = "stub-135m"
POLICY = "default-src 'self'"

MARKDOWN = """## Why keys and values are kept

Attention looks back at *every* earlier token. Without a cache it would compute their keys and values **again and again**; with one, a step costs what the new token costs.

1. The prompt is read once, in chunks.
2. Each page holds 32 tokens:
   - pages are handed out one by one,
   - and prompts that *begin alike* share them.
3. ~~Nothing~~ is copied.

> A martlet never lands; neither does a batch whose requests come and go between steps.

| part | shape | bytes a token |
|:--|:-:|--:|
| keys | `[layers, heads, 64]` | 11,520 |
| values | `[layers, heads, 64]` | 11,520 |

```swift
let pages = (tokens + pageSize - 1) / pageSize
print("pages: \\(pages)")
```

---

More is in [the paper](https://arxiv.org/abs/2309.06180 "PagedAttention"), at https://example.org/cache, or ask <mailto:someone@example.org>.
"""

UNSAFE = """Before <img src=x onerror="document.title='broken into'"> and <script>document.title='broken into'</script>.

[a link](javascript:document.title='broken%20into') and [another](data:text/html,x) and [JAVA](  JaVaScRiPt:alert(1)) and [good](https://example.org/)

![a picture](https://elsewhere.example/pixel.png)

<style>body { display: none }</style>

```html"><img src=x onerror=alert(1)>
<img src=x onerror="document.title='broken into'">
```
"""

CODE = """Merging walks both arrays once:

```swift
/// Merges two sorted arrays into one.
func merged<Element: Comparable>(_ left: [Element], _ right: [Element]) -> [Element] {
  var result: [Element] = []
  result.reserveCapacity(left.count + right.count)
  var (i, j) = (0, 0)
  while i < left.count && j < right.count {
    if right[j] < left[i] {
      result.append(right[j])
      j += 1
    } else {
      result.append(left[i])
      i += 1
    }
  }
  return result + left[i...] + right[j...]
}
```

It takes `left.count + right.count` steps, and equal elements keep their order."""

THOUGHT = "The reader asks for a reason. I could begin with memory, or with time.\n\nTime is easier to see: without a cache, each token pays for all before it."

PLAIN = "A cache keeps the keys and values of every token that was read, so that each new token is computed once. "


def long_text():
    """About 50 000 tokens: every kind of block, again and again, and one long piece of code."""
    parts = []
    for number in range(1, 90):
        parts.append(f"### Part {number}\n\n" + PLAIN * 8)
        parts.append("\n".join(f"- point {item} of *part {number}*, with `code` and **weight**" for item in range(12)))
        parts.append("```c\n" + "\n".join(f"sum += keys[{line}] * query[{line}];  // line {line}" for line in range(40)) + "\n```")
    parts.append("```text\n" + "\n".join(f"line {line} of a long piece of code" for line in range(3000)) + "\n```\n\nThe end.")
    return "\n\n".join(parts)


def tokens_of(text):
    return re.findall(r"\s?[^\s]{1,6}|\s", text)


def answer_to(prompt):
    """(what is thought, what is said, seconds between tokens, how it ends)"""
    words = prompt.lower()
    if "unsafe" in words:
        return "", UNSAFE, 0.002, "stop"
    if "think" in words:
        return THOUGHT, MARKDOWN if "markdown" in words else PLAIN, 0.01, "stop"
    if "markdown" in words or "key/value" in words:
        return "", MARKDOWN, 0.004, "stop"
    if "code" in words or "swift" in words:
        return "", CODE, 0.004, "stop"
    if "long" in words:
        return "", long_text(), 0, "stop"
    if "slow" in words or "count from" in words:
        return "", PLAIN * 20, 0.08, "stop"
    if "limit" in words:
        return "", PLAIN.rsplit(" ", 8)[0], 0.005, "length"
    if "break" in words:
        return "", PLAIN, 0.01, "break"
    if "error" in words:
        return "", PLAIN, 0.005, "error"
    if "empty" in words:
        return "", "", 0, "stop"
    return "", PLAIN + "What it costs is memory: a page of 32 tokens at a time.", 0.008, "stop"


class Engine:
    """Pretends to be an engine: requests come and go, share prefixes, fill pages and leave them behind."""

    PAGE_SIZE, PAGES, BATCH, TOKENS = 32, 2048, 16, 512

    def __init__(self, is_quiet=False, seed=7, pages=None):
        self.lock = threading.Lock()
        self.random = random.Random(seed)
        self.is_quiet = is_quiet
        self.pages = pages or self.PAGES
        self.start = time.monotonic()
        self.free = list(range(self.pages - 1, -1, -1))
        self.nodes = {}  # id: [parent, pages, holders, last use, retention]; in the order of making, parents first
        self.waiting, self.running = [], []
        self.steps = []
        self.totals = dict(steps=0, prompt_tokens=0, cached_prompt_tokens=0, generated_tokens=0, pauses=0, requests=0)
        self.number = self.node = 0
        self.ticks = 0
        if not is_quiet:
            for size, retention in ((24, 2), (12, 1), (7, 1)):
                self.keep(-1, [self.free.pop() for _ in range(size)], retention)
            for _ in range(1500):
                self.tick()

    def now(self):
        return self.ticks * 0.03

    def keep(self, parent, pages, retention=1):
        self.node += 1
        self.nodes[self.node] = [parent, pages, [], self.now(), retention]
        return self.node

    def path(self, node):
        path = []
        while node in self.nodes:
            path.append(node)
            node = self.nodes[node][0]
        return path

    def take(self, count):
        parents = None
        while len(self.free) < count:
            parents = {node[0] for node in self.nodes.values()}
            leaves = [key for key, node in self.nodes.items() if not node[2] and key not in parents]
            if not leaves:
                return None
            key = min(leaves, key=lambda leaf: (self.nodes[leaf][4], self.nodes[leaf][3]))
            self.free.extend(self.nodes.pop(key)[1])
        return [self.free.pop() for _ in range(count)]

    def arrive(self):
        begin = self.random.choice(list(self.nodes)) if self.nodes and self.random.random() < 0.85 else -1
        if len(self.path(begin)) > 6:
            begin = self.path(begin)[-1]
        self.number += 1
        self.totals["requests"] += 1
        self.waiting.append(
            dict(
                number=self.number,
                begin=begin,
                own=self.random.choice([60, 200, 400, 1500]),
                made=0,
                computed=0,
                cached=0,
                most=self.random.randint(30, 300),
                held=[],
                path=[],
                since=self.now(),
                first=None,
                state="waiting",
            )
        )

    def tick(self):
        self.ticks += 1
        if self.random.random() < 0.14 and len(self.waiting) < 9:
            self.arrive()
        while self.waiting and len(self.running) < self.BATCH:
            request = self.waiting[0]
            pages = self.take(math.ceil(request["own"] / self.PAGE_SIZE))
            if pages is None:
                break
            self.waiting.pop(0)
            request["path"] = self.path(request["begin"])
            for key in request["path"]:
                self.nodes[key][2].append(request["number"])
            request["held"] = pages
            request["cached"] = sum(len(self.nodes[key][1]) for key in request["path"]) * self.PAGE_SIZE
            request["computed"] = request["cached"]
            request["own"] += request["cached"]
            self.totals["cached_prompt_tokens"] += request["cached"]
            request["state"] = "reading"
            self.running.append(request)
        budget = 192
        contexts = tokens = generations = 0
        for request in list(self.running):
            if request["state"] == "reading":
                part = min(budget, request["own"] - request["computed"])
                if part <= 0:
                    continue
                budget -= part
                contexts, tokens = contexts + 1, tokens + part
                request["computed"] += part
                if request["computed"] == request["own"]:
                    request["state"], request["first"] = "generating", self.now() - request["since"]
            else:
                generations += 1
                request["made"] += 1
                if (request["own"] + request["made"]) % self.PAGE_SIZE == 0 and (page := self.take(1)):
                    request["held"] += page
                if request["made"] >= request["most"]:
                    self.running.remove(request)
                    for key in request["path"]:
                        self.nodes[key][2].remove(request["number"])
                        self.nodes[key][3] = self.now()
                    self.keep(request["path"][0] if request["path"] else -1, request["held"], self.random.choice([0, 1, 1, 1]))
        if tokens or generations:
            self.totals["steps"] += 1
            self.totals["prompt_tokens"] += tokens
            self.totals["generated_tokens"] += generations
            wobble = self.random.uniform(0.9, 1.2)
            self.steps.append(
                dict(
                    number=self.totals["steps"] - 1,
                    start=self.now(),
                    context_requests=contexts,
                    context_tokens=tokens,
                    generation_requests=generations,
                    model_time=wobble * (0.006 + 0.00011 * tokens + 0.0008 * generations),
                    sampling_time=wobble * 0.0002 * (generations + 1),
                    overhead_time=wobble * 0.0006,
                )
            )

    def snapshot(self, with_text, since):
        with self.lock:
            while not self.is_quiet and self.now() < time.monotonic() - self.start + 45:
                self.tick()
            now = self.now()
            cells = [(0, -1)] * self.pages
            for _, pages, holders, _, _ in self.nodes.values():
                cell = (2, holders[0]) if len(holders) > 1 else (1, holders[0]) if holders else (3, -1)
                for page in pages:
                    cells[page] = cell
            for request in self.running:
                for page in request["held"]:
                    cells[page] = (1, request["number"])
            runs = []
            for kind, owner in cells:
                if runs and runs[-1][1:] == [kind, owner]:
                    runs[-1][0] += 1
                else:
                    runs.append([1, kind, owner])
            counts = [sum(kind == wanted for kind, _ in cells) for wanted in range(4)]
            children = {}
            for key, node in self.nodes.items():
                children.setdefault(node[0] if node[0] in self.nodes else -1, []).append(key)
            nodes, rest = [], [(key, -1) for key in reversed(children.get(-1, []))]
            while rest and len(nodes) < 512:
                key, parent = rest.pop()
                _, pages, holders, used, retention = self.nodes[key]
                rest += [(child, len(nodes)) for child in reversed(children.get(key, []))]
                nodes.append([parent, len(pages) * self.PAGE_SIZE, len(pages), len(holders), 0 if holders else round(now - used, 3), retention])
            texts = ["You are brief. What is a page?", "Write a poem about swifts that never land, in four lines, without the word “sky”."]
            requests = [
                dict(
                    number=request["number"],
                    id=f"chatcmpl-{request['number']:024x}",
                    state=request["state"],
                    waits_for=None if request["state"] != "waiting" else "batch" if len(self.running) >= self.BATCH else "pages",
                    priority=0,
                    prompt_tokens=request["own"],
                    cached_prompt_tokens=request["cached"],
                    computed_prompt_tokens=request["computed"],
                    generated_tokens=request["made"],
                    pages=[len(request["held"]) + sum(len(self.nodes[key][1]) for key in request["path"])],
                    age=now - request["since"],
                    time_to_first_token=request["first"],
                    pauses=0,
                    text=texts[request["number"] % 2] if with_text else None,
                )
                for request in self.running + self.waiting
            ]
            return dict(
                time=now,
                model=MODEL,
                is_running=True,
                max_batch_size=self.BATCH,
                max_num_tokens=self.TOKENS,
                max_sequence_length=8192,
                waiting_requests=len(self.waiting),
                waiting_tokens=sum(request["own"] for request in self.waiting),
                running_requests=len(self.running),
                paused_requests=0,
                totals=dict(self.totals),
                pools=[
                    dict(
                        page_size=self.PAGE_SIZE,
                        page_bytes=737280,
                        window=None,
                        pages=self.pages,
                        free=counts[0],
                        kept=counts[3],
                        held=counts[1] + counts[2],
                        runs=runs,
                    )
                ],
                prefix_tree=dict(nodes=nodes, is_cut=bool(rest)),
                steps=[step for step in self.steps[-256:] if step["number"] > since],
                requests=requests,
                requests_left_out=0,
            )


class ManyThings(Engine):
    """What a snapshot may have and the other engine has not: two pools, a request that paused, more than is told."""

    def snapshot(self, with_text, since):
        snapshot = super().snapshot(with_text, since)
        window = dict(page_size=32, page_bytes=65536, window=512, pages=100, free=97, kept=1, held=2, runs=[[1, 3, -1], [2, 2, 5], [97, 0, -1]])
        snapshot["pools"].append(window)
        snapshot["prefix_tree"]["is_cut"] = True
        snapshot["requests_left_out"] = 3
        snapshot["paused_requests"] = 1
        first = snapshot["requests"][0]
        first.update(state="paused", waits_for="pages", pauses=2, pages=[12, 3], id="")
        return snapshot


def assets():
    """{path: content type} of what the binary embeds."""
    return dict(re.findall(r'^\s*\{"([^"]+)", "([^"]+)"', (PAGE / "CMartletPage.c").read_text(encoding="utf-8"), re.M))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, message, **more):
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}, **more})

    def path_within(self):
        path = self.path.split("?")[0]
        prefix = self.server.prefix
        if not path.startswith(prefix + "/"):
            self.error(404, f"nothing is here: {path}")
            return None
        self.server.paths.append(path)
        return path[len(prefix) + 1 :]

    def is_let_in(self):
        if self.server.key and self.headers.get("Authorization") != "Bearer " + self.server.key:
            self.error(401, "This server asks for an API key, and the one given is not right.")
            return False
        return True

    def do_GET(self):
        path = self.path_within()
        if path is None:
            return
        files = assets()
        name = path or "index.html"
        if name in files:
            self.reply(200, (PAGE / "page" / name).read_bytes(), files[name])
        elif path == "health":
            left = self.server.loads_until - time.monotonic()
            if left > 0:
                progress = 1 - left / max(self.server.loading, left)
                self.reply(503, {"status": "loading", "progress": progress, "message": "Reading stub-135m.gguf."})
            else:
                self.reply(200, {"status": "ok"})
        elif path == "v1/models":
            if self.is_let_in():
                about = {"max_model_len": 8192, "meta": {"architecture": "stub"}}
                self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "martlet", **about}]})
        elif path == "martlet/live":
            if self.is_let_in():
                self.live("text=1" in self.path)
        else:
            self.error(404, f"nothing is here: {path}")

    do_HEAD = do_GET

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, value):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def live(self, with_text):
        if with_text and not self.server.shows_text:
            return self.error(403, "prompts are shown only where the server was started with --live-prompts")
        self.begin_stream()
        self.server.watchers += 1
        since = -1
        try:
            while True:
                snapshot = self.server.engine.snapshot(with_text, since)
                since = snapshot["totals"]["steps"] - 1
                self.event(snapshot)
                self.wfile.write(b": keep-alive\n\n")
                time.sleep(0.1)
        except OSError:
            pass
        finally:
            self.server.watchers -= 1

    def do_POST(self):
        path = self.path_within()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path != "v1/chat/completions":
            return path is None or self.error(404, f"nothing is here: {path}")
        if not self.is_let_in():
            return
        if self.server.loads_until > time.monotonic():
            return self.error(503, "The model is loading.")
        request = json.loads(body)
        self.server.requests.append(request)
        prompt = next(message["content"] for message in reversed(request["messages"]) if message["role"] == "user")
        if "refuse" in prompt.lower():
            return self.error(400, "This model's maximum context length is 8192 tokens. However, your prompt is too long: 9000 tokens.")
        try:
            self.answer(request, prompt)
        except OSError:
            self.server.aborted += 1

    def answer(self, request, prompt):
        thought, said, pause, end = answer_to(prompt)
        if "echo" in prompt.lower():
            said = "```json\n" + json.dumps(request, indent=1) + "\n```"
        if request.get("continue_final_message"):
            said, end = " And here it goes on.", "stop"
        wants_logprobs = request.get("logprobs") and end != "break"
        self.begin_stream()
        shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": int(time.time()), "model": MODEL}

        def chunk(delta, finish=None, logprobs=None):
            self.event({**shared, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}], "usage": None})

        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None, "logprobs": None}
        self.event({**shared, "choices": [first], "usage": None, "seed": request.get("seed", 7)})
        self.wfile.write(b": keep-alive\n\n")
        time.sleep(0.15)
        rng = random.Random(1)
        for token in tokens_of(thought):
            chunk({"reasoning_content": token})
            time.sleep(0.03)
        tokens = tokens_of(said)
        batch = 40 if pause == 0 else 1
        for at in range(0, len(tokens), batch):
            piece = tokens[at : at + batch]
            if end in ("break", "error") and at > len(tokens) // 2:
                break
            logprobs = None
            if wants_logprobs:
                logprobs = {"content": []}
                for token in piece:
                    chance = rng.choice([0.999, 0.97, 0.93, 0.99, 0.96, 0.98, 0.92, 0.7, 0.8, 0.45, 0.2, 0.05])
                    others = [token, " the", " cache", " keys", " token"]
                    left = 1 - chance
                    tops = [
                        {"token": other, "logprob": math.log(chance if index == 0 else left / 2**index), "bytes": list(other.encode())}
                        for index, other in enumerate(others)
                    ]
                    logprobs["content"].append({**tops[0], "top_logprobs": sorted(tops, key=lambda top: -top["logprob"])})
            chunk({"content": "".join(piece)}, logprobs=logprobs)
            time.sleep(pause or 0.02)
        if end == "break":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if end == "error":
            self.event({"error": {"message": "The model's numbers are not finite.", "type": "server_error", "param": None, "code": "500"}})
            return
        if "tool" in prompt.lower():
            chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}]})
            for part in ('{"city": "Par', 'is", "days', '": 3}'):
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
            end = "tool_calls"
        chunk({}, finish=end)
        if request.get("stream_options", {}).get("include_usage"):
            words = sum(len(message["content"]) for message in request["messages"]) // 4 + 12
            self.event(
                {
                    **shared,
                    "choices": [],
                    "usage": {
                        "prompt_tokens": words,
                        "completion_tokens": len(tokens) + len(tokens_of(thought)) + 1,
                        "total_tokens": words + len(tokens) + 1,
                        "prompt_tokens_details": {"cached_tokens": words // 32 * 32 if len(request["messages"]) > 1 else 0},
                    },
                }
            )
        self.event("[DONE]")


class Stub(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0, prefix="", loading=0, key="", engine=None, shows_text=True):
        super().__init__(("127.0.0.1", port), Handler)
        self.prefix, self.key, self.shows_text = prefix.rstrip("/"), key, shows_text
        self.engine = engine or Engine()
        self.loading = loading
        self.loads_until = time.monotonic() + loading
        self.paths, self.requests = [], []  # what was asked for
        self.aborted = self.watchers = 0
        self.connections = set()
        self.url = f"http://127.0.0.1:{self.server_port}{self.prefix}/"

    def process_request(self, request, address):
        self.connections.add(request)
        super().process_request(request, address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def stop(self):
        """As if it were killed: connections that are kept break too."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, *_):
        pass  # browsers hang up as they like

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--loading", type=float, default=0, help="seconds for which it says that it loads")
    parser.add_argument("--key", default="")
    parser.add_argument("--quiet-engine", action="store_true", help="no requests in the live view")
    arguments = parser.parse_args()
    stub = Stub(arguments.port, arguments.prefix, arguments.loading, arguments.key, Engine(arguments.quiet_engine))
    print(stub.url)
    stub.serve_forever()
