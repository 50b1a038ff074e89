#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Renders a folder of chat templates with transformers' Jinja and with `martlet render`, and compares byte for byte.

    pip install jinja2==3.1.6
    python3 compare.py CORPUS_FOLDER --martlet .build/release/martlet [--jobs 2] [--report FILE]
    python3 compare.py CORPUS_FOLDER --reference-only

CORPUS_FOLDER holds *.jinja files, and perhaps an index.json: file name → {"bos": TEXT or null, "eos": TEXT or null}; null leaves the token
undefined, and a file that is not named has <s> and </s>. Each template is rendered with the conversations of the tests' conversations.py, with
and without an opening for the answer, with enable_thinking true, false and not set. Where Jinja renders, Martlet must write the same
bytes; where Jinja raises, Martlet must end with status 1. Ends with status 1 if any case differs.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import jinja2

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "Tests/MartletTemplatesTests/Fixtures"))
from conversations import EVERYDAY, FURTHER  # noqa: E402
from transformers_chat import CLOCK, Transformers, outcome  # noqa: E402

Case = collections.namedtuple("Case", "conversation prompt thinking continued")


def cases(conversations, continued):
    """All cases of a template, in the order in which they are reported."""
    for conversation in conversations:
        for prompt in (True, False):
            for thinking in (None, True, False):
                yield Case(conversation, prompt, thinking, False)
    if continued:
        # The conversations that end in an answer once their last question is taken off.
        for conversation in ("c", "d", "f", "g"):
            yield Case(conversation, False, None, True)


def title(case):
    thinking = "" if case.thinking is None else f", enable_thinking {str(case.thinking).lower()}"
    end = ", the final message continued" if case.continued else (", opening" if case.prompt else ", no opening")
    return f"{case.conversation}{end}{thinking}"


def messages_of(conversations, case):
    messages = conversations[case.conversation][1]
    return messages[:-1] if case.continued else messages


def reference(transformers, source, tokens, conversations, case):
    """What transformers makes of the case."""
    _, _, tools, documents = conversations[case.conversation]
    options = {} if case.thinking is None else {"enable_thinking": case.thinking}
    if case.continued:
        options["continue_final_message"] = True
    special = {name: text for name, text in (("bos_token", tokens["bos"]), ("eos_token", tokens["eos"])) if text is not None}
    return outcome(lambda: transformers.apply(
        source, messages_of(conversations, case), tools=tools, documents=documents, special_tokens=special, add_generation_prompt=case.prompt, **options))


def martlet(command, folder, template, tokens, conversations, case):
    """What `martlet render` makes of it: (status, its bytes, what it says on stderr)."""
    _, _, tools, documents = conversations[case.conversation]
    name = case.conversation + ("-continued" if case.continued else "")
    arguments = [command, "render", "--chat-template", str(template), "--messages", str(folder / f"{name}.messages.json"), "--now", CLOCK.isoformat()]
    for option, text in (("--bos", tokens["bos"]), ("--eos", tokens["eos"])):
        if text is not None:
            arguments.append(f"{option}={text}" if text.startswith("-") else option)
            arguments += [] if text.startswith("-") else [text]
    if tools is not None:
        arguments += ["--tools", str(folder / f"{case.conversation}.tools.json")]
    if documents is not None:
        arguments += ["--documents", str(folder / f"{case.conversation}.documents.json")]
    if case.thinking is not None:
        arguments += ["--set", f"enable_thinking={json.dumps(case.thinking)}"]
    if case.continued:
        arguments.append("--continue-final-message")
    elif not case.prompt:
        arguments.append("--no-generation-prompt")
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return -1, b"", "took longer than 60 s"
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace").strip()


