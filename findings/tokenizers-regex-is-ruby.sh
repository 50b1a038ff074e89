#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# tokenizers 0.23.3: the patterns of a tokenizer.json (`Split`, `Replace`) are read in Oniguruma's Ruby syntax. The same text means
# something else in Python's regex package, for which such patterns are published too, and no error tells so:
#
#   pattern        text        tokenizers               Python's regex
#   \p{N}{1,3}+    1234567     1234567                  123 456 7       `{1,3}+` is a repeated repeat, not a possessive one
#   \s+$           "a  \nb "   both runs of spaces      the last only   `$` holds before every line feed
#   ^a             "a\na"      both                     the first only  `^` holds after every line feed
#   \h             "f "        f                        the space       a hexadecimal digit, not horizontal space
#
# So a pattern with `\p{N}{1,3}+`, as tiktoken's cl100k_base has it, puts all digits of a number in one word.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --only-binary :all: tokenizers==0.23.3 regex==2026.4.4
venv/bin/python - <<'PYTHON'
import regex
from tokenizers import Regex, pre_tokenizers

for pattern, text, seen, other in [
    (r"\p{N}{1,3}+", "1234567", ["1234567"], ["123", "456", "7"]),
    (r"\s+$", "a  \nb ", ["  ", " "], [" "]),
    (r"^a", "a\na", ["a", "a"], ["a"]),
    (r"\h", "f ", ["f"], [" "]),
]:
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = [piece for piece, _ in split.pre_tokenize_str(text)]
    python = regex.findall(pattern, text)
    print(f"{pattern:12} {text!r:12} {found!s:16} {python}")
    assert found == seen, f"{pattern}: {found} where {seen} was seen"
    assert python == other, f"{pattern}: {python} where {other} was seen"
PYTHON
