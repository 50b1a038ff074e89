#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# llama.cpp as xllamacpp 2026.10.11549 has it, feed-forward matrices in NVFP4.
#
# NVFP4 has a scale for each 16 values and a factor for the whole matrix. In GGUF the factor is a tensor of its own, `blk.N.ffn_up.scale` beside
# `blk.N.ffn_up.weight`. The files load, and only some architectures multiply by it: a Llama's answer follows the factors, and those of Granite and
# SmolLM3 are the same whatever they are. There is no message, so that whoever checks a converter with a Llama sees nothing.
#
# Seen, the log-probability of the likeliest token after a text of 64 tokens, with factors of 1 and of 0.5 on the same codes:
#   llama:   -3.3072 -2.9110
#   granite: -3.3072 -3.3072
#   smollm3: -3.3072 -3.3072
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --only-binary :all: xllamacpp==2026.10.11549 gguf==0.19.0 numpy
venv/bin/python - 2> log.txt <<'PYTHON'
import json
import gguf
import numpy
import xllamacpp

HEADS, DIMS, WIDTH, TOKENS = 2, 32, 64, 300


def write(path, architecture, factor):
    """One layer of seeded weights; the feed-forward's are NVFP4 with a factor each, as llama.cpp's converter writes them."""
    random = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_vocab_size(TOKENS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(DIMS)
    if architecture == "granite":
        for add in (writer.add_logit_scale, writer.add_residual_scale, writer.add_embedding_scale):
            add(1.0)
        writer.add_attention_scale(DIMS ** -0.5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"<{token}>" for token in range(TOKENS)])
    writer.add_token_types([gguf.TokenType.NORMAL] * TOKENS)
    writer.add_token_merges(["< 0"])
    writer.add_add_bos_token(False)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", numpy.ones(WIDTH, numpy.float32))
    for name, rows in [("token_embd", TOKENS), ("output", TOKENS), *((f"blk.0.attn_{part}", WIDTH) for part in ("q", "k", "v", "output"))]:
        writer.add_tensor(f"{name}.weight", (random.standard_normal((rows, WIDTH)) / 8).astype(numpy.float32))
    for part in ("up", "gate", "down"):
        # A block: four scales of 16 values, 2⁻⁴ each, and 64 codes of four bits.
        blocks = numpy.concatenate([numpy.full((WIDTH, 4), 0x18, numpy.uint8), random.integers(0, 256, (WIDTH, 32), numpy.uint8)], 1)
        writer.add_tensor(f"blk.0.ffn_{part}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.NVFP4)
        writer.add_tensor(f"blk.0.ffn_{part}.scale", numpy.array([factor], numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def likeliest(architecture, factor):
    write("model.gguf", architecture, factor)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = "model.gguf"
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 512, 1, 1
    answer = xllamacpp.Server(parameters).handle_completions(
        {"prompt": list(range(1, 65)), "max_tokens": 1, "logprobs": 1, "temperature": 0})
    answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
    return answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"]


for architecture, follows in [("llama", True), ("granite", False), ("smollm3", False)]:
    whole, half = (likeliest(architecture, factor) for factor in (1.0, 0.5))
    print(f"{architecture + ':':9}{whole:.4f} {half:.4f}")
    assert (abs(whole - half) > 0.1) == follows, f"{architecture}: factors of 1 and 0.5 give {whole} and {half}"
PYTHON
