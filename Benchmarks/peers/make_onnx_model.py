#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Makes the models that onnxruntime-genai runs in models.py, of GGUF files and beside them.

    pip install onnxruntime onnxruntime-genai onnx onnx_ir torch transformers accelerate gguf
    Benchmarks/peers/make_onnx_model.py MODEL.gguf…

Transformers reads the file as floats, and onnxruntime-genai's own builder rounds them again: weights to int4 in blocks of 32 with inputs of products in int8,
which is what it offers for processors. So these are not the file's codes, and not its answers: speeds can be compared, the models cannot. For MODEL.gguf a folder
MODEL.onnx-int4 is made; one that is there is left as it is.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from model_engines import onnxruntime


def write_checkpoint(path, folder):
    """The file as transformers has it, in float32."""
    import torch
    import transformers

    place = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    model = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    # It calls weights that came from such a file quantised, which they are no more.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description="Makes models for onnxruntime-genai of GGUF files.")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    for path in parser.parse_args().models:
        target = onnxruntime.folder(path)
        if target.exists():
            print(f"{target} is there")
            continue
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            write_checkpoint(path.resolve(), folder + "/checkpoint")
            subprocess.run(
                [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", folder + "/checkpoint", "-o", folder + "/model",
                 "-c", folder + "/cache", "-p", "int4", "-e", "cpu", "--extra_options", "accuracy_level=4", "hf_token=false"], check=True)
            # Only what is whole appears under its name.
            pathlib.Path(folder + "/model").rename(target)


if __name__ == "__main__":
    main()
