#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""A crowd at `martlet serve`: many streams at once, some of whose readers are slow and some of whom leave.

    Scripts/check-server-load.py --martlet .build/release/martlet [--model smollm2-135m] [--streams 1000] [--tokens 8] [--rounds 2] [-- OPTIONS OF SERVE]

Every stream that is not left must be the answer that the same request has alone, whole; /health must answer meanwhile; memory must not grow from
one round to the next; and a SIGTERM in the midst of streams must let them end. Prints what it measured, and exits with 1 where a law is broken.
Needs nothing but Python.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--martlet", required=True)
parser.add_argument("--model", default="smollm2-135m")
parser.add_argument("--streams", type=int, default=1000)
parser.add_argument("--tokens", type=int, default=8)
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--kv-cache-memory", help="default: a quarter of what a full batch of the requests could use")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--health", type=float, default=0.05, help="seconds that the 99th percentile of /health may take")
parser.add_argument("--growth", type=float, default=16, help="MiB that memory may grow from one round to the next")
parser.add_argument("options", nargs="*", help="further options of martlet serve, behind --")
arguments = parser.parse_args()
random.seed(arguments.seed)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)

PROMPTS = [
    "Once upon a time", "The capital of France is", "def add(a, b):", "Water is made of", "One, two, three,", "The opposite of hot is", "My name is",
    "In the year 1969", "A recipe for bread:", "The sky is", "Il était une fois", "SELECT name FROM",
]
failures = []


def expect(holds, *what):
    if not holds:
        failures.append(" ".join(str(word) for word in what))
        if len(failures) <= 10:
            print("FAILED:", failures[-1][:500], flush=True)


def request(prompt, tokens, stream):
    body = json.dumps(
        {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": stream}).encode()
    return (
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body)


async def connect(port):
    # A small window on our side, so that a slow reader is one.
    return await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)


async def head(reader):
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    return int(text.split()[1]), text


async def read_stream(reader, slow=False, leave_after=None):
    """The text of a stream; nil where it is left. Anything but a whole stream is an error."""
    status, text = await head(reader)
    if status != 200:
        raise ValueError(f"status {status}: {text.splitlines()[0]}")
    data, events = b"", 0
    while True:
        size = int(await reader.readline(), 16)
        data += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where its size says")
        events += 1
        if size == 0:
            break
        if leave_after is not None and events >= leave_after:
            return None
        if slow:
            await asyncio.sleep(0.3)
    if not data.endswith(b"data: [DONE]\n\n"):
        raise ValueError(f"a stream ends with {data[-80:]!r}")
    chunks = [json.loads(event[6:]) for event in data.split(b"\n\n")[:-2] if not event.startswith(b":")]
    if any("error" in chunk for chunk in chunks):
        raise ValueError(f"an error in a stream: {chunks[-1]}")
    if len({chunk["id"] for chunk in chunks}) != 1:
        raise ValueError("events of several requests in one stream")
    finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    if finishes != ["length"]:
        raise ValueError(f"finish reasons {finishes}")
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])


async def alone(port, prompt, tokens):
    reader, writer = await connect(port)
    writer.write(request(prompt, tokens, stream=True))
    text = await read_stream(reader)
    writer.close()
    return text


