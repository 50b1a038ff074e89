# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""What is timed: one attention layer over some requests, in the words of `martlet bench attention`.

`32,8,128:8*1@4095` is 32 query heads on 8 key/value heads of 128 dims, and 8 requests with one new token each after 4095 cached ones;
`32,8,128:2048@0` is one prompt of 2048 tokens. A new token sees the cached tokens, the new ones before it, and itself.
"""

import dataclasses
import functools
import re

import numpy

PATTERN = re.compile(r"(\d+),(\d+),(\d+):(?:(\d+)\*)?(\d+)@(\d+)")

# Requests with keys and values of their own; the fifth has those of the first again, so that long caches are made in seconds.
DISTINCT = 4

# Bytes of one cached number. The scales of 8-bit caches are left out, as engines lay them out differently.
BYTES = {"f32": 4, "bf16": 2, "int8": 1}

# By how much an output may differ from float64 in parts of the largest output: float32 sums; bf16 inputs and probabilities of 8 bits;
# an 8-bit cache, whose steps are a 255th of the range of the numbers that share a scale.
TOLERANCE = {"f32": 1e-4, "bf16": 2e-2, "int8": 5e-2}


@dataclasses.dataclass(frozen=True)
class Workload:
    """Equal requests on one layer."""

    text: str
    query_heads: int
    kv_heads: int
    dims: int
    requests: int
    new: int
    cached: int

    @property
    def tokens(self):
        """Tokens of one request after the run: cached and new ones."""
        return self.cached + self.new

    @property
    def flops(self):
        """Operations: 4 · heads · dims for each query and key that it sees."""
        seen = self.new * self.cached + self.new * (self.new + 1) // 2
        return 4 * self.query_heads * self.dims * seen * self.requests

    def cache_bytes(self, dtype):
        """Bytes of all keys and values, each once."""
        return 2 * self.kv_heads * self.dims * self.tokens * self.requests * BYTES[dtype]


def parse(text):
    """The workload that `text` names. Chunked prompts and mixed steps are for Martlet alone: raises ValueError."""
    match = PATTERN.fullmatch(text)
    if not match:
        raise ValueError(f"{text} is no workload like 32,8,128:2048@0 or 32,8,128:8*1@4095")
    query_heads, kv_heads, dims, requests, new, cached = (int(group or 1) for group in match.groups())
    if not (kv_heads and dims and requests and new and query_heads >= kv_heads and query_heads % kv_heads == 0):
        raise ValueError(f"{text}: {query_heads} query heads do not share {kv_heads} key/value heads evenly, or a count is 0")
    return Workload(text, query_heads, kv_heads, dims, requests, new, cached)


def queries(workload, seed=1):
    """float32 [requests, new, query_heads, dims], normally distributed."""
    shape = (workload.requests, workload.new, workload.query_heads, workload.dims)
    return numpy.random.default_rng(seed).standard_normal(shape, dtype=numpy.float32)


def keys_and_values(workload, request):
    """One request's keys and values, float32 [tokens, kv_heads, dims] each, to read only; one request's, as all may fill the memory."""
    return _distinct_keys_and_values(workload, request % DISTINCT)


def forget():
    """Frees the keys and values that are kept between calls."""
    _distinct_keys_and_values.cache_clear()


@functools.lru_cache(maxsize=DISTINCT)
def _distinct_keys_and_values(workload, index, seed=2):
    generator = numpy.random.default_rng([seed, index])
    shape = (workload.tokens, workload.kv_heads, workload.dims)
    return generator.standard_normal(shape, dtype=numpy.float32), generator.standard_normal(shape, dtype=numpy.float32)


def expected(workload):
    """The outputs in float64 by the formula, [requests, new, query_heads, dims]; for small workloads."""
    q = queries(workload).astype(numpy.float64)
    output = numpy.empty_like(q)
    group = workload.query_heads // workload.kv_heads
    sees = numpy.arange(workload.tokens) <= workload.cached + numpy.arange(workload.new)[:, None]  # [new, tokens]
    for request in range(workload.requests):
        keys, values = (x.astype(numpy.float64) for x in keys_and_values(workload, request))
        for head in range(workload.query_heads):
            scores = q[request, :, head] @ keys[:, head // group].T / numpy.sqrt(workload.dims)
            scores = numpy.where(sees, scores, -numpy.inf)
            weights = numpy.exp(scores - scores.max(axis=1, keepdims=True))
            output[request, :, head] = weights / weights.sum(axis=1, keepdims=True) @ values[:, head // group]
    return output


def bfloat16_bits(x):
    """float32 rounded to the nearest bf16, ties to even: uint16 of the same shape."""
    bits = numpy.ascontiguousarray(x, dtype=numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def bfloat16_values(bits):
    """The float32 values of bf16 in uint16."""
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)
