# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""onnxruntime-genai: the generator of a model that `make_onnx_model.py` made of the GGUF file, in the folder beside it."""

import importlib.metadata
import json
import pathlib

import numpy

NAME = "onnxruntime-genai"


def available():
    """The version, or None."""
    try:
        return importlib.metadata.version("onnxruntime-genai")
    except importlib.metadata.PackageNotFoundError:
        return None


def folder(path):
    """Where the model of a GGUF file is."""
    return pathlib.Path(path).with_suffix(".onnx-int4")


def load(path, threads, most):
    import onnxruntime_genai

    if not (folder(path) / "genai_config.json").exists():
        raise RuntimeError(f"{folder(path)} is not there: Benchmarks/peers/make_onnx_model.py {path} makes it")
    config = onnxruntime_genai.Config(str(folder(path)))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model = onnxruntime_genai.Model(config)

    def run(prompts, count):
        # Prompts of one length are a batch, which it reads whole.
        length = len(prompts[0])
        settings = onnxruntime_genai.GeneratorParams(model)
        # As long as this no end token is taken.
        settings.set_search_options(batch_size=len(prompts), max_length=length + count, min_length=length + count, do_sample=False)
        generator = onnxruntime_genai.Generator(model, settings)
        generator.append_tokens(numpy.array(prompts, numpy.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return [list(generator.get_sequence(index)[length:]) for index in range(len(prompts))]

    return run
