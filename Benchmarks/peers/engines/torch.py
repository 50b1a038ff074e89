# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""PyTorch's scaled_dot_product_attention over tensors that lie densely: no pages, and nothing is appended in the timed part.

Every workload is timed in the fastest of the forms in which it can be written; the trial is before the timing.
"""

import importlib.metadata
import os
import time

import numpy

import workload as workloads

NAME = "PyTorch SDPA"
DTYPES = ("bf16", "f32")


def available():
    """The version, or None."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def supports(workload, dtype):
    """Prompts from the first token, and generation of one token: is_causal has no offset."""
    return dtype in DTYPES and (workload.new == 1 or workload.cached == 0)


def _tensors(workload, dtype):
    """Queries [requests, query_heads, new, dims], keys and values [requests, kv_heads, tokens, dims]."""
    import torch

    kind = torch.float32 if dtype == "f32" else torch.bfloat16
    shape = (workload.requests, workload.kv_heads, workload.tokens, workload.dims)
    keys, values = torch.empty(shape, dtype=kind), torch.empty(shape, dtype=kind)
    for request in range(workload.requests):
        for tensor, x in zip((keys, values), workloads.keys_and_values(workload, request)):
            tensor[request] = torch.from_numpy(x.transpose(1, 0, 2))
    q = torch.from_numpy(workloads.queries(workload).transpose(0, 2, 1, 3)).to(kind).contiguous()
    return q, keys, values


def _prompt_forms(workload, q, keys, values):
    """Heads shared by PyTorch, or keys and values repeated for every query head (before the timing)."""
    from torch.nn.functional import scaled_dot_product_attention as attention

    group = workload.query_heads // workload.kv_heads
    all_keys, all_values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
    return [
        lambda: attention(q, keys, values, is_causal=True, enable_gqa=True),
        lambda: attention(q, all_keys, all_values, is_causal=True),
    ]


def _generation_forms(workload, q, keys, values):
    """The query heads of a key/value head as if they were its queries: by one call, or by two products and a softmax."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    group = workload.query_heads // workload.kv_heads
    folded = q.reshape(workload.requests, workload.kv_heads, group, workload.dims)

    def products():
        scores = torch.matmul(folded, keys.transpose(2, 3)) * workload.dims**-0.5
        return torch.matmul(torch.softmax(scores, dim=-1), values)

    return [
        lambda: attention(folded, keys, values).reshape(q.shape),
        lambda: products().reshape(q.shape),
        lambda: attention(q, keys, values, enable_gqa=True),
    ]


def prepare(workload, dtype, threads):
    """Makes the tensors, in huge pages, and picks the fastest form: the best of two runs after a first."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read at the first allocation
    import torch

    torch.set_num_threads(threads)
    forms = (_prompt_forms if workload.new > 1 else _generation_forms)(workload, *_tensors(workload, dtype))

    def seconds(form):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            form()
            times.append(time.perf_counter() - start)
        return min(times[1:])

    with torch.inference_mode():
        best = min(forms, key=seconds)

    def run():
        with torch.inference_mode():
            result = best()
        return lambda: numpy.ascontiguousarray(result.float().numpy().transpose(0, 2, 1, 3))

    return run
