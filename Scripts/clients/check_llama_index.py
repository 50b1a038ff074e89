# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""llama-index-llms-openai, by its class for servers that are like OpenAI's where that is installed."""

from common import BASE, KEY, MODEL, expect, law, main
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI


class Served(OpenAI):
    """The client knows the context lengths of OpenAI's models only."""

    @property
    def metadata(self):
        from llama_index.core.base.llms.types import LLMMetadata

        return LLMMetadata(context_window=2048, num_output=12, is_chat_model=True, model_name=self.model)


llm = Served(model=MODEL, api_base=BASE, api_key=KEY, temperature=0, max_tokens=12, max_retries=0)
question = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Name three colours.")]


@law
def _():
    """an answer, and a stream that is it in pieces"""
    reply = llm.chat(question)
    expect(reply.message.content, reply)
    pieces = list(llm.stream_chat(question))
    expect("".join(piece.delta or "" for piece in pieces) == reply.message.content == pieces[-1].message.content, pieces[-1])


@law
def _():
    """complete"""
    expect(llm.complete("Name three colours.").text, "nothing")


main()
