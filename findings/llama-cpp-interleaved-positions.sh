#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# llama.cpp as xllamacpp 2026.10.11549 has it, models of the architecture `qwen3vl`.
#
# Such a model turns each pair of a head by a token's position in time, height or width, and a token of a text has the same position on all three:
# whatever the sections, a text must be what it is with plain rotation (`qwen3`, with the same weights). With the sections that Qwen3-VL publishes,
# 24, 20 and 20 of 64 pairs, it is not: axes take turns, and of the last four pairs, which height and width leave over, only every third
# is time's. Pairs 61 and 62 go to a fourth axis, which is 0 for every token of a text: they do not turn at all. Transformers gives all that is left
# over to time. The frequencies of those pairs are low, so that nothing looks wrong; here the base is low, so that it shows.
#
# Seen, the log-probability of the likeliest token after a text of 64 tokens:
#   plain rotation:        -3.0111
#   sections 24, 20, 20:   -3.1881
#   sections 24, 21, 21:   -3.0111   (nothing is left over that is not time's)
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

HEADS, DIMS, WIDTH, TOKENS = 2, 128, 64, 300


def write(path, architecture, sections=None):
    """One layer of seeded weights."""
    random = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(DIMS)
    writer.add_value_length(DIMS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10.0)
    if sections:
        writer.add_rope_dimension_sections(sections)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"<{token}>" for token in range(TOKENS)])
    writer.add_token_types([gguf.TokenType.NORMAL] * TOKENS)
    writer.add_token_merges(["< 0"])
    writer.add_add_bos_token(False)

    def matrix(name, rows, columns):
        writer.add_tensor(name, (random.standard_normal((rows, columns)) / columns ** 0.5).astype(numpy.float32))

    for name, count in [("output_norm", WIDTH), ("blk.0.attn_norm", WIDTH), ("blk.0.ffn_norm", WIDTH), ("blk.0.attn_q_norm", DIMS),
                        ("blk.0.attn_k_norm", DIMS)]:
        writer.add_tensor(f"{name}.weight", numpy.ones(count, numpy.float32))
    for name, rows, columns in [("token_embd", TOKENS, WIDTH), ("blk.0.attn_q", HEADS * DIMS, WIDTH), ("blk.0.attn_k", HEADS * DIMS, WIDTH),
                                ("blk.0.attn_v", HEADS * DIMS, WIDTH), ("blk.0.attn_output", WIDTH, HEADS * DIMS),
                                ("blk.0.ffn_gate", WIDTH, WIDTH), ("blk.0.ffn_up", WIDTH, WIDTH), ("blk.0.ffn_down", WIDTH, WIDTH)]:
        matrix(f"{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def likeliest(architecture, sections=None):
    write("model.gguf", architecture, sections)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = "model.gguf"
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 512, 1, 1
    answer = xllamacpp.Server(parameters).handle_completions(
        {"prompt": list(range(1, 65)), "max_tokens": 1, "logprobs": 1, "temperature": 0})
    answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
    return answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"]


plain = likeliest("qwen3")
published, whole = (likeliest("qwen3vl", sections) for sections in ([24, 20, 20, 0], [24, 21, 21, 0]))
print(f"plain rotation:        {plain:.4f}\nsections 24, 20, 20:   {published:.4f}\nsections 24, 21, 21:   {whole:.4f}")
assert abs(whole - plain) < 1e-3, f"sections without a rest are not plain rotation: {whole} and {plain}"
assert abs(published - plain) > 0.05, f"a text is what it is with plain rotation: {published} and {plain}"
PYTHON
