#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""One engine in a process of its own.

    Benchmarks/peers/worker.py ENGINE [--threads 2] --check
    Benchmarks/peers/worker.py ENGINE [--threads 2] [--dtype bf16] [--repeats 7] WORKLOAD...
    Benchmarks/peers/worker.py ENGINE [--threads 2] --serve

The first compares the engine's outputs with NumPy's in float64 and exits with 1 if they differ; the second times workloads and prints the
JSON that `martlet bench attention --compare` reads; the third does what compare.py asks: a JSON object a line in, one out.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time

import engines
import workload as workloads

# Part of a block of 16 or 32 tokens and many blocks, several requests, shared heads, a continued prompt: each layout must be right to pass.
CHECKS = ["6,2,64:1*70@0", "4,4,64:3*33@0", "4,1,256:40@0", "8,2,128:2*300@0", "6,2,64:2*20@50", "6,2,64:3*1@69", "8,1,128:2*1@127"]


def check(engine, threads):
    """Prints how far the engine is from the formula; True if all is within the tolerance of the type."""
    right = True
    for dtype in engine.DTYPES:
        for text in CHECKS:
            workload = workloads.parse(text)
            if not engine.supports(workload, dtype):
                continue
            run = engine.prepare(workload, dtype, threads)
            run()
            output, truth = run()(), workloads.expected(workload)
            error = float(abs(output - truth).max() / abs(truth).max())
            passes = error <= workloads.TOLERANCE[dtype]  # false for NaN
            right = right and passes
            print(f"{engine.NAME} {dtype} {text}: differs by {error:.1e} of the largest output{'' if passes else ', WRONG'}")
    return right


def timed(run):
    """Seconds of a run, after one that is not counted."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def result(engine, workload, dtype, samples):
    """A result as `martlet bench attention --compare` reads it."""
    seconds = statistics.median(samples)
    return {
        "engine": engine.NAME, "workload": workload.text, "dtype": dtype, "seconds": seconds, "samples": samples,
        "gflops": workload.flops / seconds / 1e9, "gb_per_s": workload.cache_bytes(dtype) / seconds / 1e9,
    }


def serve(engine, threads):
    """Answers {"prepare": workload, "dtype": …}, {"run": true} and {"drop": true} until the input ends."""
    # What a library prints goes to standard error; the answers have the pipe to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = None
    for line in sys.stdin:
        order = json.loads(line)
        answer = {}
        try:
            if "run" in order:
                answer["seconds"] = timed(run)
            else:
                run = None
                gc.collect()
            if "prepare" in order:
                workload = workloads.parse(order["prepare"])
                run = engine.prepare(workload, order["dtype"], threads)
                workloads.forget()
        except Exception as error:  # goes to the other side of the pipe, which says what it means
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), file=answers, flush=True)


def main():
    parser = argparse.ArgumentParser(description="Times another engine's attention.")
    parser.add_argument("engine", choices=engines.MODULES)
    parser.add_argument("workloads", nargs="*", type=workloads.parse)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default=None, help="cache type; default: the engine's first")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_intermixed_args()  # workloads may come before and after the options
    # Before an OpenMP is loaded.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    engine = engines.load(options.engine)
    version = engine.available()
    if not version:
        sys.exit(f"{options.engine} is not installed; Benchmarks/README.md says how")
    if options.check:
        sys.exit(0 if check(engine, options.threads) else 1)
    if options.serve:
        return serve(engine, options.threads)
    results = []
    dtype = options.dtype or engine.DTYPES[0]
    for workload in options.workloads:
        if not engine.supports(workload, dtype):
            sys.exit(f"{engine.NAME} has no {dtype} for {workload.text}")
        run = engine.prepare(workload, dtype, options.threads)
        run()
        samples = [timed(run) for _ in range(options.repeats)]
        results.append(result(engine, workload, dtype, samples))
        del run
    print(json.dumps({"engine": f"{engine.NAME} {version}", "machine": platform.machine(), "results": results}))


if __name__ == "__main__":
    main()