def write_inputs(folder, conversations):
    """The files that `martlet render` reads, one a conversation."""
    for name, (_, messages, tools, documents) in conversations.items():
        (folder / f"{name}.messages.json").write_text(json.dumps(messages, ensure_ascii=False), encoding="utf-8")
        (folder / f"{name}-continued.messages.json").write_text(json.dumps(messages[:-1], ensure_ascii=False), encoding="utf-8")
        for kind, value in (("tools", tools), ("documents", documents)):
            if value is not None:
                (folder / f"{name}.{kind}.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def difference(expected, got):
    """Where two texts begin to differ, with some of what stands before."""
    place = next((i for i, (x, y) in enumerate(zip(expected, got)) if x != y), min(len(expected), len(got)))
    start = max(0, place - 60)
    return f"at byte {place} of {len(expected)}:\n      jinja2  …{expected[start:place + 60]!r}\n      martlet …{got[start:place + 60]!r}"


def judge(wanted, status, output, says):
    """None where both agree, else in what they differ."""
    if "error" in wanted:
        if status == 1:
            return None
        reason = f"jinja2 raises {wanted['error']}: {wanted['message'][:200]}"
        return f"{reason}\n      martlet ends with status {status}" + (f" and {output[:120]!r}" if output else f": {says[:200]}")
    expected = wanted["output"].encode("utf-8", "surrogatepass")
    if status != 0:
        return f"jinja2 renders {len(expected)} bytes\n      martlet ends with status {status}: {says[:300]}"
    return None if output == expected else difference(expected, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=pathlib.Path, help="a folder of *.jinja files")
    parser.add_argument("--martlet", help="the martlet command")
    parser.add_argument("--reference-only", action="store_true", help="renders with jinja2 alone and counts")
    parser.add_argument("--wheel", help="transformers' wheel, if it is here already")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--further", action="store_true", help="also conversations that fewer templates take, and the final message continued")
    parser.add_argument("--only", default="", help="only templates whose file name contains this")
    parser.add_argument("--report", type=pathlib.Path, help="writes all that differs as JSON")
    options = parser.parse_args()
    if not options.martlet and not options.reference_only:
        parser.error("name the command with --martlet PATH, or say --reference-only")
    if jinja2.__version__ != "3.1.6":
        raise SystemExit(f"jinja2 is {jinja2.__version__}, the comparison is with 3.1.6: pip install jinja2==3.1.6")

    transformers = Transformers(options.wheel)
    index_file = options.corpus / "index.json"
    index = json.loads(index_file.read_text(encoding="utf-8")) if index_file.exists() else {}
    conversations = {**EVERYDAY, **FURTHER} if options.further else EVERYDAY
    templates = sorted(path for path in options.corpus.glob("*.jinja") if options.only in path.name)
    if not templates:
        raise SystemExit(f"{options.corpus} has no *.jinja files" + (f" with {options.only} in their names" if options.only else ""))
    rows = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        folder = pathlib.Path(folder)
        write_inputs(folder, conversations)
        for template in templates:
            entry = index.get(template.name, {})
            tokens = {"bos": entry.get("bos", "<s>"), "eos": entry.get("eos", "</s>")}
            # Read as transformers reads it: line ends become newlines.
            source = template.read_text(encoding="utf-8")
            all_cases = list(cases(conversations, options.further))
            runs = [] if options.reference_only else [
                pool.submit(martlet, options.martlet, folder, template, tokens, conversations, case) for case in all_cases]
            wanted = [reference(transformers, source, tokens, conversations, case) for case in all_cases]
            row = {"template": template.name, "renders": sum("output" in one for one in wanted), "raises": sum("error" in one for one in wanted), "differing": []}
            for case, want, run in zip(all_cases, wanted, runs):
                problem = judge(want, *run.result())
                if problem:
                    row["differing"].append({"case": title(case), "difference": problem})
            if options.reference_only:
                row["errors"] = collections.Counter(f"{one['error']}: {one['message'][:80]}" for one in wanted if "error" in one).most_common(3)
            rows.append(row)

    if options.report:
        options.report.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    renders, raises = sum(row["renders"] for row in rows), sum(row["raises"] for row in rows)
    never = [row for row in rows if row["renders"] == 0]
    width = max(len(row["template"]) for row in rows)
    if options.reference_only:
        for row in rows:
            print(f"{row['template']:{width}}  renders {row['renders']:3}  raises {row['raises']:3}  " + "; ".join(f"{count} × {error}" for error, count in row["errors"][:1]))
        print(f"{len(rows)} templates, {renders + raises} cases: jinja2 renders {renders} and raises in {raises}; {len(never)} templates render in none")
        return
    for row in rows:
        judgement = "differs in " + str(len(row["differing"])) if row["differing"] else ("only errors" if row["renders"] == 0 else "exact")
        print(f"{row['template']:{width}}  renders {row['renders']:3}  raises {row['raises']:3}  {judgement}")
    failing = [row for row in rows if row["differing"]]
    for row in failing:
        print(f"\n{row['template']}: {row['differing'][0]['case']}\n  {row['differing'][0]['difference']}")
    same = [row for row in rows if not row["differing"] and row["renders"]]
    wrong = sum(len(row["differing"]) for row in rows)
    print(f"\n{len(rows)} templates: {len(same)} exact in all, {len(rows) - len(same) - len(failing)} only errors, as in jinja2, {len(failing)} differing")
    print(f"{renders + raises} cases: jinja2 renders {renders} and raises in {raises}; {wrong} differ")
    sys.exit(1 if failing else 0)


if __name__ == "__main__":
    main()
