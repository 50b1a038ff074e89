#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# The Python package openai 3.57.0: what a stream that was read to its end costs in connections.
#
# An HTTP/1.1 answer that is read to its end leaves its connection to the next request, and both clients of the package have a pool for that. The
# synchronous client stops at the event `[DONE]` and closes the answer before its last chunk, so that every stream costs a connection of its
# own, although the server keeps them alive and sends the end of the body in the same packet; the asynchronous client reads on, and one
# connection serves them all. To a server the first looks like a client that went away in the middle of its answer: who books an answer behind
# `[DONE]` counts it as broken off.
#
# Seen:
#   20 streams one after the other, OpenAI:      20 connections
#   20 streams one after the other, AsyncOpenAI: 1 connections
#   20 answers that do not stream, OpenAI:       1 connections
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --only-binary :all: openai==3.57.0
venv/bin/python - <<'PYTHON'
import asyncio
import http.server
import json
import threading

import openai

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
EVENTS = [
    CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}]},
    CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
WHOLE = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop", "logprobs": None}],
}
connections = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        global connections
        connections += 1
        super().setup()

    def do_POST(self):
        streams = json.loads(self.rfile.read(int(self.headers["Content-Length"]))).get("stream")
        self.send_response(200)
        if streams:
            body = "".join(f"data: {json.dumps(event)}\n\n" for event in EVENTS) + "data: [DONE]\n\n"
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            # The chunk with the events and the one that ends the body, in one write.
            self.wfile.write(f"{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode())
        else:
            body = json.dumps(WHOLE).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
settings = dict(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
question = dict(model="m", messages=[{"role": "user", "content": "Hi"}])


def synchronous():
    client = openai.OpenAI(**settings)
    for _ in range(20):
        for _ in client.chat.completions.create(stream=True, **question):
            pass


def whole():
    client = openai.OpenAI(**settings)
    for _ in range(20):
        client.chat.completions.create(**question)


async def asynchronous():
    client = openai.AsyncOpenAI(**settings)
    for _ in range(20):
        async for _ in await client.chat.completions.create(stream=True, **question):
            pass


for what, run, seen in [
    ("20 streams one after the other, OpenAI", synchronous, 20),
    ("20 streams one after the other, AsyncOpenAI", lambda: asyncio.run(asynchronous()), 1),
    ("20 answers that do not stream, OpenAI", whole, 1),
]:
    connections = 0
    run()
    print(f"{what + ':':44} {connections} connections")
    assert connections == seen, f"{what}: {connections} where {seen} was seen"
PYTHON
