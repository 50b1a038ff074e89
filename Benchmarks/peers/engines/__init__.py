# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The other engines, a module each.

A module has `NAME`; `DTYPES`, the cache types that it can time; `available()`, the version of the package, or None where it is not
installed; `supports(workload, dtype)`; and `prepare(workload, dtype, threads)`, which returns a `run` that computes the workload once and
returns a function of no arguments for its output, float32 [requests, new, query_heads, dims]. Only the call of `run` is timed: what turns
numbers into an engine's own form before, and its output back, is not.
"""

import importlib

MODULES = ("openvino", "torch", "onnxruntime", "llamacpp")


def load(name):
    """The engine's module."""
    if name not in MODULES:
        raise ValueError(f"there is no engine {name}; there are {', '.join(MODULES)}")
    return importlib.import_module(f"engines.{name}")
