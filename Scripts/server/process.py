# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The process: signals, ports, sockets, what cannot be served."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from .harness import CHAT, ENDLESS, PATIENCE, TEXT, alive, chat, check, events, expect, finishes, is_error, message, run, start, user


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
        ("no-such-model", [], "no-such-model"), ("/nowhere/m.gguf", [], "/nowhere/m.gguf"), (__file__, [], "process.py"),
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


@check("the chat template that was given, and its variables, are every conversation's", own=True)
def _(_server):
    template = os.path.join(run.scratch, "template.jinja")
    with open(template, "w") as file:
        file.write("{{ messages[-1].content }} {{ word }} {{ other }}")
    server = start("--chat-template", template, "--set", 'word="first"', "--set", "other=[1]", "--context", "512")
    spoken = server.post("/tokenize", {"prompt": "Hello. first [1]", "add_special_tokens": False}).json["tokens"]
    asked = {"messages": user("Hello."), "add_special_tokens": False}
    expect(server.post("/tokenize", asked).json["tokens"] == spoken, "the prompt is", server.post("/tokenize", asked))
    own = {"chat_template_kwargs": {"word": "first first first first"}}
    for path, body, name in [
        ("/v1/chat/completions/input_tokens", {"messages": user("Hello.")}, "input_tokens"),
        ("/v1/messages/count_tokens", {"messages": user("Hello.")}, "input_tokens"),
        ("/v1/responses/input_tokens", {"input": "Hello."}, "input_tokens"),
    ]:
        expect(server.post(path, body).json[name] == len(spoken), path, server.post(path, body))
        expect(server.post(path, {**body, **own}).json[name] == len(spoken) + 3, path, "with its own word:", server.post(path, {**body, **own}))
    reply = server.post(CHAT, chat(messages=user("Hello.")))
    expect(reply.json["usage"]["prompt_tokens"] == len(spoken), "a chat's prompt:", reply)
    expect(server.end() == 0, "it ended with", server.process.returncode)


@check("a Unix socket", own=True)
def _(_server):
    path = os.path.join(run.scratch, "s")
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
