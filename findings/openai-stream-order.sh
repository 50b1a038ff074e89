#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# The Python package openai 3.57.0: what its helper `client.chat.completions.stream` makes of the order in which choices begin.
#
# With n > 1 the choices of a stream are told apart by their `index`, and the API's reference says nothing of an order among them. The helper
# finds a choice by its place in the order in which the choices came first, so that it fails where the first event is of choice 1, and where choice 2
# comes before choice 1. Once all have begun in ascending order, any order will do. So a server sends the role of every choice first, from 0 on,
# before any of their texts.
#
# Seen:
#   0, 1, 2, then any order:  ['zero', 'one', 'two']
#   1 first:                  IndexError
#   0, 2, 1:                  IndexError
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --only-binary :all: openai==3.57.0
venv/bin/python - <<'PYTHON'
import http.server
import json
import threading

import openai

WORDS = ["zero", "one", "two"]
order = []


def chunk(index, delta, finish=None):
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        events = [chunk(index, {"role": "assistant", "content": ""}) for index in order]
        events += [chunk(index, {"content": WORDS[index]}) for index in reversed(order)]
        events += [chunk(index, {}, "stop") for index in order]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n").encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)


def answers():
    with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "Hi"}], n=3) as stream:
        for _ in stream:
            pass
        return [choice.message.content for choice in stream.get_final_completion().choices]


for what, begins, seen in [("0, 1, 2, then any order", [0, 1, 2], WORDS), ("1 first", [1, 0, 2], "IndexError"), ("0, 2, 1", [0, 2, 1], "IndexError")]:
    order = begins
    try:
        result = answers()
    except Exception as error:
        result = type(error).__name__
    print(f"{what + ':':25} {result}")
    assert result == seen, f"{what}: {result} where {seen} was seen"
PYTHON
