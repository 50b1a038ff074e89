# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""What the checks of a server share: HTTP over plain sockets, servers to start, and what an answer must look like."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

# A busy machine may be slow; this passes only where a check fails.
PATIENCE = 90
# How long what was cancelled may still stand in the way: a step, on a busy machine.
SOON = 20
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
checks = []
# What belongs to this run: the program, the model, a folder that is gone at its end, and the processes that were started.
run = SimpleNamespace(martlet=None, model=None, scratch=None, processes=[])


class Failure(Exception):
    pass


def expect(holds, *what):
    if not holds:
        raise Failure(" ".join(str(word) for word in what))


def check(name, own=False):
    """`own`: needs servers that the script starts."""

    def add(function):
        checks.append((name, own, function))
        return function

    return add


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
    log = tempfile.NamedTemporaryFile(dir=run.scratch, suffix=".log", delete=False).name
    place = [] if address else ["--port", "0"]
    process = subprocess.Popen(
        [run.martlet, "serve", model or run.model, *place, *options], stdout=subprocess.PIPE, stderr=open(log, "w"),
        stdin=subprocess.DEVNULL, cwd=run.scratch, env={**os.environ, **(environment or {})})
    run.processes.append(process)
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


def context(server):
    return server.ask("GET", "/v1/models").json["data"][0]["max_model_len"]


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


def finishes(wire):
    """Reads a stream to its end; whether it is whole."""
    data = b""
    try:
        while piece := wire.chunk():
            data += piece
    except (EOFError, OSError) as error:
        return f"cut off: {error} after {data[-60:]!r}"
    return events(data)
