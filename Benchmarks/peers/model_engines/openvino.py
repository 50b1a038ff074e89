# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""OpenVINO GenAI's continuous batching: it reads GGUF files of some architectures by itself."""

import importlib.metadata

import numpy

NAME = "OpenVINO GenAI"


def available():
    """The version, or None."""
    try:
        return importlib.metadata.version("openvino-genai")
    except importlib.metadata.PackageNotFoundError:
        return None


def load(path, threads, most):
    import openvino
    import openvino_genai

    requests, tokens = most
    scheduler = openvino_genai.SchedulerConfig()
    # As many tokens in a step as Martlet's engine has, and every prompt is computed.
    scheduler.max_num_batched_tokens = max(512, requests)
    scheduler.max_num_seqs = requests
    scheduler.enable_prefix_caching = False
    # In blocks of 32 tokens, with one to spare for each request: none waits for memory.
    scheduler.num_kv_blocks = requests * (-(-tokens // 32) + 1)
    pipeline = openvino_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})

    def run(prompts, count):
        settings = openvino_genai.GenerationConfig()
        settings.max_new_tokens = count
        settings.ignore_eos = True
        settings.do_sample = False
        inputs = [openvino.Tensor(numpy.array([prompt], numpy.int64)) for prompt in prompts]
        results = pipeline.generate(inputs, [settings] * len(inputs))
        return [list(result.m_generation_ids[0]) for result in results]

    return run
