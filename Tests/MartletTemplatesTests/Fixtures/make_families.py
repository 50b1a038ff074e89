#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes families.json: what transformers 5.24.0 makes of conversations with the templates of families/.

    pip install jinja2==3.1.6
    python3 make_families.py [WHEEL]

The templates are the project's own, each in the manner of a family of published ones. Every template is rendered with the conversations of
conversations.py, with and without an opening for the answer, and with enable_thinking true, false and not set. What does not change by
enable_thinking is held once ("thinking" is then "any"). Special tokens are <s> and </s>.
"""

import json
import pathlib
import sys

import jinja2

from conversations import EVERYDAY, FURTHER
from transformers_chat import CLOCK, VERSION, Transformers, outcome

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
FOLDER = pathlib.Path(__file__).resolve().parent
CONVERSATIONS = {**EVERYDAY, **FURTHER}


def main():
    if jinja2.__version__ != "3.1.6":
        raise SystemExit(f"jinja2 is {jinja2.__version__}; these records are of 3.1.6: pip install jinja2==3.1.6")
    transformers = Transformers(sys.argv[1] if len(sys.argv) > 1 else None)
    lines, never, counts = [], [], {"output": 0, "error": 0}
    for path in sorted((FOLDER / "families").glob("*.jinja")):
        source, rendered = path.read_text(encoding="utf-8"), 0

        def render(messages, tools, documents, **options):
            return outcome(lambda: transformers.apply(source, messages, tools=tools, documents=documents, special_tokens=SPECIAL, **options))

        def record(case, result):
            counts["error" if "error" in result else "output"] += 1
            lines.append(json.dumps({"template": path.name, **case, **result}, ensure_ascii=False))

        for name, (_, messages, tools, documents) in CONVERSATIONS.items():
            for prompt in (True, False):
                results = [
                    (thinking, render(messages, tools, documents, add_generation_prompt=prompt, **({} if thinking is None else {"enable_thinking": thinking})))
                    for thinking in (None, True, False)]
                rendered += sum("output" in result for _, result in results)
                if all(result == results[0][1] for _, result in results):
                    record({"conversation": name, "generationPrompt": prompt, "thinking": "any"}, results[0][1])
                else:
                    for thinking, result in results:
                        record({"conversation": name, "generationPrompt": prompt, "thinking": thinking}, result)
        # The final message continued: the conversations that end in an answer once their last question is taken off.
        for name in ("c", "d", "f", "g", "k"):
            result = render(CONVERSATIONS[name][1][:-1], None, None, continue_final_message=True)
            record({"conversation": name, "withoutLast": True, "continueFinalMessage": True}, result)
        if rendered == 0:
            never.append(path.name)
    if never:
        raise SystemExit(f"templates that render nothing: {', '.join(never)}")
    about = {"jinja2": jinja2.__version__, "transformers": VERSION, "clock": CLOCK.isoformat(), "specialTokens": SPECIAL}
    conversations = ",\n".join(
        json.dumps(name) + ": " + json.dumps({"about": about_it, "messages": messages, "tools": tools, "documents": documents}, ensure_ascii=False)
        for name, (about_it, messages, tools, documents) in CONVERSATIONS.items())
    text = '{"about": ' + json.dumps(about) + ',\n"conversations": {\n' + conversations + '\n},\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    json.loads(text)
    (FOLDER / "families.json").write_text(text, encoding="utf-8")
    print(f"{len(lines)} cases: {counts['output']} render, {counts['error']} raise", file=sys.stderr)


if __name__ == "__main__":
    main()
