# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""A headless Chromium, driven through chromedriver with nothing but Python: the few commands of the WebDriver protocol that checks of the page need.

Debian has both: apt-get install chromium chromium-driver.
"""

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, ESCAPE, TAB, SHIFT, RIGHT, DOWN = "\ue007", "\ue00c", "\ue004", "\ue008", "\ue014", "\ue015"


class BrowserError(Exception):
    pass


class Browser:
    """One window. Use it in a `with` statement: the browser ends with it."""

    def __init__(self):
        driver = shutil.which("chromedriver")
        binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not driver or not binary:
            raise BrowserError("chromium and chromedriver are not on the PATH: apt-get install chromium chromium-driver")
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                break
        else:
            raise BrowserError("chromedriver does not start")
        self.address = f"http://127.0.0.1:{found.group(1)}/session"
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--window-size=1440,900",
            "--user-data-dir=" + self.folder.name,
        ]
        capabilities = {
            "goog:chromeOptions": {"binary": binary, "args": arguments, "prefs": {"download.default_directory": self.folder.name}},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self.address += "/" + self.call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        except (BrowserError, OSError):
            pass
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()
        try:
            self.folder.cleanup()
        except OSError:
            pass  # the browser may still be writing its last

    def call(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + path, data=data, method=method, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise BrowserError(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def reload(self):
        self.call("POST", "/refresh")

    def run(self, script, *arguments):
        """What the script returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def cdp(self, command, **parameters):
        """A command of Chromium's own protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def keys(self, *keys, held=None):
        """Presses keys, or types text, into whatever has the focus."""
        actions = [{"type": "keyDown", "value": held}] if held else []
        for character in "".join(keys):
            actions += [{"type": "keyDown", "value": character}, {"type": "keyUp", "value": character}]
        if held:
            actions.append({"type": "keyUp", "value": held})
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def find(self, selector):
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.call("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector, text):
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def point(self, selector, x=None, y=None):
        """Moves the mouse over an element: to its middle, or so far from its upper left corner."""
        left, top, width, height = self.run(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect(); return [box.left, box.top, box.width, box.height]", selector
        )
        to = {"x": int(left + (width / 2 if x is None else x)), "y": int(top + (height / 2 if y is None else y))}
        self.call(
            "POST",
            "/actions",
            {
                "actions": [
                    {
                        "type": "pointer",
                        "id": "mouse",
                        "parameters": {"pointerType": "mouse"},
                        "actions": [{"type": "pointerMove", "duration": 0, **to}],
                    }
                ]
            },
        )

    def text(self, selector):
        """What a reader sees there; all of the elements, a line each."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText).join('\\n')", selector)

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def until(self, script, *arguments, patience=30):
        """Waits until the script returns something true, and returns it; None where it does not in time."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if value := self.run(script, *arguments):
                return value
            time.sleep(0.05)
        return None

    def size(self, width, height, dark=False, scale=1):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def log(self, kind):
        """What was logged since the last call: "browser", or "performance" as events of Chromium's protocol."""
        entries = self.call("POST", "/se/log", {"type": kind})
        return [json.loads(entry["message"])["message"] for entry in entries] if kind == "performance" else entries
