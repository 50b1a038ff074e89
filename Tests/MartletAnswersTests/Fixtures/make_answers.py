#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes answers.json: what transformers 5.24.0's parser of responses reads of answers in the manner of families of models.

    pip install transformers==5.24.0
    python3 make_answers.py

The answers are written here, of a few messages with calls, by the rules of each family; how transformers is to read them is a response_template
of this script's own for each family, since most published models have none yet. What JSON, markup and lists of Python's calls mean, and which
type a bare text has by a tool's schema, is what transformers says. "coerced" records that last part alone: texts, schemas, values.
"""

import itertools
import json
import pathlib

import transformers
from transformers.utils.chat_parsing.response_parser import parse_response

VERSION = "5.24.0"

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "A tool.", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"}}, "required": []}}},
    {"type": "function", "function": {"name": "note", "description": "A tool.", "parameters": {"type": "object", "properties": {
        "text": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}, "place": {"type": "object"},
        "weight": {"type": "number"}, "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, "required": []}}},
    {"type": "function", "function": {"name": "clock", "description": "A tool.", "parameters": {"type": "object", "properties": {}, "required": []}}},
]

# (reasoning, content, calls)
MESSAGES = [
    ("", "", [("weather", {"city": "Paris"})]),
    ("The user wants weather.", "", [("weather", {"city": "Zürich", "days": 3, "exact": True})]),
    ("Two things.\n\nFirst one, then the other.", "I look both up.", [("weather", {"city": "Ulm"}), ("weather", {"city": "Köln", "days": 0})]),
    ("", "Noted:\n\n- this\n- that", [("note", {"text": "line one\nline two", "tags": ["a", "b c"], "weight": 1.5})]),
    ("", "", [("note", {"text": "she said \"no\" \\ and 'yes' {x} [y] <z>", "place": {"lat": -1.25, "name": "é", "deep": {"list": [1, [2, {}]]}}})]),
    ("", "", [("note", {"text": "42"}), ("note", {"text": "true"}), ("note", {"text": "null"}), ("note", {"text": "{\"a\": 1}"})]),
    ("", "", [("note", {"maybe": None}), ("note", {"maybe": 5}), ("note", {"tags": [], "place": {}, "weight": -0.5})]),
    ("Hm.", "It rains in Ulm.", []),
    ("", "No call: 1 < 2 and \"x\".", []),
    ("", "", [("note", {"text": "", "weight": 2})]),
    ("", "", [("note", {"text": "tab\tand 👩‍👩‍👧‍👦 and \u2028"})]),
]


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def bare(value):
    return value if isinstance(value, str) else dumps(value)


def python(value):
    if isinstance(value, list):
        return "[" + ", ".join(python(element) for element in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python(key)}: {python(element)}" for key, element in value.items()) + "}"
    return dumps(value) if isinstance(value, str) else repr(value)


def gemma(value):
    if isinstance(value, list):
        return "[" + ",".join(gemma(element) for element in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{gemma(element)}" for key, element in value.items()) + "}"
    return f'<|"|>{value}<|"|>' if isinstance(value, str) else dumps(value)


THINK = {"open_pattern": r"\s*<think>\n*", "close_pattern": r"\n*</think>\n*"}
NAMED = {"name": "{name}", "arguments": "{content}"}


def think(reasoning, open="<think>\n", close="\n</think>\n\n"):
    return open + reasoning + close if reasoning else ""


def lines(content, calls):
    return content + ("\n" if content and calls else "")


def tagged(reasoning, content, calls):
    return think(reasoning) + lines(content, calls) + "\n".join(
        f'<tool_call>\n{{"name": {dumps(name)}, "arguments": {dumps(arguments)}}}\n</tool_call>' for name, arguments in calls)


def markup(open, close, reasoning, content, calls):
    text = think(reasoning) + lines(content, calls)
    for name, arguments in calls:
        text += f"{open}\n<function={name}>\n"
        text += "".join(f"<parameter={key}>\n{bare(value)}\n</parameter>\n" for key, value in arguments.items())
        text += f"</function>\n{close}\n"
    return text.rstrip("\n") if calls else text


def minimax(reasoning, content, calls):
    text = think(reasoning) + lines(content, calls)
    if calls:
        text += "<minimax:tool_call>\n"
        for name, arguments in calls:
            text += f'<invoke name="{name}">\n'
            text += "".join(f'<parameter name="{key}">{bare(value)}</parameter>\n' for key, value in arguments.items()) + "</invoke>\n"
        text += "</minimax:tool_call>"
    return text


def glm(reasoning, content, calls):
    text = "\n" + think(reasoning, "<think>", "</think>\n") + lines(content, calls)
    return text + "\n".join(
        f"<tool_call>{name}\n" + "".join(
            f"<arg_key>{key}</arg_key>\n<arg_value>{bare(value)}</arg_value>\n" for key, value in arguments.items()) + "</tool_call>"
        for name, arguments in calls)


def mistral_list(reasoning, content, calls):
    text = content
    if calls:
        text += "[TOOL_CALLS] [" + ", ".join(
            f'{{"name": {dumps(name)}, "arguments": {dumps(arguments)}, "id": "abcdefghi"}}' for name, arguments in calls) + "]"
    return text


def mistral(reasoning, content, calls):
    return think(reasoning, "[THINK]", "[/THINK]") + content + "".join(
        f"[TOOL_CALLS]{name}[ARGS]{dumps(arguments)}" for name, arguments in calls)


def deepseek(reasoning, content, calls):
    text = think(reasoning) + content
    if calls:
        text += "<｜tool▁calls▁begin｜>" + "".join(
            f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{dumps(arguments)}<｜tool▁call▁end｜>" for name, arguments in calls) + "<｜tool▁calls▁end｜>"
    return text


def deepseek_fenced(reasoning, content, calls):
    text = think(reasoning) + content
    if calls:
        text += "<｜tool▁calls▁begin｜>" + "\n".join(
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{dumps(arguments)}\n```<｜tool▁call▁end｜>"
            for name, arguments in calls) + "<｜tool▁calls▁end｜>"
    return text


def kimi(reasoning, content, calls):
    text = think(reasoning, "<think>", "</think>") + content
    if calls:
        text += "<|tool_calls_section_begin|>" + "".join(
            f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{dumps(arguments)}<|tool_call_end|>"
            for index, (name, arguments) in enumerate(calls)) + "<|tool_calls_section_end|>"
    return text


def cohere(reasoning, content, calls):
    text = think(reasoning, "<|START_THINKING|>", "<|END_THINKING|>")
    if calls:
        return text + "<|START_ACTION|>[\n" + ",\n".join(
            f'    {{"tool_call_id": "{index}", "tool_name": {dumps(name)}, "parameters": {dumps(arguments)}}}'
            for index, (name, arguments) in enumerate(calls)) + "\n]<|END_ACTION|>"
    return text + f"<|START_RESPONSE|>{content}<|END_RESPONSE|>"


def harmony(reasoning, content, calls):
    messages = []
    if reasoning:
        messages.append(f"<|channel|>analysis<|message|>{reasoning}<|end|>")
    if content and calls:
        messages.append(f"<|channel|>commentary<|message|>{content}<|end|>")
    elif content:
        messages.append(f"<|channel|>final<|message|>{content}<|return|>")
    for name, arguments in calls:
        messages.append(f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{dumps(arguments)}<|call|>")
    return "<|start|>assistant".join(messages)


def gemma_calls(reasoning, content, calls):
    return think(reasoning, "<|channel>thought\n", "\n<channel|>") + content + "".join(
        f"<|tool_call>call:{name}{gemma(arguments)}<tool_call|>" for name, arguments in calls)


def python_calls(reasoning, content, calls):
    text = think(reasoning) + content
    if calls:
        text += "<|tool_call_start|>[" + ", ".join(
            f"{name}(" + ", ".join(f"{key}={python(value)}" for key, value in arguments.items()) + ")" for name, arguments in calls
        ) + "]<|tool_call_end|>"
    return text


def inline(pattern):
    # transformers types the arguments of what has a "function".
    return {"content": "xml-inline", "content_args": {"tag_pattern": pattern}, "repeats": True, "transform": {"function": NAMED}}


def functions(open, close):
    return {"open_pattern": rf"\n*{open}\s*<function=(?P<name>[^>]+)>\s*", "close_pattern": rf"\s*</function>\s*{close}\s*",
            **inline(r"<parameter=(?P<key>[^>]+)>\n?(?P<value>.*?)\n?</parameter>")}


FAMILIES = {
    "tagged_json": (tagged, {"thinking": THINK, "content": {}, "tool_calls": {
        "open_pattern": r"\n*<tool_call>\s*", "close_pattern": r"\s*</tool_call>\n*", "content": "json", "repeats": True}}),
    "function_markup": (lambda *message: markup("<tool_call>", "</tool_call>", *message), {
        "thinking": THINK, "content": {}, "tool_calls": functions("<tool_call>", "</tool_call>")}),
    "minimax": (minimax, {"thinking": THINK, "content": {}, "tool_calls": {
        "open_pattern": r'\n*(?:<minimax:tool_call>\s*)?<invoke name="(?P<name>[^"]+)">\s*',
        "close_pattern": r"\s*</invoke>\s*(?:</minimax:tool_call>\s*)?",
        **inline(r'<parameter name="(?P<key>[^"]+)">(?P<value>.*?)</parameter>')}}),
    "glm": (glm, {"thinking": THINK, "content": {}, "tool_calls": {
        "open_pattern": r"\n*<tool_call>(?P<name>[^<\n]+)\s*", "close_pattern": r"\s*</tool_call>\s*",
        **inline(r"<arg_key>(?P<key>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>")}}),
    "mistral list": (mistral_list, {"content": {}, "tool_calls": {"open": "[TOOL_CALLS]", "content": "json"}}),
    "mistral": (mistral, {"thinking": {"open": "[THINK]", "close": "[/THINK]"}, "content": {}, "tool_calls": {
        "open_pattern": r"\[TOOL_CALLS\](?P<name>[^\[]+)\[ARGS\]", "close_pattern": r"(?=\[TOOL_CALLS\])|\Z", "content": "json",
        "repeats": True, "transform": NAMED}}),
    "deepseek": (deepseek, {"thinking": THINK, "content": {}, "tool_calls": {
        "open_pattern": r"(?:<｜tool▁calls▁begin｜>)?<｜tool▁call▁begin｜>(?P<name>[^<]+)<｜tool▁sep｜>",
        "close_pattern": r"<｜tool▁call▁end｜>(?:<｜tool▁calls▁end｜>)?", "content": "json", "repeats": True, "transform": NAMED}}),
    "deepseek fenced": (deepseek_fenced, {"thinking": THINK, "content": {}, "tool_calls": {
        "open_pattern": r"\n*(?:<｜tool▁calls▁begin｜>)?<｜tool▁call▁begin｜>function<｜tool▁sep｜>(?P<name>[^\n]+)\n```json\n",
        "close_pattern": r"\n```<｜tool▁call▁end｜>(?:<｜tool▁calls▁end｜>)?", "content": "json", "repeats": True, "transform": NAMED}}),
    "kimi": (kimi, {"thinking": THINK, "content": {}, "tool_calls": {
        "open_pattern": r"(?:<\|tool_calls_section_begin\|>)?<\|tool_call_begin\|>functions\.(?P<name>\w+):\d+<\|tool_call_argument_begin\|>",
        "close_pattern": r"<\|tool_call_end\|>(?:<\|tool_calls_section_end\|>)?", "content": "json", "repeats": True, "transform": NAMED}}),
    "cohere": (cohere, {"thinking": {"open": "<|START_THINKING|>", "close": "<|END_THINKING|>"},
        "content": {"open": "<|START_RESPONSE|>", "close": "<|END_RESPONSE|>"}, "tool_calls": {
        "open": "<|START_ACTION|>", "close": "<|END_ACTION|>", "content": "json", "transform_each": True,
        "transform": {"name": "{tool_name}", "arguments": "{parameters}"}}}),
    "channels": (harmony, {"thinking": {"open": "<|channel|>analysis<|message|>", "close": "<|end|>"},
        "content": {"open_pattern": r"<\|channel\|>(?:final|commentary)<\|message\|>", "close_pattern": r"<\|return\|>|<\|end\|>|\Z"},
        "tool_calls": {"open_pattern": r"<\|channel\|>commentary to=functions\.(?P<name>\w+) <\|constrain\|>json<\|message\|>",
                       "close_pattern": r"<\|call\|>|\Z", "content": "json", "repeats": True, "transform": NAMED}}),
    "gemma": (gemma_calls, {"thinking": {"open_pattern": r"<\|channel>thought\n*", "close_pattern": r"\n*<channel\|>\n*"}, "content": {},
        "tool_calls": {"open_pattern": r"<\|tool_call>call:(?P<name>\w+)", "close": "<tool_call|>", "content": "json",
                       "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]}, "repeats": True, "transform": NAMED}}),
    "python_calls": (python_calls, {"thinking": THINK, "content": {}, "tool_calls": {
        "open": "<|tool_call_start|>", "close": "<|tool_call_end|>", "content": "python-call-list"}}),
}

TYPES = [
    {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "object"}, {"type": "array"}, {"type": "null"}, {},
    {"type": ["integer", "null"]}, {"type": ["string", "integer"]}, {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    {"oneOf": [{"type": "array"}, {"type": "string"}]}, {"type": "integer", "nullable": True}, {"enum": ["a", "b"]},
    {"anyOf": [{"anyOf": [{"type": "number"}]}, {"type": "object"}]},
]
TEXTS = [
    "a", "", "5", "-17", "3.0", "3.5", "-0.25", "1e3", "12345678901234567890123", "true", "True", "FALSE", "1", "0", "null", "None", "{}",
    "{\"a\": [1, 2.5, null]}", "[]", "[\"x\", {\"y\": true}]", "[1, 2", "{'a': 1}", "5 apples", " 7 ", "yes", "\"quoted\"", "two\nlines", "é\"\\",
]


def main():
    if transformers.__version__ != VERSION:
        raise SystemExit(f"transformers is {transformers.__version__}; these records are of {VERSION}: pip install transformers=={VERSION}")
    lines = []
    for family, (write, fields) in FAMILIES.items():
        template = {"start_anchor": "<begin>", "fields": fields}
        for message in MESSAGES:
            text = write(*message)
            read = parse_response(text, template, prefix="<begin>", tools=TOOLS)
            if "tool_calls" in read:
                read["tool_calls"] = [call.get("function", call) for call in read["tool_calls"]]
            lines.append(json.dumps({"family": family, "text": text, "read": read}, ensure_ascii=False))
    coerced = []
    write, fields = FAMILIES["function_markup"]
    for schema, text in itertools.product(TYPES, TEXTS):
        tools = [{"type": "function", "function": {"name": "typed", "parameters": {"type": "object", "properties": {"value": schema}}}}]
        answer = f"<tool_call>\n<function=typed>\n<parameter=value>\n{text}\n</parameter>\n</function>\n</tool_call>"
        read = parse_response(answer, {"start_anchor": "<begin>", "fields": fields}, prefix="<begin>", tools=tools)
        coerced.append(json.dumps({"schema": schema, "text": text, "value": read["tool_calls"][0]["function"]["arguments"]["value"]}, ensure_ascii=False))
    path = pathlib.Path(__file__).with_name("answers.json")
    path.write_text(
        '{"version": "' + VERSION + '",\n"answers": [\n' + ",\n".join(lines) + '],\n"coerced": [\n' + ",\n".join(coerced) + "]}\n",
        encoding="utf-8")
    print(f"{path.name}: {len(lines)} answers, {len(coerced)} coerced texts")


if __name__ == "__main__":
    main()
