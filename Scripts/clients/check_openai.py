# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""OpenAI's client for Python."""

import asyncio
import socket
import threading
import time
from typing import Literal
from urllib.parse import urlsplit

import openai
import pydantic
from common import BASE, KEY, MODEL, URL, Skip, expect, has, law, main

client = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0, timeout=120)
messages = [{"role": "user", "content": "Name three colours."}]
fixed = dict(model=MODEL, messages=messages, max_tokens=12, temperature=0)


@law
def _():
    """a reply"""
    raw = client.chat.completions.with_raw_response.create(**fixed)
    reply = raw.parse()
    expect(reply.choices[0].message.content and reply.choices[0].finish_reason in ("stop", "length"), reply)
    expect(reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens, reply.usage)
    expect(reply._request_id and reply._request_id == raw.headers["x-request-id"], "no request id")
    expect(reply.choices[0].message.tool_calls is None and reply.choices[0].message.refusal is None, reply)


@law
def _():
    """a stream is the reply in pieces"""
    whole = client.chat.completions.create(**fixed).choices[0].message.content
    text, usage, roles = "", [], 0
    for chunk in client.chat.completions.create(**fixed, stream=True, stream_options={"include_usage": True}):
        if chunk.usage:
            usage.append(chunk.usage)
        for choice in chunk.choices:
            text += choice.delta.content or ""
            roles += choice.delta.role is not None
    expect(text == whole, text, whole)
    expect(roles == 1 and len(usage) == 1 and usage[0].completion_tokens == 12, roles, usage)


@law
def _():
    """the stream helper with two answers and log-probabilities"""
    # The helper raises where an answer is cut off, so these end by themselves.
    varied = dict(fixed, temperature=1, seed=7, n=2, logprobs=True, top_logprobs=2, max_tokens=300, stop=["e"])
    with client.chat.completions.stream(**varied, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    whole = client.chat.completions.create(**varied)
    expect({"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= kinds, kinds)
    for index in range(2):
        left, right = final.choices[index], whole.choices[index]
        expect(left.message.content == right.message.content and left.message.role == "assistant", left, right)
        expect([t.logprob for t in left.logprobs.content] == [t.logprob for t in right.logprobs.content], "log-probabilities differ")
    expect(final.usage and final.usage.total_tokens == whole.usage.total_tokens, final.usage, whole.usage)


@law
def _():
    """log-probabilities"""
    reply = client.chat.completions.create(**fixed, logprobs=True, top_logprobs=3)
    tokens = reply.choices[0].logprobs.content
    expect(b"".join(bytes(token.bytes) for token in tokens).decode() == reply.choices[0].message.content, "the tokens' bytes are not the text")
    for token in tokens:
        expect(len(token.top_logprobs) == 3 and token.logprob == token.top_logprobs[0].logprob <= 0, "greedy takes the most probable:", token)
    expect(client.chat.completions.create(**fixed, logprobs=True).choices[0].logprobs.content[0].top_logprobs == [], "top_logprobs without a word")


@law
def _():
    """the same seed gives the same answer, and the seed that was drawn is told"""
    varied = dict(fixed, temperature=1.5)
    first = client.chat.completions.create(**varied)
    again = client.chat.completions.create(**varied, seed=first.seed)
    expect(first.choices[0].message.content == again.choices[0].message.content, first, again)


@law
def _():
    """the parts of messages"""
    reply = client.chat.completions.create(
        model=MODEL, max_completion_tokens=1, messages=[
            {"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])
    expect(reply.usage.completion_tokens == 1, reply)


@law
def _():
    """models, one by its name with a slash"""
    names = [model.id for model in client.models.list()]
    expect(MODEL in names and "/" in MODEL, names)
    model = client.models.retrieve(MODEL)
    expect(model.id == MODEL and model.object == "model" and model.owned_by, model)
    try:
        client.models.retrieve("org/none")
    except openai.NotFoundError as error:
        expect(error.code == "model_not_found", error)
    else:
        raise AssertionError("no error")


@law
def _():
    """completions: echo, log-probabilities, several prompts, a stream"""
    prompt = "The quick brown fox"
    reply = client.completions.create(model=MODEL, prompt=prompt, max_tokens=4, temperature=0, echo=True, logprobs=1)
    choice = reply.choices[0]
    expect(choice.text.startswith(prompt) and "".join(choice.logprobs.tokens) == choice.text, choice)
    expect(choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None, choice.logprobs)
    expect(choice.logprobs.text_offset[0] == 0, choice.logprobs)
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset):
        expect(choice.text[offset:].startswith(token), offset, token)
    scored = client.completions.create(model=MODEL, prompt=prompt, max_tokens=0, temperature=0, echo=True, logprobs=1).choices[0]
    expect(scored.text == prompt and scored.logprobs.token_logprobs == choice.logprobs.token_logprobs[: len(scored.logprobs.tokens)], scored)
    both = client.completions.create(model=MODEL, prompt=[prompt, "One, two,"], max_tokens=4, temperature=0)
    expect(prompt + both.choices[0].text == choice.text and [c.index for c in both.choices] == [0, 1], both)
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(model=MODEL, prompt=prompt, max_tokens=4, temperature=0, stream=True))
    expect(prompt + text == choice.text, text)


def error_of(kind, call):
    try:
        call()
    except kind as error:
        expect(type(error) is kind, type(error))
        expect(error.request_id, "no request id")
        return error
    raise AssertionError(f"no {kind.__name__}")


@law
def _():
    """errors have the client's classes"""
    error = error_of(openai.NotFoundError, lambda: client.chat.completions.create(**dict(fixed, model="gpt-4")))
    expect(error.code == "model_not_found" and error.param == "model" and error.type, error.body)
    error = error_of(openai.BadRequestError, lambda: client.chat.completions.create(**dict(fixed, temperature=-1)))
    expect(error.param == "temperature" and "temperature" in str(error), error.body)
    long = [{"role": "user", "content": "word " * 20000}]
    for stream in (False, True):
        error = error_of(openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=long, stream=stream))
        expect(error.code == "context_length_exceeded" and "maximum context length" in str(error), error.body)
    for key in ("wrong", KEY + "x"):
        error = error_of(openai.AuthenticationError, lambda: openai.OpenAI(base_url=BASE, api_key=key, max_retries=0).models.list())
        expect(error.code == "invalid_api_key", error.body)
    error_of(openai.NotFoundError, lambda: client.moderations.create(input="x"))


@law
def _():
    """an answer has the form that is asked for, also by the helpers for pydantic's models"""

    class City(pydantic.BaseModel):
        name: Literal["Paris", "Rome"]
        capital: bool

    longer = dict(fixed, max_tokens=60)
    reply = client.chat.completions.parse(**longer, response_format=City)
    expect(isinstance(reply.choices[0].message.parsed, City) and reply.choices[0].finish_reason == "stop", reply)
    if has("/v1/responses"):
        answer = client.responses.parse(model=MODEL, input="Name a city.", max_output_tokens=60, temperature=0, text_format=City)
        expect(isinstance(answer.output_parsed, City), answer)
    for body, texts in [({"choice": ["red", "blue"]}, ("red", "blue")), ({"regex": "a{3}"}, ("aaa",))]:
        reply = client.chat.completions.create(**longer, extra_body={"structured_outputs": body})
        expect(reply.choices[0].message.content in texts, reply)
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "rhyme"}}}
    wrong = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    error = error_of(openai.BadRequestError, lambda: client.chat.completions.create(**longer, response_format=wrong))
    expect(error.code == "invalid_form" and error.param == "response_format.json_schema.schema" and "#/properties/a/format" in str(error), error.body)


