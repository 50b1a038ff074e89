# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Anthropic's client for Python."""

import anthropic
from common import KEY, MODEL, URL, Skip, expect, has, law, main

there = has("/v1/messages")
# This version of the client has no parameter for the temperature.
fixed = dict(model=MODEL, max_tokens=12, extra_body={"temperature": 0}, system="Be brief.", messages=[{"role": "user", "content": "Name three colours."}])


def client(**key):
    if not there:
        raise Skip("the server has no /v1/messages")
    return anthropic.Anthropic(base_url=URL, max_retries=0, **(key or {"api_key": KEY}))


@law
def _():
    """a message"""
    reply = client().messages.create(**fixed)
    expect(reply.type == "message" and reply.role == "assistant" and reply.content[0].text, reply)
    expect(reply.stop_reason in ("end_turn", "max_tokens") and reply.usage.output_tokens > 0 and reply.usage.input_tokens > 0, reply)
    expect(reply._request_id, "no request id")


@law
def _():
    """a stream is the message in pieces"""
    whole = client().messages.create(**fixed)
    with client().messages.stream(**fixed) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    expect(text == final.content[0].text == whole.content[0].text, text, whole)
    expect(final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens, final, whole)
    kinds = [event.type for event in client().messages.create(**fixed, stream=True)]
    expect(kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds)
    expect(kinds[1] == "content_block_start" and kinds[-3] == "content_block_stop", kinds)


@law
def _():
    """blocks, a stop sequence, the counting of tokens"""
    blocks = dict(fixed, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                  messages=[{"role": "user", "content": [{"type": "text", "text": "Name three colours."}]}])
    plain = client().messages.create(**fixed)
    expect(client().messages.create(**blocks).content[0].text == plain.content[0].text, "blocks are not their texts")
    text = plain.content[0].text
    stop = text[len(text) // 2]
    cut = client().messages.create(**fixed, stop_sequences=[stop])
    expect(cut.stop_reason == "stop_sequence" and cut.stop_sequence == stop, cut)
    count = client().messages.count_tokens(model=MODEL, system=fixed["system"], messages=fixed["messages"])
    # What was in the cache is told apart.
    expect(count.input_tokens == plain.usage.input_tokens + plain.usage.cache_read_input_tokens, count, plain.usage)


@law
def _():
    """errors have the client's classes"""
    for kind, call in [
        (anthropic.NotFoundError, lambda: client().messages.create(**dict(fixed, model="claude"))),
        (anthropic.BadRequestError, lambda: client().messages.create(**dict(fixed, extra_body={"temperature": -1}))),
        (anthropic.BadRequestError, lambda: client().messages.create(**dict(fixed, messages=[{"role": "user", "content": "word " * 20000}]))),
        (anthropic.AuthenticationError, lambda: client(api_key="wrong").messages.create(**fixed)),
    ]:
        try:
            call()
        except kind as error:
            expect(error.body["type"] == "error" and error.body["error"]["type"] and error.request_id, error.body)
            if "word" in str(error):
                expect("prompt is too long" in str(error), error.body)
        else:
            raise AssertionError(f"no {kind.__name__}")


main()
