#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""A model in another engine, in a process of its own.

    Benchmarks/peers/model_worker.py ENGINE MODEL.gguf [--threads 2] [--requests 32] [--tokens 4224]

Loads the model, says in how many seconds, and then does what models.py asks: a line {"run": "8x128+64"} in, a line {"seconds": …} out, as `martlet
bench model --turns` has it.
"""

import argparse
import json
import os
import random
import sys
import time

import model_engines
import model_workload


def main():
    parser = argparse.ArgumentParser(description="Times a model in another engine.")
    parser.add_argument("engine", choices=model_engines.MODULES)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=32, help="the most at once")
    parser.add_argument("--tokens", type=int, default=4224, help="the most of one request, prompt and answer")
    options = parser.parse_args()
    # What a library prints goes to standard error; the answers have the pipe to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    start = time.perf_counter()
    try:
        run = model_engines.load(options.engine).load(options.model, options.threads, (options.requests, options.tokens))
    except Exception as error:  # goes to the other side of the pipe, which says what it means
        return answer(error=f"{type(error).__name__}: {error}")
    answer(load_s=time.perf_counter() - start)
    numbers = random.Random(1)
    for line in sys.stdin:
        try:
            workload = model_workload.parse(json.loads(line)["run"])
            prompts = [workload.prompt(numbers) for _ in range(workload.requests)]
            start = time.perf_counter()
            results = run(prompts, workload.generated)
            seconds = time.perf_counter() - start
            if [len(result) for result in results] != [workload.generated] * workload.requests:
                raise RuntimeError(f"answers of {sorted(map(len, results))} tokens, where {workload.generated} were asked for")
            answer(seconds=seconds)
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
