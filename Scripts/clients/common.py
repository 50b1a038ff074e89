# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""What the scripts of the clients share. Each is `SCRIPT URL MODEL KEY`: the server's address without /v1, a name of its model that has a slash in
it, and a key that it wants. A script prints one line for each law and ends with 1 where one does not hold; with 77 where all that it
has to look at is not there."""

import sys
import traceback
import urllib.error
import urllib.request

URL, MODEL, KEY = sys.argv[1:4]
BASE = URL + "/v1"
laws = []


class Skip(Exception):
    pass


def law(function):
    laws.append(function)
    return function


def expect(holds, *what):
    if not holds:
        raise AssertionError(" ".join(str(word) for word in what))


def has(path):
    """Whether the server has a route: one that it lacks is a 404 with the code unknown_url."""
    request = urllib.request.Request(URL + path, b"{}", {"Content-Type": "application/json", "Authorization": "Bearer " + KEY})
    try:
        urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        return b"unknown_url" not in error.read()
    return True


def main():
    failed = skipped = 0
    for function in laws:
        name = function.__doc__
        try:
            function()
            print("    holds:", name, flush=True)
        except Skip as reason:
            skipped += 1
            print("    SKIPPED:", name + ":", reason, flush=True)
        except Exception:
            failed += 1
            print("    FAILED:", name + ":", traceback.format_exc()[-2500:], flush=True)
    sys.exit(1 if failed else 77 if skipped == len(laws) else 0)
