#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes the tiny checkpoints of newer models, and what Transformers computes with them.

    pip install torch transformers tokenizers accelerate gguf compressed-tensors
    python3 make_newer.py [--converter convert_hf_to_gguf.py] [NAME…]
    python3 make_newer.py --mistakes [NAME…]

The files are those of `make_checkpoints.py`. Truth is float64 throughout (`newer/truth.py` tells how), written in float32. `model.gguf` comes
from llama.cpp's converter, which is run from where the argument says. With `--mistakes` nothing is written: each checkpoint is computed once
more with one formula read the obvious way, and the greatest change of a log-probability says whether the checkpoint can tell it (of an
embedding's element, where the answer is a vector), for each prompt. accelerate is what Transformers asks for to expand MXFP4.

Made with torch 2.13.0 (the build for CPUs alone), transformers 5.24.0, tokenizers 0.23.3, safetensors 0.8.0, gguf 0.19.0,
compressed-tensors 0.20.1 and llama.cpp b11434. A torch with
CUDA cannot be imported without CUDA's libraries.
"""

import argparse
import os
import sys

sys.dont_write_bytecode = True
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from newer import checkpoints, encoders, fp8, mistakes, nvfp4, places  # which register their checkpoints


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--converter")
    parser.add_argument("--mistakes", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    names = arguments.names or list(checkpoints.ALL)
    for name in names:
        if arguments.mistakes:
            mistakes.measure(name)
        else:
            checkpoints.make(name, arguments.converter)


main()
