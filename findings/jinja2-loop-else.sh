#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# jinja2 3.1.6, with the loop controls that chat templates are rendered with (jinja2.ext.loopcontrols).
#
# The documentation says of `{% for %}…{% else %}`: "If no iteration took place because the sequence was empty or the filtering removed all
# the items from the sequence, you can render a default block by using else". In fact `else` runs where no iteration came to the end of its
# body: the mark that an iteration took place is set after the body, so that `{% break %}` or `{% continue %}` in every iteration skips it,
# whatever was written before. Python's own for/else differs again: it runs `else` unless the loop was left by break.
#
# Seen:
#   break in the first iteration:      1ELSE
#   break in the second:               12
#   continue in every iteration:       123ELSE
#   continue in all but one:           123
#   an empty sequence:                 ELSE
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --only-binary :all: jinja2==3.1.6 markupsafe==3.0.3
venv/bin/python - <<'PYTHON'
import jinja2

environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
for what, template, seen in [
    ("break in the first iteration", "{% for x in [1, 2, 3] %}{{ x }}{% break %}{% else %}ELSE{% endfor %}", "1ELSE"),
    ("break in the second", "{% for x in [1, 2, 3] %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% else %}ELSE{% endfor %}", "12"),
    ("continue in every iteration", "{% for x in [1, 2, 3] %}{{ x }}{% continue %}{% else %}ELSE{% endfor %}", "123ELSE"),
    ("continue in all but one", "{% for x in [1, 2, 3] %}{{ x }}{% if x != 2 %}{% continue %}{% endif %}{% else %}ELSE{% endfor %}", "123"),
    ("an empty sequence", "{% for x in [] %}{{ x }}{% else %}ELSE{% endfor %}", "ELSE"),
]:
    output = environment.from_string(template).render()
    print(f"{what + ':':34} {output}")
    assert output == seen, f"{what}: {output} where {seen} was seen"
PYTHON
