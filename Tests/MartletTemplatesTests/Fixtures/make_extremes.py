#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Records what jinja2 makes of the least and the greatest numbers of 64 bits in every place that takes one: extremes.json.

    pip install jinja2==3.1.6
    python3 make_extremes.py [TRANSFORMERS_WHEEL]

Each expression is evaluated in transformers' environment with all pairs of the numbers for N and M. What takes a second or a gigabyte is recorded
as the error "TooMuch".
"""

import json
import os
import pathlib
import resource
import signal
import sys

import jinja2

sys.dont_write_bytecode = True
from transformers_chat import VERSION, Transformers, outcome

NUMBERS = ["-9223372036854775808", "9223372036854775807", "-1", "0"]
EXPRESSIONS = [
    "'-1'.zfill(N)", "'a'.center(N)", "'a'.ljust(N)", "'a'.rjust(N)", "'a b'.split(none, N)", "'a b'.rsplit(none, N)", "'a-b'.split('-', N)",
    "'a-b'.rsplit('-', N)", "'abc'.find('b', N)", "'abc'.find('b', N, M)", "'abc'.count('b', N, M)", "'abc'.startswith('a', N, M)",
    "'abc'.replace('b', 'c', N)", "'a\\tb'.expandtabs(N)", "'abcdefgh'|truncate(N, leeway=M)", "'abcdefgh'|truncate(N, true, '')",
    "'a'|center(N)", "'a'|indent(N)", "'a'|replace('a', 'b', N)", "2.5|round(N)", "25|round(N)", "2.5|round(N, 'ceil')",
    "[1, 2]|batch(N)|list", "[1, 2]|batch(N, 0)|list", "[1, 2]|slice(N)|list", "[1, 2][N:M]", "[1, 2][N:M:N]", "[1, 2][::N]", "'abc'[N:M]",
    "'abc'[::N]", "'abc'[N]", "[1, 2][N]", "range(N)", "range(N, M)", "range(N, M, M)", "range(0, N, M)|list", "range(0, 9)[N:M]",
    "range(0, 9)[::N]", "range(0, 9)[N]", "N in range(0, -5, -1)", "N in range(0, 5)", "N + M", "N - M", "N * M", "N // M", "N % M", "N / M",
    "-N", "N|abs", "N == M", "N < M + 0.5", "'%d' % N", "'%*d' % (N, 1)", "'%.*f' % (N, 1)", "'{:N}'.format(1)", "'a' * N", "[1] * N",
    "N|int", "N|float", "[1, 2].index(2, N, M)", "[1]|tojson(indent=N)", "(1, 2)|sum(start=N)", "N ** 3", "3 ** N",
    "2.5 ** N", "N is divisibleby(M)", "N is odd", "N|string|length",
]


def limited(render):
    """What a rendering gives in a process of its own, as Python does not stop in the middle of one number."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        signal.alarm(1)
        try:
            result = outcome(render)
        except MemoryError:
            result = {"error": "MemoryError"}
        result.pop("message", None)
        if len(result.get("output", "")) < 1 << 16:
            os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        written = pipe.read()
    os.waitpid(child, 0)
    result = json.loads(written) if written else {}
    return {"error": "TooMuch"} if result.get("error", "MemoryError") == "MemoryError" and "output" not in result else result


def main():
    if jinja2.__version__ != "3.1.6":
        raise SystemExit(f"jinja2 is {jinja2.__version__}; these records are of 3.1.6: pip install jinja2==3.1.6")
    transformers = Transformers(sys.argv[1] if len(sys.argv) > 1 else None)
    cases = {}
    for expression in EXPRESSIONS:
        for n in NUMBERS:
            for m in NUMBERS:
                program = "{{ " + expression.replace("N", n).replace("M", m) + " }}"
                if program not in cases:
                    cases[program] = limited(lambda: transformers.compile(program).render())
    about = {"jinja2": jinja2.__version__, "transformers": VERSION, "python": sys.version.split()[0]}
    lines = [json.dumps({"program": program, **result}) for program, result in cases.items()]
    text = '{"about": ' + json.dumps(about) + ',\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    json.loads(text)
    (pathlib.Path(__file__).parent / "extremes.json").write_text(text, encoding="utf-8")
    print(f"{len(cases)} cases, {sum('error' in case for case in cases.values())} of them errors", file=sys.stderr)


if __name__ == "__main__":
    main()
