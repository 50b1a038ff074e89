# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""langchain-openai."""

from common import BASE, KEY, MODEL, expect, law, main
from langchain_openai import ChatOpenAI, OpenAI
from langchain_openai.chat_models.base import OpenAIContextOverflowError

chat = ChatOpenAI(base_url=BASE, api_key=KEY, model=MODEL, temperature=0, max_tokens=12, max_retries=0)
question = [("system", "Be brief."), ("user", "Name three colours.")]


@law
def _():
    """an answer and what it took"""
    reply = chat.invoke(question)
    expect(reply.content and reply.usage_metadata["output_tokens"] == 12 and reply.response_metadata["finish_reason"] == "length", reply)


@law
def _():
    """a stream is the answer in pieces"""
    pieces = list(chat.stream(question))
    expect("".join(piece.content for piece in pieces) == chat.invoke(question).content and len(pieces) > 3, pieces)


@law
def _():
    """log-probabilities and a batch"""
    reply = chat.bind(logprobs=True, top_logprobs=1).invoke(question)
    expect(len(reply.response_metadata["logprobs"]["content"]) == 12, reply.response_metadata)
    expect([r.content for r in chat.batch([question, question])] == [reply.content] * 2, "a batch's answers differ")


@law
def _():
    """completions"""
    text = OpenAI(base_url=BASE, api_key=KEY, model=MODEL, temperature=0, max_tokens=6, max_retries=0).invoke("Once upon a time")
    expect(text, "nothing")


@law
def _():
    """no room in the context is this client's own error"""
    try:
        chat.invoke("word " * 20000)
    except OpenAIContextOverflowError:
        return
    raise AssertionError("no error")


main()
