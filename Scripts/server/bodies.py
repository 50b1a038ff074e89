# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Bodies: what is no JSON, fields of every wrong type, what is large or too large."""

import json
import time

from .harness import CHAT, Failure, SOON, TEXT, chat, check, context, events, expect, in_parallel, is_error, message, start, user


@check("bodies that are no JSON")
def _(server):
    for body in [
        b"", b" ", b"{", b"}", b"[", b"nul", b'{"messages"', b'{"messages":', b'{"messages":[]', b"{'messages':[]}", b'{"a":1,}', b"[1,]", b"{} {}",
        b'{"a":01}', b'{"a":+1}', b'{"a":.5}', b'{"a":1.}', b'{"a":1e}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":"\n"}', b'{"a":"\\x41"}',
        b'{"a":"\\u12"}', b'{"a":"unended', b"\xef\xbb\xbf{", b"// a\n{}", b"\x00", b'{"a":1}\x00', b"\x1f\x8b\x08\x00", b'{"a":tru', b'{"a" 1}', b'{1:2}',
    ]:
        for path in [CHAT, TEXT, "/tokenize", "/detokenize"]:
            error = is_error(server.post(path, body), 400)
            expect(any(word in error["message"] for word in ["JSON", "object", "UTF-8"]), "what is wrong with", body, "is not said:", error)


@check("bodies that are JSON, and no object")
def _(server):
    for body in [b"null", b"true", b"1", b'"x"', b"[]", b'[{"messages":[]}]', b"1e999", b"-0"]:
        for path in [CHAT, TEXT, "/tokenize", "/detokenize"]:
            is_error(server.post(path, body), 400)


