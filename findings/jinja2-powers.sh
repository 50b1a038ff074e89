#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# jinja2 3.1.6: powers are no Python expressions. `**` groups from the left (which the documentation says), and a sign before the base belongs to
# the base (which it does not say), so that both differ from Python; comparisons are chained as in Python.
#
# Seen, jinja2 and Python:
#   2 ** 3 ** 2    64   512
#   -2 ** 2         4    -4
#   2 ** -1       0.5   0.5
#   1 < 3 < 2   False False
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --only-binary :all: jinja2==3.1.6 markupsafe==3.0.3
venv/bin/python - <<'PYTHON'
import jinja2

environment = jinja2.Environment()
for expression, seen, python in [
    ("2 ** 3 ** 2", "64", 512),
    ("-2 ** 2", "4", -4),
    ("2 ** -1", "0.5", 0.5),
    ("1 < 3 < 2", "False", False),
]:
    output = environment.from_string("{{ " + expression + " }}").render()
    print(f"{expression:11} {output:>5} {eval(expression)!s:>5}")
    assert (output, eval(expression)) == (seen, python), f"{expression}: {output} where {seen} was seen"
PYTHON
