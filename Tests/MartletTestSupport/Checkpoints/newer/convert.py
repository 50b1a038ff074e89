# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""A checkpoint as GGUF, by llama.cpp's own converter, which is an outside program here.

Only the vocabulary is left out: the converter knows tokenizers by a checksum, and the tiny ones are not on its list.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

WITHOUT_VOCABULARY = """
import json, runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
sys.dont_write_bytecode = True
import conversion, conversion.base
architecture = json.load(open(sys.argv[2] + "/config.json"))["architectures"][0]
conversion.get_model_class(architecture)
def forget(kind):
    kind.set_vocab = lambda self: self._set_vocab_none()
    for child in kind.__subclasses__():
        forget(child)
forget(conversion.base.TextModel)
sys.argv = [sys.argv[1] + "/convert_hf_to_gguf.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def convert(converter, directory, kind, output="model.gguf", options=()):
    """Writes `model.gguf` into the directory, matrices in the type `kind` of the converter ("bf16", "f16", "f32"); says whether it could."""
    (directory / output).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / directory.name
        source.mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copy(directory / file, source)
        # Gemma's converter counts the entries, to cut the embedding.
        size = json.loads((source / "config.json").read_text())["vocab_size"]
        vocabulary = {str(token): token for token in range(size)}
        (source / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
        command = [sys.executable, "-c", WITHOUT_VOCABULARY, str(pathlib.Path(converter).resolve().parent), str(source),
                   "--outfile", str(directory / output), "--outtype", kind, "--model-name", f"tiny {directory.name}", *options]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        (directory / output).unlink(missing_ok=True)
        print(f"{directory.name}: no GGUF: {result.stderr.strip().splitlines()[-1]}")
    return result.returncode == 0
