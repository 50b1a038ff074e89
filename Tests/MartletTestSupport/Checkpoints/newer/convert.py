# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""A checkpoint as GGUF, by llama.cpp's own converter, which is an outside program here.

The converter knows tokenizers by a checksum, and the tiny ones are not on its list: either the vocabulary is left out, or it is told which.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

PROGRAM = """
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
if pre := sys.argv[3]:
    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
else:
    forget(conversion.base.TextModel)
sys.argv = [sys.argv[1] + "/convert_hf_to_gguf.py", sys.argv[2], *sys.argv[4:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def convert(converter, directory, kind, pre=None, arguments=()):
    """Writes `model.gguf` into the directory, from the settings as published where `config-old.json` has them.

    - kind: of matrices, as the converter calls it ("bf16", "f32").
    - pre: the converter's name for the tokenizer's pattern, where the vocabulary is converted too.
    - arguments: more for the converter.
    """
    output = directory / "model.gguf"
    output.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / directory.name
        shutil.copytree(directory, source, ignore=shutil.ignore_patterns("expected.*", "config-old.json"))
        if (directory / "config-old.json").exists():
            shutil.copy(directory / "config-old.json", source / "config.json")
        if not (source / "tokenizer.json").exists():
            # Gemma's converter counts the entries, to cut the embedding.
            size = json.loads((source / "config.json").read_text())["vocab_size"]
            vocabulary = {str(token): token for token in range(size)}
            (source / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
        command = [sys.executable, "-c", PROGRAM, str(pathlib.Path(converter).resolve().parent), str(source), pre or "",
                   "--outfile", str(output), "--outtype", kind, "--model-name", f"tiny {directory.name}", *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        output.unlink(missing_ok=True)
        print(f"{directory.name}: no GGUF: {result.stderr.strip().splitlines()[-1]}")
