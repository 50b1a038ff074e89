# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Clients who go, or who stop reading."""

import os
import random
import socket
import time

from .harness import CHAT, ENDLESS, Failure, PATIENCE, SOON, TEXT, check, expect, is_idle, message, pressures, run, start, user


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
    path = os.path.join(run.scratch, "readers")
    for options, address in [([], None), (["--uds", path], path)]:
        server = start("--write-timeout", "3", "--batch-size", "4", *options, address=address)
        # Every token brings its alternatives: some hundred kilobytes a second, which the buffers do not hold for long.
        fields = dict(messages=user("Tell a story."), max_tokens=6000, temperature=0, ignore_eos=True, logprobs=True, top_logprobs=20)
        dead = server.stream(CHAT, fields, receive_buffer=4096)
        slow = server.stream(CHAT, fields, receive_buffer=16384)
        slow.socket.settimeout(PATIENCE)
        began = time.monotonic()
        # Three times as long as the dead one has, a little now and then.
        while time.monotonic() - began < 9 or pressures(server)["vllm:num_requests_running"] > 1:
            expect(slow.socket.recv(4096), "the slow reader's connection ended")
            time.sleep(0.05)
            expect(time.monotonic() - began < PATIENCE, "the dead reader's request goes on:", pressures(server))
        expect(pressures(server)["vllm:num_requests_running"] == 1, "a slow reader's request ended too:", pressures(server))
        expect(slow.socket.recv(2048), "the slow reader's connection ended")
        dead.socket.settimeout(10)
        # What the kernels hold may still come; then it ends.
        expect(dead.ends(), "the dead reader's connection is open")
        slow.close()
        is_idle(server, SOON)
        # Short answers fill no buffer of the server's: what the kernel holds counts too.
        if address is None:
            dead = server.stream(CHAT, dict(ENDLESS, messages=user("Tell a story."), max_tokens=4000), receive_buffer=4096)
            is_idle(server, PATIENCE)
            expect(dead.ends(), "the connection of a dead reader of little is open")
        # Who waits long for an answer has taken everything that there was.
        reply = server.post(TEXT, dict(ENDLESS, max_tokens=300))
        expect(reply.status == 200, "an answer that takes its time:", reply)
        expect(server.end() == 0, "it ended with", server.process.returncode, server.text()[-300:])
