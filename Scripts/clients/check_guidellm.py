# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""guidellm: a benchmark of a few requests."""

import json
import os
import subprocess
import sys
import tempfile

from common import KEY, MODEL, URL, expect, law, main

folder = tempfile.mkdtemp()


@law
def _():
    """six requests, none of which fails"""
    data = os.path.join(folder, "data.jsonl")
    with open(data, "w") as file:
        for text in ["Name three colours.", "What is a swift?", "Count to five.", "Say hello.", "What is water?", "Name a city."]:
            file.write(json.dumps({"prompt": text, "output_tokens_count": 8}) + "\n")
    report = os.path.join(folder, "report.json")
    run = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "guidellm"), "run",
         "--backend", f"kind=openai_http,target={URL},model={MODEL},api_key={KEY},request_format=/v1/chat/completions", "--profile", "kind=synchronous",
         "--constraint", "kind=max_requests,count=6", "--data", f"kind=json_file,path={data}", "--output", f"kind=json,path={report}", "--disable-console"],
        capture_output=True, text=True, timeout=400)
    expect(run.returncode == 0, (run.stdout + run.stderr)[-1500:])
    totals = json.load(open(report))["benchmarks"][0]["metrics"]["request_totals"]
    expect(totals["successful"] == 6 and totals["errored"] == 0, totals)


main()
