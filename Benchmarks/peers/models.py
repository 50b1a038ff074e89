#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Whole models in Martlet and in other engines, in turns on one machine, from the same GGUF files.

    python3 Benchmarks/peers/models.py --martlet .build/release/martlet --models MODEL.gguf… [--engines openvino llamacpp onnxruntime]
                                       [--workloads 1x512+1 1x16+128 8x128+128 32x128+128] [--rounds 3] [--threads 2] [--json FILE]

`--martlet` may be given again, as NAME=PATH, to compare two builds; times are told as multiples of the first one's. An engine may be given
again with an environment of its own, as NAME=ENGINE,VARIABLE=VALUE: openvino-avx512=openvino,ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16.

An engine that cannot read the file, or whose own model of it was not made (make_onnx_model.py), is left out with its reason.

Every engine is a process that has loaded the model and sleeps on a pipe until it is its turn; never do two run at once. A workload is 8x128+64: 8
requests that come at once, with random prompts of 128 tokens and answers of 64 tokens, whatever end tokens are among them. Its time is from the
submission to the last token. Each engine runs it once without being counted; then a round runs each engine once. Prints medians, and ratios with the
least and the greatest of a single round.
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

import model_engines
import model_workload

WORKLOADS = ["1x512+1", "1x16+128", "8x128+128", "32x128+128"]


