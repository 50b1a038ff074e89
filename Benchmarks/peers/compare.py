#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Martlet's attention and other engines', in turns on one machine.

    python3 Benchmarks/peers/compare.py --martlet .build/release/martlet [--engines openvino torch] [--workloads 32,8,128:2048@0]
                                        [--dtype bf16] [--rounds 5] [--threads 2] [--json FILE]

A round runs Martlet once and then every other engine once, each after a run that is not counted and never two at a time, so that a machine
whose clock or neighbours change is as unfair to one as to the other; the run that is not counted brings an engine's data back into the
processor's caches after the turn of another. Prints medians and how many times longer than Martlet each takes.
The JSON has the other engines' results, for `martlet bench attention --compare`, and Martlet's of the same rounds.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import engines
import worker
import workload as workloads

PROMPTS = ["32,8,128:512@0", "32,8,128:2048@0", "32,8,128:4096@0", "9,3,64:2048@0", "4,1,256:2048@0"]
GENERATIONS = [f"32,8,128:{batch}*1@{cached - 1}" for batch in (1, 8, 32) for cached in (1024, 4096, 16384)]


class Peer:
    """Another engine in a process of its own, which sleeps on a pipe between its runs."""

    def __init__(self, name, threads):
        self.engine = engines.load(name)
        program = pathlib.Path(__file__).with_name("worker.py")
        command = [sys.executable, program, name, "--threads", str(threads), "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **order):
        """The worker's answer; raises RuntimeError if there is none, or if it is an error."""
        try:
            print(json.dumps(order), file=self.process.stdin, flush=True)
        except OSError:
            pass  # it has ended: there is no answer either
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def dtype(self, dtype):
        """The cache type to time beside Martlet's: the same, or float32 where the engine has no other."""
        return dtype if dtype in self.engine.DTYPES else "f32"

    def close(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass  # it has ended before
        self.process.wait()


def run_martlet(options, text, dtype):
    """One counted run: the result and the machine's name."""
    command = [options.martlet, "bench", "attention", text, "--kv-cache-dtype", dtype, "--repeats", "1", "--threads", str(options.threads),
               "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return report["results"][0], report["machine"]


def compare(options, peers, text, dtype):
    """The rounds of one workload: Martlet's result, the peers' results, the machine's name."""
    workload = workloads.parse(text)
    ready = [(peer, peer.dtype(dtype), []) for peer in peers if peer.engine.supports(workload, peer.dtype(dtype))]

    def ask(entry, **order):
        """The answer; an engine that fails is named and has no more turns at this workload."""
        try:
            return entry[0].ask(**order)
        except RuntimeError as error:
            print(f"{entry[0].engine.NAME} is left out of {text}: {error}", file=sys.stderr)
            ready.remove(entry)

    for entry in list(ready):
        ask(entry, prepare=text, dtype=entry[1])
    ours = []
    for _ in range(options.rounds):
        result, machine = run_martlet(options, text, dtype)
        ours.append(result)
        for entry in list(ready):
            if answer := ask(entry, run=True):
                entry[2].append(answer["seconds"])
    for entry in list(ready):
        ask(entry, drop=True)
    samples = [result["seconds"] for result in ours]
    mine = worker.result(type("Martlet", (), {"NAME": f"martlet {ours[0]['engine']}"}), workload, dtype, samples)
    theirs = [worker.result(peer.engine, workload, kind, samples) for peer, kind, samples in ready]
    return mine, theirs, machine


def rows(mine, theirs):
    """The table's lines of one workload."""
    for result in [mine] + theirs:
        ratio = "" if result is mine else f"{result['seconds'] / mine['seconds']:.2f} x"
        rounds = sorted(b / a for a, b in zip(mine["samples"], result["samples"]))
        spread = "" if result is mine else f"{rounds[0]:.2f}–{rounds[-1]:.2f}"
        yield (f"| {result['workload']} | {result['engine']} | {result['dtype']} | {result['seconds'] * 1e3:.3f} | {result['gflops']:.0f} "
               f"| {result['gb_per_s']:.1f} | {ratio} | {spread} |")


def parse_options():
    parser = argparse.ArgumentParser(description="Times Martlet's attention beside other engines', in turns.")
    parser.add_argument("--martlet", required=True, help="the release binary")
    parser.add_argument("--engines", nargs="+", choices=engines.MODULES, help="default: those that are installed")
    parser.add_argument("--workloads", nargs="+", default=PROMPTS + GENERATIONS)
    parser.add_argument("--dtype", nargs="+", choices=list(workloads.BYTES), default=["bf16"], help="cache types of Martlet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the results to this file")
    options = parser.parse_args()
    for text in options.workloads:
        try:
            workloads.parse(text)
        except ValueError as error:
            parser.error(str(error))
    return options


def main():
    options = parse_options()
    names = options.engines or [name for name in engines.MODULES if engines.load(name).available()]
    missing = [name for name in names if not engines.load(name).available()]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; Benchmarks/README.md says how")
    peers = [Peer(name, options.threads) for name in names]
    versions = ", ".join(f"{peer.engine.NAME} {peer.engine.available()}" for peer in peers)
    load = os.getloadavg()[0]
    print(f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, {platform.system()} {platform.machine()}, "
          f"{options.threads} threads, {options.rounds} rounds; load at the start {load:.1f}; {versions}\n")
    if load > 1:
        print("The machine is busy: these numbers say little.\n")
    print("| workload | engine | type | ms | GFLOP/s | GB/s | time / Martlet's | in single rounds |\n|---|---|---|---|---|---|---|---|")
    results, machine = [], ""
    for text in options.workloads:
        for dtype in options.dtype:
            mine, theirs, machine = compare(options, peers, text, dtype)
            results += [mine] + theirs
            print("\n".join(rows(mine, theirs)), flush=True)
            if options.json:
                report = {"engine": versions, "machine": machine, "results": results}
                pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{machine}")
    for peer in peers:
        peer.close()


if __name__ == "__main__":
    main()
