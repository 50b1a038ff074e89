#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes Unicode's compatibility decompositions as Swift: CompatibilityForms+Table.swift.

    pip install tokenizers==0.23.3
    Scripts/make-compatibility-forms.py > Sources/MartletTokenizers/HuggingFace/CompatibilityForms+Table.swift

The mappings are those of Python's unicodedata, full and recursive, of every character whose NFKD is not its NFD. Characters that the tokenizers
package's own, older tables leave as they are are left out: the models' ids have been made with these.
"""
import unicodedata

from tokenizers import normalizers

WIDTH = 138


def forms() -> tuple[dict[int, list[int]], list[int]]:
    package, mapped, left_out = normalizers.NFKD(), {}, []
    for code in range(0x110000):
        text = "" if 0xD800 <= code < 0xE000 else chr(code)
        form = unicodedata.normalize("NFKD", text)
        if form == unicodedata.normalize("NFD", text):
            continue
        if package.normalize_str(text) == text:
            left_out.append(code)
            continue
        assert package.normalize_str(text) == form, hex(code)
        # Composed it is shorter, and composing or decomposing comes after it anyway.
        mapped[code] = [ord(c) for c in unicodedata.normalize("NFKC", text)]
    return mapped, left_out


def entries(mapped: dict[int, list[int]]) -> list[str]:
    """`A0=20 A8=20,308 …`: one without a source maps the next character, `21*5E` maps that many to characters in a row."""
    result, codes, at, expected = [], sorted(mapped), 0, None
    while at < len(codes):
        code, form, count = codes[at], mapped[codes[at]], 1
        while len(form) == 1 and at + count < len(codes) and codes[at + count] == code + count and mapped[code + count] == [form[0] + count]:
            count += 1
        source = "" if code == expected else f"{code:X}="
        result.append(source + ",".join(f"{c:X}" for c in form) + (f"*{count:X}" if count > 1 else ""))
        expected, at = code + count, at + count
    return result


def main() -> None:
    mapped, left_out = forms()
    lines, line = [], ""
    for entry in entries(mapped):
        if line and len(line) + 1 + len(entry) > WIDTH:
            lines.append(line)
            line = ""
        line += (" " if line else "") + entry
    lines.append(line)
    print(f"""// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Written by Scripts/make-compatibility-forms.py; change that.

extension CompatibilityForms {{
  /// {len(mapped)} characters of Unicode {unicodedata.unidata_version} and what each stands for, in hexadecimal: `A0=20` maps one; an entry without a
  /// character before `=` maps the one after the last, `21*5E` that many to characters in a row. Left out are {len(left_out)}, from U+{left_out[0]:04X} to
  /// U+{left_out[-1]:04X}, that the tokenizers package leaves as they are: its tables are those of Unicode 11.
  static let table = \"\"\"""")
    for line in lines:
        print("    " + line)
    print('    """\n}')


main()