async def one(port, prompt, tokens, expected, counts, delay):
    await asyncio.sleep(delay)
    kind = random.random()
    leaves, slow = kind < 0.10, 0.10 <= kind < 0.15
    writer = None
    try:
        reader, writer = await connect(port)
        writer.write(request(prompt, tokens, stream=True))
        if leaves and random.random() < 0.5:
            # Most are still waiting then.
            await asyncio.sleep(random.random() * 2)
            counts["left"] += 1
            return
        text = await read_stream(reader, slow, leave_after=random.randint(1, 3) if leaves else None)
        if text is None:
            counts["left"] += 1
            return
        counts["slow" if slow else "whole"] += 1
        expect(text == expected[prompt], f"{prompt!r} gave {text!r}; alone it gives {expected[prompt]!r}")
    except (OSError, EOFError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        counts["lost"] += 1
        expect(False, f"a stream was lost: {type(error).__name__} {error}")
    finally:
        if writer:
            if leaves:
                writer.transport.abort()
            else:
                writer.close()


async def watch_health(port, times, done):
    reader, writer = await connect(port)
    while not done.is_set():
        began = time.monotonic()
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        status, text = await head(reader)
        length = int(next(line.split(":")[1] for line in text.splitlines() if line.lower().startswith("content-length")))
        await reader.readexactly(length)
        times.append(time.monotonic() - began)
        expect(status == 200, f"/health is {status}")
        await asyncio.sleep(0.02)
    writer.close()


def memory(process):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024


def threads_and_files(process):
    return len(os.listdir(f"/proc/{process.pid}/task")), len(os.listdir(f"/proc/{process.pid}/fd"))


def start(*options):
    log = tempfile.NamedTemporaryFile(suffix=".log", delete=False).name
    process = subprocess.Popen(
        [arguments.martlet, "serve", arguments.model, "--port", "0", "--max-queue", str(arguments.streams + 100), *options], stdout=subprocess.PIPE,
        stderr=open(log, "w"), stdin=subprocess.DEVNULL)
    line = process.stdout.readline()
    if not line:
        sys.exit("the server did not start: " + open(log).read())
    return process, json.loads(line)["port"], log


async def ready(port):
    for _ in range(3000):
        reader, writer = await connect(port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        status, _ = await head(reader)
        writer.close()
        if status == 200:
            return
        await asyncio.sleep(0.1)
    sys.exit("the server is not ready")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def main():
    # 30 layers of 3 heads of 64 numbers, keys and values, in two bytes each: 23,040 bytes a token of SmolLM2 135M. Requests of this length take one
    # page of 32 tokens each.
    demand = arguments.batch_size * 32 * 23_040
    options = ["--batch-size", str(arguments.batch_size), "--context", "256", "--drain-timeout", "600", "--kv-cache-memory", arguments.kv_cache_memory or str(demand // 4), *arguments.options]
    process, port, log = start(*options)
    try:
        await ready(port)
        expected = {prompt: await alone(port, prompt, arguments.tokens) for prompt in PROMPTS}
        expect(len(set(expected.values())) > len(PROMPTS) // 2, "the prompts' answers are the same: nothing could be mixed up")
        sizes = [memory(process)]
        for round in range(arguments.rounds):
            counts, times, done = dict(whole=0, slow=0, left=0, lost=0), [], asyncio.Event()
            began = time.monotonic()
            health = asyncio.create_task(watch_health(port, times, done))
            before = os.times()
            await asyncio.gather(*[
                one(port, PROMPTS[index % len(PROMPTS)], arguments.tokens, expected, counts, random.random() * 0.5) for index in range(arguments.streams)])
            took, after = time.monotonic() - began, os.times()
            done.set()
            await health
            # What the kernel has not told yet of those who left.
            await asyncio.sleep(0.5)
            sizes.append(memory(process))
            answered = counts["whole"] + counts["slow"]
            threads, files = threads_and_files(process)
            print(
                f"round {round + 1}: {arguments.streams} streams in {took:.1f} s: {counts['whole']} whole, {counts['slow']} read slowly, {counts['left']} left, "
                f"{counts['lost']} lost; {answered * arguments.tokens / took:.0f} tokens/s; /health {len(times)} times, median "
                f"{percentile(times, 0.5) * 1000:.1f} ms, p99 {percentile(times, 0.99) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms; "
                f"{sizes[-1]:.0f} MiB, {threads} threads, {files} descriptors; the check took {after.user + after.system - before.user - before.system:.1f} s "
                "of a processor", flush=True)
            expect(percentile(times, 0.99) < arguments.health, f"/health's 99th percentile is {percentile(times, 0.99) * 1000:.1f} ms")
            expect(files < 60, f"{files} descriptors are left open")
            expect(await alone(port, PROMPTS[0], arguments.tokens) == expected[PROMPTS[0]], "the answer afterwards is another")
        print(f"memory: {', '.join(f'{size:.0f}' for size in sizes)} MiB, before and after each round")
        if arguments.rounds > 1:
            expect(sizes[-1] - sizes[1] < arguments.growth * (arguments.rounds - 1), f"memory grew by {sizes[-1] - sizes[1]:.0f} MiB since the first round")

        # SIGTERM in the midst of 100 streams, most of which wait: all end whole.
        readers = []
        for index in range(100):
            reader, writer = await connect(port)
            writer.write(request(PROMPTS[index % len(PROMPTS)], arguments.tokens, stream=True))
            readers.append((PROMPTS[index % len(PROMPTS)], reader, writer))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        results = await asyncio.gather(*[read_stream(reader) for _, reader, _ in readers], return_exceptions=True)
        ended = [result for result in results if isinstance(result, str)]
        for result in results:
            expect(isinstance(result, str), f"at the end: {type(result).__name__} {result}")
        for result, (prompt, _, _) in zip(results, readers):
            if isinstance(result, str):
                expect(result == expected[prompt], f"at the end {prompt!r} gave {result!r}")
        code = await asyncio.get_running_loop().run_in_executor(None, lambda: process.wait(600))
        print(f"SIGTERM: {len(ended)} of 100 streams ended whole, the process after {time.monotonic() - began:.1f} s with {code}")
        expect(code == 0, f"the server ended with {code}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        errors = [line for line in open(log) if " error " in line]
        expect(not errors, "the log has errors: " + "".join(errors[:3]))
        os.unlink(log)


asyncio.run(main())
print("failed" if failures else "passed", f"({len(failures)} failures)" if failures else "")
sys.exit(bool(failures))
