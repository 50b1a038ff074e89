#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Replies, events and errors against the types of the packages openai and anthropic, strictly.

    check_types.py URL

The packages themselves read whatever comes; here every member must be there and of its type, and none may be unknown to the package but those
that are listed as the server's own.
"""

import json
import sys
import urllib.error
import urllib.request

from anthropic.types import Message as AnthropicMessage
from anthropic.types import MessageTokensCount, RawMessageStreamEvent
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

URL = sys.argv[1].rstrip("/")
# Members that the packages do not know: the server's own, and vLLM's.
OWN = {"seed", "stop_reason", "reasoning_content", "root", "parent", "max_model_len", "meta"}
# OpenAI's servers send it, and the package has no place for it.
OWN |= {"store"}
failures = []
count = 0


def call(path, body=None, key="x"):
    request = urllib.request.Request(
        URL + path, data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def events(text):
    """The events of a stream: (name, data)."""
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        name = next((line[7:] for line in lines if line.startswith("event: ")), None)
        data = [line[6:] for line in lines if line.startswith("data: ")]
        if len(data) != 1:
            failures.append(f"no event: {block[:300]}")
            continue
        yield name, data[0]


def extras(model, path=""):
    """The members that a model had no place for."""
    for name in (getattr(model, "model_extra", None) or {}):
        yield f"{path}.{name}"
    if hasattr(model, "model_fields_set"):
        for name in model.model_fields_set & set(type(model).model_fields):
            yield from extras(getattr(model, name), f"{path}.{name}")
    elif isinstance(model, (list, tuple)):
        for index, element in enumerate(model):
            yield from extras(element, f"{path}[{index}]")


def validate(what, kind, data):
    global count
    count += 1
    try:
        model = TypeAdapter(kind).validate_json(data, strict=True)
    except Exception as error:
        failures.append(f"{what}: {error}\n  {data[:400]}")
        return None
    for name in extras(model):
        if name.split(".")[-1] not in OWN:
            failures.append(f"{what}: {name} is unknown to {kind}\n  {data[:400]}")
    return model


def echoed(text, body):
    """Nothing is before the first token of an echo, so that it has no probability: OpenAI's servers say null, which the package has no type for."""
    reply = json.loads(text)
    for choice in reply.get("choices", []):
        logprobs = choice["logprobs"]
        if body.get("echo") and logprobs and logprobs["text_offset"] and logprobs["text_offset"][0] == 0:
            check(logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None, "the first token has a probability")
            logprobs["token_logprobs"][0], logprobs["top_logprobs"][0] = 0.0, {}
    return json.dumps(reply)


def check(condition, words):
    global count
    count += 1
    if not condition:
        failures.append(words)


def main():
    user = [{"role": "user", "content": "Say hello."}]
    tool = {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    for body in (
        {"messages": user, "max_tokens": 5},
        {"messages": user, "max_tokens": 5, "n": 2, "logprobs": True, "top_logprobs": 2, "seed": 3, "stop": ["\n"]},
        {"messages": user, "max_tokens": 5, "tools": [{"type": "function", "function": tool}]},
    ):
        status, text = call("/v1/chat/completions", body)
        check(status == 200, f"chat: {status} {text[:200]}")
        validate("chat", ChatCompletion, text)
        for options in (None, {"include_usage": True}):
            further = {"stream_options": options} if options else {}
            _, text = call("/v1/chat/completions", {**body, **further, "stream": True})
            chunks = list(events(text))
            check(chunks and chunks[-1] == (None, "[DONE]"), "a stream of chat does not end with [DONE]")
            check(all(name is None for name, _ in chunks), "a chunk of chat has a name")
            for _, data in chunks[:-1]:
                validate("chat chunk", ChatCompletionChunk, data)
    for body in ({"prompt": "Once", "max_tokens": 3}, {"prompt": ["Once", "There"], "max_tokens": 3, "logprobs": 2, "echo": True}):
        validate("completion", Completion, echoed(call("/v1/completions", body)[1], body))
        chunks = list(events(call("/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})[1]))
        for _, data in chunks[:-1]:
            # The package has no type for chunks, whose finish_reason may be null.
            chunk = json.loads(data)
            for choice in chunk["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            validate("completion chunk", Completion, echoed(json.dumps(chunk), body))
    for model in json.loads(call("/v1/models")[1])["data"]:
        validate("model", Model, json.dumps(model))

    flat = {"type": "function", **tool, "strict": False}
    for body in (
        {"input": "Say hello.", "max_output_tokens": 5},
        {"input": "Say hello.", "max_output_tokens": 5, "include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"input": user, "instructions": "Be short.", "max_output_tokens": 400, "tools": [flat], "metadata": {"a": "b"}, "temperature": 0},
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "The weather?"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
                {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{\"city\": \"Paris\"}"},
                {"type": "function_call_output", "call_id": "c", "output": "Rain."},
            ], "max_output_tokens": 5, "tools": [flat], "reasoning": {"effort": "low"},
        },
    ):
        status, text = call("/v1/responses", body)
        check(status == 200, f"responses: {status} {text[:200]}")
        validate("response", Response, text)
        seen = list(events(call("/v1/responses", {**body, "stream": True})[1]))
        for number, (name, data) in enumerate(seen):
            validate("response event", ResponseStreamEvent, data)
            event = json.loads(data)
            check(event["type"] == name, f"an event is named {name} and of the type {event['type']}")
            check(event["sequence_number"] == number, f"event {number} has the number {event['sequence_number']}")
        check(seen and seen[0][0] == "response.created", "the first event is not response.created")
        check(seen and seen[-1][0] in ("response.completed", "response.incomplete"), f"the last event is {seen[-1:]}")

    for body in (
        {"messages": user, "max_tokens": 5},
        {
            "messages": user, "max_tokens": 5, "system": [{"type": "text", "text": "Be short."}], "stop_sequences": ["."],
            "tools": [{"name": "weather", "input_schema": {"type": "object"}}], "thinking": {"type": "disabled"},
        },
    ):
        status, text = call("/v1/messages?beta=true", body)
        check(status == 200, f"messages: {status} {text[:200]}")
        validate("message", AnthropicMessage, text)
        seen = list(events(call("/v1/messages", {**body, "stream": True})[1]))
        for name, data in seen:
            check(json.loads(data)["type"] == name, f"an event is named {name}: {data}")
            if name != "ping":
                validate("message event", RawMessageStreamEvent, data)
        check(seen and seen[0][0] == "message_start" and seen[-1][0] == "message_stop", "a message does not start and stop")
    validate("count", MessageTokensCount, call("/v1/messages/count_tokens", {"messages": user})[1])

    for path, body in (
        ("/v1/chat/completions", {}), ("/v1/chat/completions", {"messages": user, "model": "none"}), ("/v1/completions", {"prompt": 3}),
        ("/v1/responses", {"input": "x", "previous_response_id": "resp_1"}), ("/v1/nothing", {}), ("/v1/models/none", None),
    ):
        status, text = call(path, body)
        error = json.loads(text)["error"]
        check(400 <= status < 500 and set(error) >= {"message", "type", "param", "code"}, f"{path}: {status} {text}")
    for body in ({}, {"messages": user}, {"messages": user, "max_tokens": 1, "model": "none"}):
        status, text = call("/v1/messages", body)
        error = json.loads(text)
        check(
            400 <= status < 500 and error["type"] == "error" and set(error["error"]) == {"type", "message"}, f"/v1/messages: {status} {text}")

    for failure in failures:
        print("FAILED", failure)
    print(f"{count} checks of types, {len(failures)} failed")
    return 1 if failures else 0


sys.exit(main())
