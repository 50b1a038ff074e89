#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Martlet's vectors of texts and ONNX Runtime's, of one model of BERT's kind, in turns on one machine.

    pip install torch transformers onnx onnxruntime
    python3 Benchmarks/peers/embeddings.py --martlet .build/release/martlet --model DIRECTORY [--sentences 256] [--tokens 64] [--ragged]
                                           [--threads 2] [--rounds 5] [--batch 32] [--activations exact]

The model is a directory as sentence-transformers has it, with mean pooling. Both get the same token ids: random words between the two tokens
that frame a text, all of `--tokens`, or with `--ragged` of 4 up to that many. Martlet is a server that is asked over HTTP, so that its time has the
JSON of both ways in it; ONNX Runtime runs in this process on the graph that torch exports of the same float32 weights, with the batches of the size that
is given, sorted by length and padded as sentence-transformers does. A round runs each once; the first is not counted. Prints medians, and the
least cosine of a text's two vectors.
"""

import argparse
import base64
import json
import pathlib
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request

import numpy as np


class Martlet:
    def __init__(self, options):
        command = [options.martlet, "serve", options.model, "--port", "0", "--threads", str(options.threads), "--step-tokens", str(options.step_tokens),
                   "--activations", options.activations]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = None
        for line in self.process.stderr:
            found = re.search(r"Ready: (http://\S+)", line)
            if found:
                self.address = found[1].rstrip(".")
                break
        if not self.address:
            raise SystemExit("martlet serve has ended")

    def vectors(self, texts):
        body = json.dumps({"input": texts, "encoding_format": "base64"}).encode()
        request = urllib.request.Request(self.address + "/v1/embeddings", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            data = json.load(reply)["data"]
        return np.stack([np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in data])

    def close(self):
        self.process.terminate()
        self.process.wait()


class ONNXRuntime:
    def __init__(self, options, folder):
        import onnxruntime
        import torch
        import transformers

        model = transformers.AutoModel.from_pretrained(options.model, attn_implementation="eager").eval()

        class Encoder(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, input_ids, attention_mask):
                return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

        path = str(pathlib.Path(folder) / "model.onnx")
        ids = torch.ones((2, 8), dtype=torch.int64)
        axes = {"input_ids": {0: "batch", 1: "tokens"}, "attention_mask": {0: "batch", 1: "tokens"}, "states": {0: "batch", 1: "tokens"}}
        torch.onnx.export(Encoder(), (ids, ids), path, input_names=["input_ids", "attention_mask"], output_names=["states"], dynamic_axes=axes,
                          dynamo=False)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.batch = options.batch

    def vectors(self, texts):
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        vectors = [None] * len(texts)
        for start in range(0, len(order), self.batch):
            places = order[start:start + self.batch]
            width = max(len(texts[place]) for place in places)
            ids = np.zeros((len(places), width), np.int64)
            mask = np.zeros((len(places), width), np.int64)
            for row, place in enumerate(places):
                ids[row, :len(texts[place])] = texts[place]
                mask[row, :len(texts[place])] = 1
            states = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for row, place in enumerate(places):
                vectors[place] = pooled[row]
        return np.stack(vectors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--martlet", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--ragged", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--step-tokens", type=int, default=512)
    parser.add_argument("--activations", default="exact", help="how Martlet rounds rows that are multiplied with weights")
    options = parser.parse_args()

    random = np.random.default_rng(1)
    lengths = random.integers(4, options.tokens + 1, options.sentences) if options.ragged else [options.tokens] * options.sentences
    # Ids of words, as vocabularies of BERT's kind have them: 101 and 102 frame a text.
    texts = [[101, *random.integers(2000, 28000, length - 2).tolist(), 102] for length in lengths]
    tokens = sum(map(len, texts))
    with tempfile.TemporaryDirectory() as folder:
        engines = {"martlet": Martlet(options), "onnxruntime": ONNXRuntime(options, folder)}
        try:
            times, vectors = {name: [] for name in engines}, {}
            for count in range(options.rounds + 1):
                for name, engine in engines.items():
                    start = time.perf_counter()
                    vectors[name] = engine.vectors(texts)
                    if count:
                        times[name].append(time.perf_counter() - start)
        finally:
            engines["martlet"].close()
    print(f"{len(texts)} texts, {tokens} tokens, {options.threads} threads, {options.rounds} rounds")
    for name, each in times.items():
        median = statistics.median(each)
        print(f"{name:12} {median:7.3f} s  ({min(each):.3f} to {max(each):.3f})  {tokens / median:8.0f} tokens/s")
    print(f"martlet is {statistics.median(times['onnxruntime']) / statistics.median(times['martlet']):.2f} times as fast")
    print(f"least cosine {float((vectors['martlet'] * vectors['onnxruntime']).sum(1).min()):.7f}")


main()
