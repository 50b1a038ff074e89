# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Who may ask: keys, origins, hosts, a full queue."""

import time

from .harness import CHAT, ENDLESS, PATIENCE, SOON, TEXT, chat, check, expect, is_error, is_idle, message, start


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