@law
def _():
    """what would change the answer, and cannot be done, is refused"""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for extra in [dict(tools=[tool], tool_choice="required"), dict(response_format={"type": "json_object"})]:
        try:
            reply = client.chat.completions.create(**fixed, **extra)
            # Where it can be done it must have been.
            expect(reply.choices[0].message.tool_calls or reply.choices[0].message.content.lstrip().startswith("{"), reply)
        except openai.BadRequestError as error:
            expect(error.code, error.body)


@law
def _():
    """a stream whose reader closes at [DONE], and the requests after it from the same pool"""
    with count_connections() as proxy:
        mine = openai.OpenAI(base_url=proxy.base, api_key=KEY, max_retries=0)
        for _ in range(20):
            for chunk in mine.chat.completions.create(**dict(fixed, max_tokens=2), stream=True):
                pass
        # The client, 3.57, breaks off at [DONE] without reading the end of the body, and so opens a connection for each stream, whatever the server does.
        expect(proxy.count <= 20, "20 streams took", proxy.count, "connections")
        for _ in range(5):
            mine.chat.completions.create(**dict(fixed, max_tokens=2))
        expect(proxy.count <= 21, "5 requests after 20 streams took", proxy.count, "connections")


@law
def _():
    """the asynchronous client: 20 streams at once, and a hundred after each other over one connection"""

    async def run():
        with count_connections() as proxy:
            async with openai.AsyncOpenAI(base_url=proxy.base, api_key=KEY, max_retries=0) as mine:

                async def one():
                    text = ""
                    async for chunk in await mine.chat.completions.create(**fixed, stream=True):
                        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
                    return text

                texts = await asyncio.gather(*[one() for _ in range(20)])
                expect(len(set(texts)) == 1 and texts[0], set(texts))
                before = proxy.count
                for _ in range(100):
                    async for _ in await mine.chat.completions.create(**dict(fixed, max_tokens=1), stream=True):
                        pass
                expect(proxy.count == before, "100 streams opened", proxy.count - before, "connections")

    asyncio.run(run())


@law
def _():
    """a stream that is closed early, and the request after it"""
    for _ in range(5):
        stream = client.chat.completions.create(**dict(fixed, max_tokens=4000), stream=True)
        next(iter(stream))
        stream.close()
    began = time.monotonic()
    client.chat.completions.create(**dict(fixed, max_tokens=1))
    expect(time.monotonic() - began < 20, "it took", time.monotonic() - began, "s")


@law
def _():
    """the Responses API"""
    if not has("/v1/responses"):
        raise Skip("the server has no /v1/responses")
    reply = client.responses.create(model=MODEL, input="Name three colours.", max_output_tokens=16, temperature=0, instructions="Be brief.")
    expect(reply.output_text and reply.object == "response" and reply.usage.output_tokens > 0, reply)
    with client.responses.stream(model=MODEL, input="Name three colours.", max_output_tokens=16, temperature=0, instructions="Be brief.") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    expect(kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds)
    expect(final.output_text == reply.output_text, final.output_text, reply.output_text)
    error_of(openai.BadRequestError, lambda: client.responses.create(model=MODEL, input="x", previous_response_id="resp_1"))
    error_of(openai.NotFoundError, lambda: client.responses.create(model="gpt-4", input="x"))


class count_connections:
    """A relay that counts the connections that are opened to the server."""

    def __enter__(self):
        self.count = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        parts = urlsplit(URL)
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            far = socket.create_connection((parts.hostname, parts.port))
            for source, target in [(near, far), (far, near)]:
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.relay, args=(source, target), daemon=True).start()

    @staticmethod
    def relay(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


main()
