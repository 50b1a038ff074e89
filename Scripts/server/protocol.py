# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""HTTP: packets, pipelines, methods and paths, what is no HTTP."""

import json
import time

from .harness import CHAT, TEXT, chat, check, events, expect, is_error, message


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
