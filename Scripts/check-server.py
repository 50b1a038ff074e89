#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Tries to break `martlet serve`: hostile bodies, broken HTTP, clients who go, signals. Every refusal must have the API's error form, nothing may
be a 500, and the process must live.

    Scripts/check-server.py --martlet .build/release/martlet [--model smollm2-135m]     starts servers of its own: all checks
    Scripts/check-server.py --url http://127.0.0.1:8080 [--pid N]                       a server that runs: the checks that need no own one
    … --only PATTERN                                                                    only the checks whose names match

Needs nothing but Python, and speaks HTTP over plain sockets: a client library would mend what is to be looked at. Prints one line for each check
that fails, and exits with 1 if there is any.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from urllib.parse import urlsplit

# In the order in which the checks are made: first what one server is asked, then what needs servers of its own.
from server import bodies, protocol, streams, leaving, admittance, embeddings, process, loading  # noqa: F401
from server.harness import Failure, Server, alive, checks, run, start

parser = argparse.ArgumentParser()
parser.add_argument("--martlet")
parser.add_argument("--model", default="smollm2-135m")
parser.add_argument("--url")
parser.add_argument("--pid", type=int)
parser.add_argument("--only", default="")
arguments = parser.parse_args()
if not arguments.martlet and not arguments.url:
    parser.error("one of --martlet and --url must be there")
run.martlet, run.model = (os.path.abspath(path) if path and os.sep in path else path for path in (arguments.martlet, arguments.model))
run.scratch = tempfile.mkdtemp()
failures = 0
began = time.monotonic()
ran = 0
try:
    if arguments.url:
        parts = urlsplit(arguments.url)
        main = Server((parts.hostname, parts.port or 80))
    else:
        # A short context: what runs to its end ends soon.
        main = start("--context", "512")
    for name, own, function in checks:
        if own and not arguments.martlet or not re.search(arguments.only, name):
            continue
        since = time.monotonic()
        ran += 1
        try:
            function(main)
            if not own:
                alive(main)
            print(f"{time.monotonic() - since:6.1f} s  {name}", flush=True)
        except Exception as error:
            failures += 1
            text = str(error) if isinstance(error, Failure) else traceback.format_exc()
            print(f"FAILED: {name}: {text[:3000]}", flush=True)
        if main.process and main.process.poll() is not None:
            print(f"FAILED: {name}: the server ended with {main.process.returncode}: {main.text()[-1500:]}", flush=True)
            failures += 1
            main = start("--context", "512")
    if main.process:
        if errors := [line for line in main.text().splitlines() if " error " in line]:
            failures += 1
            print("FAILED: the log has errors:\n" + "\n".join(errors[:10]))
        code = main.end()
        if code != 0:
            failures += 1
            print(f"FAILED: the server ended with {code}")
finally:
    for child in run.processes:
        if child.poll() is None:
            child.kill()
            child.wait()
    shutil.rmtree(run.scratch, ignore_errors=True)
print(f"{ran} checks of the server, {failures} failed, {time.monotonic() - began:.0f} s")
sys.exit(failures != 0 or ran == 0)