@check("bytes that are no UTF-8")
def _(server):
    for bad in [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe2\x82", b"\x80"]:
        body = b'{"messages":[{"role":"user","content":"' + bad + b'"}],"max_tokens":1}'
        is_error(server.post(CHAT, body), 400, "invalid_json")
        is_error(server.post(TEXT, b'{"prompt":"' + bad + b'","max_tokens":1}'), 400, "invalid_json")


@check("NULs and lone surrogates in texts")
def _(server):
    for text in [r"\u0000", r"a\u0000b", r"\ud800", r"\udc00", r"\ud83d x", r"\udc00\ud800", r"\ud83d\ude00", r"\uffff", r"\u2028\u2029\u0085"]:
        for path, body in [
            (CHAT, '{"messages":[{"role":"user","content":"%s"}],"max_tokens":1}'), (TEXT, '{"prompt":"%s","max_tokens":1}'),
            (TEXT, '{"prompt":"x","stop":"%s","max_tokens":1}'), (CHAT, '{"model":"%s","messages":[]}'), ("/tokenize", '{"prompt":"%s"}'),
            (CHAT, '{"user":"%s","messages":[{"role":"user","content":"x"}],"max_tokens":1}'), (CHAT, '{"%s":1,"messages":[],"max_tokens":1}'),
            (TEXT, '{"prompt":"x","logit_bias":{"%s":1},"max_tokens":1}'),
        ]:
            reply = server.post(path, (body % text).encode())
            if reply.status != 200:
                is_error(reply, reply.status if reply.status in (400, 404) else 400)


@check("what is nested deeply")
def _(server):
    for deep in [b"[" * 10_000, b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[" * 2_000_000]:
        is_error(server.post(CHAT, deep), 400)
    # In a field that is handed on to a template, and in one that nobody reads.
    for depth in [100, 400, 1000, 10_000]:
        value = "[" * depth + "]" * depth
        for field in ["tools", "chat_template_kwargs", "metadata", "nobody_knows_this"]:
            reply = server.post(CHAT, ('{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"%s":%s}' % (field, value)).encode())
            if reply.status != 200:
                is_error(reply, 400)
        tool = '{"type":"function","function":{"name":"f","parameters":{"a":%s}}}' % value
        reply = server.post(CHAT, ('{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"tools":[%s]}' % tool).encode())
        if reply.status != 200:
            is_error(reply, 400)


@check("fields twice, unknown ones, and ones that clients send without need")
def _(server):
    for body in [
        b'{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"max_tokens":1}',
        b'{"max_tokens":"x","max_tokens":1,"messages":[{"role":"user","content":"x"}]}',
        json.dumps(chat(nobody=1, knows={"this": [None]}, **{"": 1, "\u0000": 2, "é": 3})).encode(),
        json.dumps(chat(**{f"unknown{index}": index for index in range(10_000)})).encode(),
        json.dumps(chat(
            user="u", metadata={"a": "b"}, store=False, service_tier="auto", safety_identifier="s", prompt_cache_key="k", verbosity="low",
            reasoning_effort="low", logit_bias=None, stop=None, seed=None, tools=[], n=None, stream=None, stream_options=None,
            frequency_penalty=0, presence_penalty=0, top_p=1, temperature=1.0, max_completion_tokens=1.0)).encode(),
    ]:
        reply = server.post(CHAT, body)
        if reply.status != 200:
            is_error(reply, 400)


WRONG = [
    None, True, False, "", "x", "1", 0, 1, -1, 1.5, 3.0, 1e308, -1e308, 5e-324, 10**30, -(10**30), 2**63, 2**63 - 1, -(2**63), 2**64, [], {}, [None],
    [1], ["x"], [[]], [[1]], [{}], {"a": 1}, {"": None}, {"type": "x"}, {"type": 1}, {"1": 1}, {"99999999999999999999": 1}, {"-1": 1}, {"1": "x"},
    [10**30], [-1], [2**31], "x" * 10_000,
]
FIELDS = {
    CHAT: """messages model max_tokens max_completion_tokens temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty
        logit_bias seed stop stop_token_ids ignore_eos min_tokens n best_of priority user stream stream_options logprobs top_logprobs tools
        tool_choice parallel_tool_calls response_format chat_template_kwargs reasoning_effort add_generation_prompt continue_final_message
        separate_reasoning functions function_call audio modalities guided_json grammar structured_outputs""".split(),
    TEXT: """prompt model max_tokens temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty logit_bias seed stop
        stop_token_ids ignore_eos n best_of priority user stream stream_options logprobs echo suffix response_format structured_outputs""".split(),
    "/tokenize": """prompt content messages model tools add_generation_prompt chat_template_kwargs add_special_tokens add_special parse_special
        return_token_strs with_pieces""".split(),
    "/detokenize": "tokens model".split(),
}
BASE = {
    CHAT: {"messages": user("x"), "max_tokens": 1, "temperature": 0}, TEXT: {"prompt": "x", "max_tokens": 1, "temperature": 0},
    "/tokenize": {"prompt": "x"}, "/detokenize": {"tokens": [1]},
}


@check("every field with values of every wrong type")
def _(server):
    bodies = [
        # A request for as many tokens as there are ends with the first of these.
        (path, dict(BASE[path], **({"stop": ["e", "a", "o", "i", " ", ".", "1", "\n"]} if "max" in field else {}), **{field: value}))
        for path, fields in FIELDS.items() for field in fields for value in WRONG
    ]

    def look(path, body, reply):
        field = list(dict(body, **BASE[path]))[-1] if len(body) > len(BASE[path]) else None
        if reply.status == 200:
            if reply.headers["content-type"].startswith("text/event-stream"):
                events(reply.body)
            return
        expect(reply.status in (400, 404), "refused with", reply)
        error = is_error(reply, reply.status)
        expect(error["message"].isprintable(), "the message is not for people:", error)
        if reply.status == 404:
            expect(field == "model", "404 for", field)

    in_parallel(server, bodies, look)


@check("messages of every wrong form")
def _(server):
    wrong = [
        [None], [1], ["x"], [[]], [{}], [{"role": "user"}], [{"content": "x"}], [{"role": 1, "content": "x"}], [{"role": "", "content": "x"}],
        [{"role": "nobody", "content": "x"}], [{"role": "user", "content": 1}], [{"role": "user", "content": None}], [{"role": "user", "content": {}}],
        [{"role": "user", "content": [1]}], [{"role": "user", "content": [{}]}], [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], [{"role": "user", "content": [{"type": 1, "text": "x"}]}],
        [{"role": "user", "content": "x", "tool_calls": 1}], [{"role": "assistant", "tool_calls": [{}]}], [{"role": "assistant", "tool_calls": [1]}],
        [{"role": "assistant", "tool_calls": [{"id": 1, "type": "function", "function": {"name": 1, "arguments": 1}}]}],
    ]

    def look(path, body, reply):
        is_error(reply, 400, param="messages")

    in_parallel(server, [(CHAT, chat(messages=messages)) for messages in wrong], look)
    right = [
        [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, *user()], [*user(), {"role": "system", "content": "late"}],
        [{"role": "developer", "content": "a"}, *user()], [*user(), *user()], [{"role": "assistant", "content": "a"}],
        [*user(), {"role": "assistant", "content": None}, *user()], [{"role": "user", "content": ""}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
        [*user(), {"role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "refusal": None}, *user()],
        [*user(), {"role": "assistant", "content": None, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "a", "content": "1"}],
        [dict(user()[0], name="Ann", weight=1, cache_control={})],
    ]

    def look_right(path, body, reply):
        expect(reply.status == 200 or reply.status == 400 and reply.json["error"]["code"] == "chat_template_error", reply)

    in_parallel(server, [(CHAT, chat(messages=messages)) for messages in right], look_right)


@check("prompts of every form")
def _(server):
    for prompt, count in [("a", 1), (["a", "b"], 2), ([1, 2], 1), ([[1, 2], [3]], 2), ([1.0], 1)]:
        reply = server.post(TEXT, {"prompt": prompt, "max_tokens": 1, "n": 2, "temperature": 0})
        expect(reply.status == 200, prompt, reply)
        expect([choice["index"] for choice in reply.json["choices"]] == list(range(2 * count)), "indices of", prompt, reply)
    for prompt in ["", [], [""], [[]], [1, "a"], ["a", 1], [[1], "a"], [[1], 2], [None], [-1], [10**9], [2**40], [10**30], [[1], [-5]], {}, ["a"] * 1025,
                   [[[1]]], [1.5], [True]]:
        is_error(server.post(TEXT, {"prompt": prompt, "max_tokens": 1}), 400)
    for tokens in [[-1], [10**9], [2**31], [2**63], [1.5], ["1"], None, {}]:
        is_error(server.post("/detokenize", {"tokens": tokens}), 400)


@check("a batch's answers are those of its prompts alone")
def _(server):
    # What one prompt has room for must not shorten the others.
    long = [1] * (context(server) - 3)
    fields = dict(max_tokens=12, temperature=0, ignore_eos=True)
    reply = server.post(TEXT, {"prompt": [[504, 2501], long], **fields})
    expect(reply.status == 200, reply)
    alone = server.post(TEXT, {"prompt": [504, 2501], **fields})
    expect(reply.json["choices"][0]["text"] == alone.json["choices"][0]["text"], "the short prompt's answer:", reply, "alone:", alone)


@check("no room in the context")
def _(server):
    most = context(server)
    for path, body in [
        (TEXT, {"prompt": [1] * (most + 5), "max_tokens": 1}), (TEXT, {"prompt": [1] * (most + 5), "max_tokens": 1, "stream": True}),
        (CHAT, {"messages": user("word " * (most + 5)), "stream": True}),
    ]:
        error = is_error(server.post(path, body), 400, "context_length_exceeded")
        for phrase in ["maximum context length", "prompt is too long"]:
            expect(phrase in error["message"], "clients look for", phrase, "in", error)
    # "As many as there are" is no error.
    expect(server.post(CHAT, chat(max_tokens=10**9, stop="e")).status == 200, "a large max_tokens is refused")


@check("large bodies")
def _(server):
    # 10 MB in a field that nobody reads, in one that is too long, in a text.
    reply = server.post(CHAT, chat(metadata={"a": "x" * 10_000_000}))
    expect(reply.status == 200, "10 MB of metadata:", reply)
    began = time.monotonic()
    is_error(server.post(TEXT, {"prompt": "word " * 2_000_000, "max_tokens": 1}), 400, "context_length_exceeded")
    is_error(server.post(CHAT, {"messages": user("word " * 2_000_000)}), 400, "context_length_exceeded")
    time_taken = time.monotonic() - began
    # To take a text of 10 MB apart into its tokens takes many times as long.
    expect(time_taken < 8, f"to refuse two texts of 10 MB took {time_taken:.1f} s")
    is_error(server.post(TEXT, {"prompt": [1] * 3_000_000, "max_tokens": 1}), 400, "context_length_exceeded")
    is_error(server.post(CHAT, chat(model="m" * 10_000_000)), 404, "model_not_found")


@check("bodies over the limit")
def _(server):
    size = 33 << 20
    # Declared: refused before it is sent.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, headers={"Content-Type": "application/json", "Content-Length": str(size)}))
        is_error(wire.reply(), 413)
    # Sent: the answer must be readable although the client is still sending.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, b'{"a":"' + b"x" * size))
        is_error(wire.reply(), 413)
        expect(wire.send(message("GET", "/v1/models")).reply().status == 200, "the connection is of no use after a 413")
    # In chunks of no declared size.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, b"", headers={"Transfer-Encoding": "chunked"}, length=False))
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(33):
            wire.send(piece)
        wire.send(b"0\r\n\r\n")
        is_error(wire.reply(), 413)
    # One that does not end is cut off.
    with server.wire() as wire:
        wire.send(message("POST", CHAT, b"", headers={"Transfer-Encoding": "chunked"}, length=False))
        try:
            for _ in range(400):
                wire.send(piece)
            raise Failure("400 MiB of a body were taken")
        except OSError:
            pass


@check("bodies of all connections together have a bound", own=True)
def _(_server):
    server = start("--max-body", "1M", "--max-bodies", "1M")
    large = json.dumps(chat(metadata={"a": "x" * 900_000})).encode()
    head = message("POST", CHAT, headers={"Content-Type": "application/json", "Content-Length": str(len(large))})
    second = chat(metadata={"a": "x" * 300_000})

    def held():
        """A connection on which a large body lies but for its last byte, and how the second one was refused because of it."""
        for wait in [0.2, 1, 5, 20]:
            wire = server.wire().send(head + large[:-1])
            # Where the second came before the first was there, the first is refused.
            time.sleep(wait)
            reply = server.post(CHAT, second)
            if reply.status != 200:
                return wire, reply
            wire.close()
        raise Failure("nobody is refused:", reply)

    # What is announced does not count, what has come does.
    announced = [server.wire().send(head) for _ in range(5)]
    first, reply = held()
    error = is_error(reply, 503, "overloaded")
    expect("--max-bodies" in error["message"] and reply.headers.get("retry-after"), "the refusal:", reply)
    expect(server.post(CHAT, chat()).status == 200, "a small body beside a large one")
    first.send(large[-1:])
    expect(first.reply().status == 200, "the body that was there first")
    expect(server.post(CHAT, second).status == 200, "the same body, once there is room")
    # A client who goes takes its bytes along.
    gone, reply = held()
    is_error(reply, 503, "overloaded")
    gone.reset()
    deadline = time.monotonic() + SOON
    while (reply := server.post(CHAT, second)).status == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    expect(reply.status == 200, "after its client has gone a body still counts:", reply)
    for wire in [first, *announced]:
        wire.close()
    is_error(server.post(CHAT, b" " * (2 << 20)), 413)
    expect("--max-body)" in server.post(CHAT, b" " * (2 << 20)).json["error"]["message"], "the limit's option is not named")
    server.end()
