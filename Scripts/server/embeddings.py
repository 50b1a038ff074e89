# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Vectors of texts, of a model that makes some and of one that writes."""

import base64
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor

from .harness import CHAT, TEXT, chat, check, expect, is_error, start

PATH = "/v1/embeddings"
TINY = os.path.join(os.path.dirname(__file__), "..", "..", "Tests", "MartletTestSupport", "Checkpoints", "bert")


def numbers(text):
    data = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


@check("embeddings of a model that writes text")
def _(server):
    for path in (PATH, "/embeddings"):
        error = is_error(server.post(path, {"input": "A swift"}), 501, "not_supported")
        expect("pooling" in error["message"], "the way out is not told:", error)


@check("embeddings of a model that makes them", own=True)
def _(_server):
    server = start("--served-name", "tiny", "--max-queue", "20000", model=os.path.abspath(TINY))
    texts = ["The martlet's nest: never lands, 12 times!", "Über den Wolken", "swift"]
    reply = server.post(PATH, {"input": texts, "model": "tiny", "user": "somebody"})
    expect(reply.status == 200, "embeddings are", reply)
    body = reply.json
    expect([each["index"] for each in body["data"]] == [0, 1, 2] and body["object"] == "list" and body["model"] == "tiny", "the form:", reply)
    expect(body["usage"] == {"prompt_tokens": 25, "total_tokens": 25}, "the usage:", body["usage"])
    vectors = [each["embedding"] for each in body["data"]]
    expect(all(abs(math.hypot(*vector) - 1) < 1e-5 and len(vector) == 36 for vector in vectors), "vectors are not of length 1")

    # One alone, as base64, as tokens, among lists of tokens: the same float32 values.
    for given in (texts[1], [texts[1]], [2, 83, 84, 85, 3], [[2, 83, 84, 85, 3]], [[2, 83, 84, 85, 3], [2, 3]]):
        reply = server.post(PATH, {"input": given, "encoding_format": "base64"})
        expect(reply.status == 200, given, "is", reply)
        found = numbers(reply.json["data"][0]["embedding"])
        expect(found == [struct.unpack("<f", struct.pack("<f", value))[0] for value in vectors[1]], "another vector for", given)
    short = server.post(PATH, {"input": texts[0], "dimensions": 4}).json["data"][0]["embedding"]
    expect(len(short) == 4 and abs(math.hypot(*short) - 1) < 1e-5, "the first 4 values:", short)

    for body, param in (
        ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": [""]}, "input"), ({"input": {}}, "input"), ({"input": None}, "input"),
        ({}, "input"), ({"input": [[]]}, "input"), ({"input": [1, "a"]}, "input"), ({"input": ["a", 1]}, "input"), ({"input": [[1], 2.5]}, "input"),
        ({"input": ["a"] * 2049}, "input"), ({"input": "a", "dimensions": 37}, "dimensions"), ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"), ({"input": "a", "truncate": 1}, "truncate"),
    ):
        is_error(server.post(PATH, body), 400, param=param)
    is_error(server.post(PATH, {"input": [128]}), 400)
    is_error(server.post(PATH, {"input": [-1]}), 400)
    is_error(server.post(PATH, {"input": "a", "model": "other"}), 404, "model_not_found")
    is_error(server.post(PATH, {"input": "swift " * 60}), 400, "context_length_exceeded", "input")
    is_error(server.post(PATH, {"input": "x" * 3_000_000}), 400, "context_length_exceeded", "input")
    reply = server.post(PATH, {"input": "swift " * 60, "truncate": True})
    expect(reply.status == 200 and reply.json["usage"]["prompt_tokens"] == 48, "a text that was cut:", reply)
    expect(server.post(PATH, {"input": "swift " * 10000, "truncate": True}).json == reply.json, "a longer one that was cut is another")

    # What writes is not there, and says so.
    for path, body in ((CHAT, chat()), (TEXT, {"prompt": "a", "max_tokens": 1}), ("/v1/responses", {"input": "a"}),
                       (CHAT, chat(stream=True)), (CHAT + "/input_tokens", chat())):
        is_error(server.post(path, body), 501, "not_supported")
    expect(server.post("/v1/messages", {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}).status == 501, "messages")
    expect(server.post("/tokenize", {"prompt": "swift"}).status == 200, "tokenize")
    meta = server.ask("GET", "/v1/models").json["data"][0]["meta"]
    expect(meta["embedding_size"] == 36, "the model says", meta)
    expect("embedded" in server.ask("GET", "/metrics").body.decode(), "the metrics do not count vectors")

    # Many at once, each as alone; and clients who go.
    def ask(index):
        count = 1 + index * 37 % 300
        reply = server.post(PATH, {"input": [texts[(index + each) % 3] for each in range(count)]})
        expect(reply.status == 200, "of a crowd:", reply)
        found = [each["embedding"] for each in reply.json["data"]]
        expect(found == [vectors[(index + each) % 3] for each in range(count)], "another vector in a crowd")

    def go(index):
        from .harness import message
        with server.wire() as wire:
            wire.send(message("POST", PATH, {"input": [texts[0]] * 2000}))
            wire.reset()

    with ThreadPoolExecutor(12) as pool:
        for result in [pool.submit(go if index % 4 == 3 else ask, index) for index in range(40)]:
            result.result()
    expect(server.end() == 0, "the server ended with", server.process.returncode, server.text()[-500:])
