#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Reads a server's /metrics as Prometheus's own tools do.

  Scripts/check-metrics.py http://127.0.0.1:8080/metrics

Needs prometheus-client; asks `promtool check metrics` too where there is one. Names that other servers chose (vllm:, llamacpp:) break
promtool's advice on names, which are no errors; any other word of it is one.
"""
import shutil
import subprocess
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def problems(text):
    names = set()
    for family in text_string_to_metric_families(text):
        if family.name in names:
            yield f"{family.name} stands twice"
        names.add(family.name)
        if not family.documentation or family.type == "unknown":
            yield f"{family.name} lacks its help or its type"
        series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        if len(series) != len(set(series)):
            yield f"{family.name} has a series twice"
        if family.type == "histogram":
            yield from histogram_problems(family)
    if not names:
        yield "there is nothing"
    if promtool := shutil.which("promtool"):
        result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
        lines = result.stderr.splitlines()
        yield from (line for line in lines if not line.startswith(("vllm:", "llamacpp:")))


def histogram_problems(family):
    """Buckets count up, and the last says what _count does."""
    series = {}
    for sample in family.samples:
        labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
        series.setdefault(labels, []).append(sample)
    for labels, samples in series.items():
        counts = [sample.value for sample in samples if sample.name.endswith("_bucket")]
        total = [sample.value for sample in samples if sample.name.endswith("_count")]
        if counts != sorted(counts) or counts[-1:] != total:
            yield f"{family.name}{dict(labels)}: buckets {counts}, count {total}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with urllib.request.urlopen(sys.argv[1]) as reply:
        type_ = reply.headers["Content-Type"]
        text = reply.read().decode()
    found = list(problems(text))
    if type_ != "text/plain; version=0.0.4; charset=utf-8":
        found.append(f"the type is {type_}")
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
