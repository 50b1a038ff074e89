# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""litellm: its providers openai and hosted_vllm."""

import os

# Its list of prices is on the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from common import BASE, KEY, MODEL, expect, law, main

fixed = dict(api_base=BASE, api_key=KEY, messages=[{"role": "user", "content": "Name three colours."}], temperature=0, max_tokens=12, num_retries=0)


@law
def _():
    """an answer, and a stream that is it in pieces, by either provider"""
    texts = set()
    for provider in ["openai/", "hosted_vllm/"]:
        reply = litellm.completion(model=provider + MODEL, **fixed)
        expect(reply.usage.completion_tokens == 12 and reply.choices[0].finish_reason == "length", reply)
        pieces = litellm.completion(model=provider + MODEL, **fixed, stream=True, stream_options={"include_usage": True})
        texts |= {reply.choices[0].message.content, "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)}
    expect(len(texts) == 1, texts)


@law
def _():
    """completions"""
    reply = litellm.text_completion(model="text-completion-openai/" + MODEL, prompt="Once upon a time", api_base=BASE, api_key=KEY, max_tokens=4, temperature=0)
    expect(reply.choices[0].text, reply)


@law
def _():
    """errors have the client's classes"""
    for kind, changes in [
        (litellm.NotFoundError, {"model": "openai/gpt-none"}), (litellm.AuthenticationError, {"api_key": "wrong"}),
        (litellm.BadRequestError, {"temperature": -1}),
        (litellm.ContextWindowExceededError, {"messages": [{"role": "user", "content": "word " * 20000}]}),
    ]:
        try:
            litellm.completion(**{"model": "openai/" + MODEL, **fixed, **changes})
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__}")


main()
