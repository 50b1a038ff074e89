#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Measures forms of answers on MaskBench: correctness and speed of Martlet, and of llguidance beside it.

    python3 compare.py FOLDER MODEL.gguf [--half odd|even|all] [--every N] [--llguidance] [--no-masks] [--report FILE]
    python3 compare.py --suite FOLDER MODEL.gguf

FOLDER holds MaskBench's files (maskbench/data of github.com/guidance-ai/jsonschemabench), MODEL.gguf is where the vocabulary comes from. With
--suite, FOLDER is tests/draft2020-12 or the like of the JSON-Schema-Test-Suite. README.md tells what the columns mean.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).parent / ".build/release/grammar-bench"


def is_odd(path):
    return int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % 2 == 1


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def run_martlet(binary, model, files, flags):
    process = subprocess.run(
        [binary, model, *flags], input="\n".join(map(str, files)) + "\n", stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in process.stdout.splitlines()]


def run_llguidance(binary, model, files):
    """The same with llguidance: the same vocabulary, and a text in the same tokens."""
    import llguidance
    import llguidance.numpy

    vocabulary = json.loads(subprocess.run([binary, model, "--vocabulary"], stdout=subprocess.PIPE, text=True, check=True).stdout)
    tokens = [bytes.fromhex(token) if token is not None else b"\xff[special]" for token in vocabulary["tokens"]]
    numbers = {token: number for number, token in reversed(list(enumerate(tokens)))}
    longest = max(map(len, tokens))

    class Tokenizer:
        eos_token_id = vocabulary["end"][0]
        bos_token_id = None
        special_token_ids = [number for number, token in enumerate(vocabulary["tokens"]) if token is None]

        def __init__(self):
            self.tokens = tokens

        def __call__(self, text):
            data = text.encode() if isinstance(text, str) else text
            result, start = [], 0
            while start < len(data):
                end = next(e for e in range(min(len(data), start + longest), start, -1) if data[start:e] in numbers)
                result.append(numbers[data[start:end]])
                start = end
            return result

    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Tokenizer()), n_vocab=len(tokens))
    mask = llguidance.numpy.allocate_token_bitmask(1, tokenizer.vocab_size)
    results = []
    for path in files:
        file = json.loads(path.read_text())
        began = time.perf_counter()
        matcher = llguidance.LLMatcher(tokenizer, json.dumps({"grammars": [{"json_schema": file["schema"]}]}))
        entry = {"file": str(path), "compile_us": (time.perf_counter() - began) * 1e6, "error": matcher.get_error() or None, "tests": []}
        for test in file["tests"] if not entry["error"] else []:
            state, times, accepted = matcher.deep_copy(), [], True
            for token in tokenizer.tokenize_str(json.dumps(test["data"], ensure_ascii=False)):
                began = time.perf_counter()
                llguidance.numpy.fill_next_token_bitmask(state, mask, 0)
                times.append((time.perf_counter() - began) * 1e7)
                if not mask[0, token // 32] >> (token % 32) & 1 or not state.consume_token(token):
                    accepted = False
                    break
            entry["tests"].append({
                "valid": test["valid"], "accepted": accepted and state.is_accepting(), "error": None, "tenths_us": times})
        results.append(entry)
    return results


def summarize(name, results):
    refused = [entry for entry in results if entry["error"]]
    tests = [(entry, test) for entry in results for test in entry.get("tests", [])]
    valid = [test for _, test in tests if test["valid"]]
    masks = [value / 10 for _, test in tests for value in test["tenths_us"]]
    first = [entry["tests"][0]["tenths_us"][0] / 10 for entry in results if entry.get("tests") and entry["tests"][0]["tenths_us"]]
    compiled = [entry["compile_us"] for entry in results if not entry["error"]]
    wrong_accepts = [entry["file"] for entry, test in tests if test["accepted"] and not test["valid"]]
    wrong_rejects = [entry["file"] for entry, test in tests if test["valid"] and not test["accepted"]]
    faults = [(entry["file"], test["error"]) for entry, test in tests if test["error"]]
    print(f"{name}: {len(results)} schemas, {len(refused)} refused ({100 * len(refused) / len(results):.2f} %)")
    print(f"  {len(valid)} valid instances, {len(wrong_rejects)} rejected ({100 * len(wrong_rejects) / max(1, len(valid)):.3f} %)")
    print(f"  {len(tests) - len(valid)} others, {len(wrong_accepts)} accepted; {len(faults)} faults {faults[:3]}")
    print("  compiling: " + ", ".join(f"p{share:g} {quantile(compiled, share / 100):.0f} µs" for share in (50, 90, 99, 100)))
    if masks:
        print(f"  {len(masks)} masks: mean {sum(masks) / len(masks):.1f} µs, "
              + ", ".join(f"p{share:g} {quantile(masks, share / 100):.1f} µs" for share in (50, 90, 99, 99.9, 100)))
        print("  first masks: " + ", ".join(f"p{share:g} {quantile(first, share / 100):.0f} µs" for share in (50, 99, 100)))
    reasons = collections.Counter(re.sub(r"#\S*/", "", re.sub(r'"[^"]*"', "…", entry["error"]))[:100] for entry in refused)
    for reason, count in reasons.most_common(12):
        print(f"    refused {count}: {reason}")
    return {"wrong_accepts": wrong_accepts, "wrong_rejects": wrong_rejects, "refused": {entry["file"]: entry["error"] for entry in refused}}


def suite_files(folder, into):
    """One file in MaskBench's form for each schema of the JSON-Schema-Test-Suite."""
    for source in sorted(folder.glob("*.json")):
        for index, case in enumerate(json.loads(source.read_text())):
            if any(isinstance(test["data"], float) and test["data"] != test["data"] for test in case["tests"]):
                continue
            path = into / f"{source.stem}---{index}.json"
            path.write_text(json.dumps(case, ensure_ascii=False))
            yield path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("model")
    parser.add_argument("--half", choices=["odd", "even", "all"], default="all", help="of the files, by the SHA-256 of their names")
    parser.add_argument("--every", type=int, default=1, help="take each Nth file")
    parser.add_argument("--llguidance", action="store_true")
    parser.add_argument("--no-masks", action="store_true")
    parser.add_argument("--suite", action="store_true")
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--binary", default=str(BENCH))
    arguments = parser.parse_args()
    flags = ["--annotate-formats"] + (["--no-masks"] if arguments.no_masks or arguments.suite else [])
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.suite:
            files = list(suite_files(arguments.folder, pathlib.Path(temporary)))
            flags += ["--compact", "--zero-fractions"]
        else:
            files = sorted(arguments.folder.glob("*.json"))
            if arguments.half != "all":
                files = [path for path in files if is_odd(path) == (arguments.half == "odd")]
        files = files[:: arguments.every]
        results = run_martlet(arguments.binary, arguments.model, files, flags)
        report = {"martlet": summarize("Martlet", results)}
        if arguments.suite:
            for name, entries in sorted(group(results).items()):
                refused = sum(1 for entry in entries if entry["error"])
                if refused:
                    print(f"  {name}: {refused} of {len(entries)} schemas refused")
        if arguments.llguidance:
            report["llguidance"] = summarize("llguidance", run_llguidance(arguments.binary, arguments.model, files))
    if arguments.report:
        arguments.report.write_text(json.dumps(report, indent=1))


def group(results):
    groups = collections.defaultdict(list)
    for entry in results:
        groups[pathlib.Path(entry["file"]).name.split("---")[0]].append(entry)
    return groups


if __name__ == "__main__":
    sys.exit(main())
