#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes what the fuzzer of templates begins with: the programs of the recorded points, and whole templates with a conversation.

    template_seeds.py FOLDER
"""

import json
import pathlib
import sys

fixtures = pathlib.Path(__file__).parent.parent / "MartletTemplatesTests" / "Fixtures"
folder = pathlib.Path(sys.argv[1])


def seed(name, program, variables):
    (folder / name).write_bytes(program.encode() + b"\0" + json.dumps(variables, ensure_ascii=False).encode())


points = json.loads((fixtures / "points.json").read_text(encoding="utf-8"))
for number, case in enumerate(points["cases"] + points["syntaxErrors"]):
    seed(f"point-{number}", case["program"], case.get("variables", {}))
conversations = json.loads((fixtures / "families.json").read_text(encoding="utf-8"))["conversations"]
for path in sorted((fixtures / "families").glob("*.jinja")):
    for name, conversation in conversations.items():
        variables = {"messages": conversation["messages"], "tools": conversation["tools"], "add_generation_prompt": True}
        program = path.read_text(encoding="utf-8")
        if len(program) + len(json.dumps(variables)) < 4000:
            seed(f"{path.stem}-{name}", program, variables)
