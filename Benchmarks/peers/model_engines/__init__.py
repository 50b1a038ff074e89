# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The other engines that run whole models from GGUF files.

An engine is a module with `NAME`, `available()`, which is its version or None, and `load(path, threads, most)`: a loaded model as a function
`run(prompts, count)`, which reads prompts (lists of token ids) that come at the same time, generates `count` tokens for each, end tokens or
not, and returns when it has them all. `most` says what that may be: requests at once, and tokens of one. `load` raises where it cannot read the
model.
"""

import importlib

MODULES = ["openvino", "llamacpp", "onnxruntime"]


def load(name):
    """The module of an engine."""
    return importlib.import_module(f"model_engines.{name}")
