# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""pydantic-ai: its chat model, and the prefix `openai:`, which is the Responses API."""

import asyncio
import os

from common import BASE, KEY, MODEL, Skip, expect, has, law, main
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"] = BASE, KEY
settings = {"temperature": 0, "max_tokens": 12}
agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE, api_key=KEY)), instructions="Be brief.", model_settings=settings)


@law
def _():
    """an answer, and one that goes on from it"""
    first = agent.run_sync("Name three colours.")
    expect(first.output and first.usage.output_tokens > 0 if not callable(first.usage) else first.usage().output_tokens > 0, first)
    second = agent.run_sync("And one more.", message_history=first.all_messages())
    expect(second.output, second)


@law
def _():
    """a stream is the answer in pieces"""

    async def run():
        async with agent.run_stream("Name three colours.") as result:
            texts = [text async for text in result.stream_text(delta=True, debounce_by=None)]
        return "".join(texts)

    whole = agent.run_sync("Name three colours.").output
    text = asyncio.run(run())
    expect(text == whole, text, whole)


@law
def _():
    """errors tell their status"""
    try:
        Agent(OpenAIChatModel("gpt-4", provider=OpenAIProvider(base_url=BASE, api_key=KEY))).run_sync("x")
    except ModelHTTPError as error:
        expect(error.status_code == 404, error)
    else:
        raise AssertionError("no error")


@law
def _():
    """the prefix openai:"""
    if not has("/v1/responses"):
        raise Skip("the server has no /v1/responses")
    result = Agent("openai:" + MODEL, model_settings=settings).run_sync("Name three colours.")
    expect(result.output, result)


main()