class Engine:
    """A model in an engine, in a process of its own that waits for its turns."""

    def __init__(self, name, command, environment):
        self.name = name
        self.samples = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        try:
            self.load_seconds = self._answer()["load_s"]
        except RuntimeError:
            self.close()
            raise

    def _answer(self):
        """Raises RuntimeError if there is none, or if it is an error."""
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def run(self, text):
        """Seconds of a workload."""
        try:
            print(json.dumps({"run": text}), file=self.process.stdin, flush=True)
        except OSError:
            pass  # it has ended: there is no answer either
        return self._answer()["seconds"]

    def peak_bytes(self):
        """The most that the process had in memory; None where the system does not say."""
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), None)

    def close(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass  # it has ended before
        self.process.wait()


def start(options, model, workloads):
    """The engines that can read the model, Martlet's builds first."""
    requests = max(workload.requests for workload in workloads)
    tokens = max(workload.prompted + workload.generated for workload in workloads)
    wanted = []
    for name, path in options.martlet:
        # An engine's limits: the requests, and a request as long as the longest.
        wanted.append((name, [
            path, "bench", "model", "--turns", "--model", model, "--threads", str(options.threads), "--prompts", "none", "--depths", "none",
            "--concurrency", str(requests), "--tokens-at-once", str(-(-tokens // 2))], {}))
    worker = str(pathlib.Path(__file__).with_name("model_worker.py"))
    for name, module, environment in options.engines:
        wanted.append((name, [
            sys.executable, worker, module, model, "--threads", str(options.threads), "--requests", str(requests), "--tokens",
            str(tokens)], {"OMP_NUM_THREADS": str(options.threads), **environment}))
    running = []
    for name, command, environment in wanted:
        try:
            running.append(Engine(name, command, environment))
        except RuntimeError as error:
            print(f"{name} is left out of {pathlib.Path(model).name}: {error}", file=sys.stderr)
    return running


def measure(options, running, model, workload):
    """The rounds of one workload: a result for each engine that did not fail."""
    ready = list(running)
    for engine in ready:
        engine.samples = []
    for count in range(options.rounds + 1):
        for engine in list(ready):
            try:
                seconds = engine.run(workload.text)
            except RuntimeError as error:
                print(f"{engine.name} is left out of {workload.text}: {error}", file=sys.stderr)
                ready.remove(engine)
                continue
            if count:
                engine.samples.append(seconds)
    results = []
    for engine in ready:
        seconds = statistics.median(engine.samples)
        results.append({
            "model": pathlib.Path(model).name, "workload": workload.text, "engine": engine.name, "seconds": seconds,
            "tokens_per_s": workload.tokens / seconds, "samples": engine.samples,
        })
    return results


def rows(results):
    """The table's lines of one workload."""
    first = results[0]
    for result in results:
        ratios = sorted(b / a for a, b in zip(first["samples"], result["samples"]))
        ratio, spread = f"{result['seconds'] / first['seconds']:.2f} x", f"{ratios[0]:.2f}–{ratios[-1]:.2f}"
        if result is first:
            ratio = spread = ""
        yield (f"| {result['model']} | {result['workload']} | {result['engine']} | {result['seconds'] * 1e3:.1f} "
               f"| {result['tokens_per_s']:.1f} | {ratio} | {spread} |")


def build(text):
    """NAME=PATH, or a path."""
    name, mark, path = text.partition("=")
    return (name, path) if mark else ("martlet", text)


def engine(text):
    """ENGINE, or NAME=ENGINE,VARIABLE=VALUE…"""
    name, mark, rest = text.partition("=")
    module, *settings = rest.split(",") if mark else [text]
    if module not in model_engines.MODULES:
        raise argparse.ArgumentTypeError(f"{module} is no engine (engines: {', '.join(model_engines.MODULES)})")
    if any("=" not in setting for setting in settings):
        raise argparse.ArgumentTypeError(f"{text}: what follows the engine must be VARIABLE=VALUE")
    return name, module, dict(setting.split("=", 1) for setting in settings)


def parse_options():
    parser = argparse.ArgumentParser(description="Times whole models in Martlet and in other engines, in turns.")
    parser.add_argument("--martlet", required=True, action="append", type=build, help="the release binary, or NAME=PATH; may be given again")
    parser.add_argument("--models", required=True, nargs="+", help="GGUF files")
    parser.add_argument("--engines", nargs="*", type=engine, help="default: those that are installed")
    parser.add_argument("--workloads", nargs="+", type=model_workload.parse, default=[model_workload.parse(text) for text in WORKLOADS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the results to this file")
    options = parser.parse_args()
    if options.engines is None:
        options.engines = [engine(name) for name in model_engines.MODULES if model_engines.load(name).available()]
    missing = sorted({module for _, module, _ in options.engines if not model_engines.load(module).available()})
    if missing:
        parser.error(f"not installed: {', '.join(missing)}; Benchmarks/README.md says how")
    names = [name for name, *_ in options.martlet + options.engines]
    if len(set(names)) < len(names):
        parser.error(f"two engines of one name: {', '.join(names)}; give one as NAME=…")
    return options


def main():
    options = parse_options()
    versions = ", ".join(
        f"{name} is {model_engines.load(module).NAME} {model_engines.load(module).available()}"
        + "".join(f" with {variable}={value}" for variable, value in environment.items()) for name, module, environment in options.engines)
    load = os.getloadavg()[0]
    print(f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, {platform.system()} {platform.machine()}, "
          f"{options.threads} threads, {options.rounds} rounds; load at the start {load:.1f}; {versions or 'no other engine'}\n")
    if load > 1:
        print("The machine is busy: these numbers say little.\n")
    print("| model | workload | engine | ms | tokens/s | time / the first's | in single rounds |\n|---|---|---|---|---|---|---|")
    results, loads = [], []
    for model in options.models:
        running = start(options, model, options.workloads)
        try:
            for workload in options.workloads:
                own = measure(options, running, model, workload)
                if own:
                    print("\n".join(rows(own)), flush=True)
                results += own
            loads += [{"model": pathlib.Path(model).name, "engine": engine.name, "load_s": engine.load_seconds,
                       "peak_resident_bytes": engine.peak_bytes()} for engine in running]
        finally:
            for engine in running:
                engine.close()
        if options.json:
            report = {"engines": versions, "threads": options.threads, "load": load, "loading": loads, "results": results}
            pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    print("\n| model | engine | loaded in, s | most memory, MB |\n|---|---|---|---|")
    for each in loads:
        memory = f"{each['peak_resident_bytes'] / 1e6:.0f}" if each["peak_resident_bytes"] else "–"
        print(f"| {each['model']} | {each['engine']} | {each['load_s']:.2f} | {memory} |")


if __name__ == "__main__":
    main()
