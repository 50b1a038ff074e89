# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Streams: their framing byte by byte, and that they say what the reply says."""

import json
import socket
import time

from .harness import CHAT, TEXT, alive, chat, check, events, expect, finishes, is_error, message, user


@check("events are framed as their readers want")
def _(server):
    fields = dict(messages=user("Count to five."), max_tokens=24, temperature=0, seed=1)
    with server.wire() as wire:
        wire.send(message("POST", CHAT, dict(fields, stream=True, n=3, stream_options={"include_usage": True})))
        status, headers = wire.head()
        expect(status == 200, status)
        for name, value in [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"), ("x-accel-buffering", "no"),
                            ("transfer-encoding", "chunked")]:
            expect(headers.get(name) == value, name, "is", headers.get(name))
        expect("content-length" not in headers and "content-encoding" not in headers and headers.get("x-request-id"), "headers:", headers)
        data = b""
        # The first piece is there before the first token: the roles of all choices.
        first = wire.chunk()
        roles = [json.loads(event[6:]) for event in first.split(b"\n\n") if event]
        expect([role["choices"][0]["index"] for role in roles] == [0, 1, 2], "the first events:", first)
        expect(all(role["choices"][0]["delta"] == {"role": "assistant", "content": ""} for role in roles), "the first deltas:", first)
        data += first
        done = None
        while piece := wire.chunk():
            data += piece
            if b"[DONE]" in piece:
                done = time.monotonic()
        expect(done and time.monotonic() - done < 0.1, "the body ends late after [DONE]")
    expect(b"\nid:" not in data and b"event:" not in data and b"retry:" not in data, "fields that break readers")
    chunks = events(data)
    expect(len({chunk["id"] for chunk in chunks}) == len({chunk["created"] for chunk in chunks}) == 1, "ids or times differ within a stream")
    expect(all(chunk["object"] == "chat.completion.chunk" for chunk in chunks), "an object's name")
    texts, finishes = ["", "", ""], [[], [], []]
    for chunk in chunks[3:-1]:
        choice = chunk["choices"][0]
        expect("finish_reason" in choice, "a choice without finish_reason")
        expect("role" not in choice["delta"], "the role comes again")
        if choice["finish_reason"]:
            expect(choice["delta"] == {}, "the last delta:", choice)
            finishes[choice["index"]].append(choice["finish_reason"])
        texts[choice["index"]] += choice["delta"].get("content", "")
    expect(all(len(finish) == 1 for finish in finishes), "finish reasons:", finishes)
    usage = chunks[-1]
    expect(usage["choices"] == [] and usage["usage"], "the last event:", usage)
    whole = server.post(CHAT, dict(fields, n=3)).json
    expect(texts == [choice["message"]["content"] for choice in whole["choices"]], "the stream says", texts, "and the reply", whole)
    expect([finish[0] for finish in finishes] == [choice["finish_reason"] for choice in whole["choices"]], "finish reasons differ")
    for count in ["prompt_tokens", "completion_tokens", "total_tokens"]:
        expect(usage["usage"][count] == whole["usage"][count], "usage:", usage["usage"], whole["usage"])
    # Without a word no usage, and every event as it was.
    expect(all(chunk["choices"] for chunk in events(server.post(CHAT, dict(fields, stream=True)).body)), "usage that nobody asked for")


@check("a completion's stream is its reply")
def _(server):
    for extra in [{}, {"logprobs": 2}, {"echo": True}, {"echo": True, "logprobs": 3}, {"echo": True, "logprobs": 1, "max_tokens": 0}, {"n": 2},
                  {"prompt": ["A cat", "The dog"], "logprobs": 1, "echo": True},
                  {"prompt": [[504, 2501], [1]], "logprobs": 1, "echo": True}]:
        fields = {"prompt": "Once upon a time", "max_tokens": 6, "temperature": 0, **extra}
        whole, stream = server.post(TEXT, fields), server.post(TEXT, dict(fields, stream=True))
        expect(whole.status == stream.status == 200, extra, whole, stream)
        choices = {}
        for chunk in events(stream.body):
            for choice in chunk["choices"]:
                held = choices.setdefault(choice["index"], dict(choice, text="", logprobs=None, finish_reason=None))
                held["text"] += choice["text"]
                expect(held["finish_reason"] is None, "something follows the finish reason:", stream)
                held["finish_reason"] = choice["finish_reason"]
                held["stop_reason"] = choice.get("stop_reason")
                if choice["logprobs"]:
                    held["logprobs"] = {name: (held["logprobs"] or {}).get(name, []) + values for name, values in choice["logprobs"].items()}
        for choice in whole.json["choices"]:
            expect(choices[choice["index"]] == choice, extra, "the stream:", choices[choice["index"]], "the reply:", choice)
            if choice["logprobs"]:
                lengths = {len(values) for values in choice["logprobs"].values()}
                expect(len(lengths) == 1, "log-probabilities of different lengths:", choice)
                expect("".join(choice["logprobs"]["tokens"]) == choice["text"], "the tokens are not the text:", choice)
                if extra.get("echo"):
                    expect(choice["logprobs"]["token_logprobs"][0] is None, "the first token has a probability:", choice)


@check("an error comes before the stream")
def _(server):
    for extra in [{"temperature": -1}, {"messages": []}, {"model": "x"}, {"n": 1000}, {"logit_bias": {"10000000": 1}}, {"stop": [""]}]:
        reply = server.post(CHAT, chat(stream=True, **{**extra}))
        is_error(reply, 404 if "model" in extra else 400)


@check("a connection survives 100 streams")
def _(server):
    with server.wire() as wire:
        for index in range(100):
            events(wire.send(message("POST", CHAT, chat(stream=True, max_tokens=2))).reply().body)
            if index % 10 == 0:
                is_error(wire.send(message("POST", CHAT, b"{")).reply(), 400)


@check("connections that are half closed or half opened")
def _(server):
    # A request whose end never comes, and one whose client says that nothing more follows.
    for data in [message("POST", CHAT, chat())[:-5], b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHo", b""]:
        with server.wire() as wire:
            wire.send(data)
            wire.socket.shutdown(socket.SHUT_WR)
            expect(wire.ends(), "half a request keeps the connection:", data[:40])
    idle = [server.wire() for _ in range(200)]
    alive(server)
    for wire in idle:
        wire.close()
