#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes a model of noise with experts, to compare speeds with: Qwen 3's form with 64 experts of which each token takes 6, Q4_K, about a gigabyte.

    pip install gguf
    python3 Benchmarks/peers/make_experts.py TOKENIZER.gguf OUTPUT.gguf [--layers 12] [--experts 64] [--used 6] [--seed 1]

The words are those of another file. The same seed gives the same bytes. What it writes means nothing: its numbers are as large as a model's.
"""

import argparse

import gguf
import numpy

WIDTH, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD = 1024, 16, 4, 128, 768


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("output")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--used", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random = numpy.random.default_rng(options.seed)
    writer = gguf.GGUFWriter(options.output, "qwen3moe")
    writer.add_context_length(4096)
    writer.add_block_count(options.layers)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_expert_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_expert_count(options.experts)
    writer.add_expert_used_count(options.used)
    words = gguf.GGUFReader(options.tokenizer)
    for field in words.fields.values():
        if field.name.startswith("tokenizer.ggml."):
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    vocabulary = len(words.fields["tokenizer.ggml.tokens"].data)

    def floats(name, *shape):
        writer.add_tensor(name, numpy.ones(shape, numpy.float32) if "norm" in name else random.standard_normal(shape, numpy.float32) / 32)

    def codes(name, *shape):
        """Blocks of Q4_K, weights of about 1/32 around 0: a scale and a minimum, both halves, 12 bytes of eight finer ones of each, 128 of codes."""
        blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // 256, 144), numpy.uint8)
        scale = numpy.float16(2 ** -12)
        blocks[..., 0:4] = numpy.array([scale, scale * 7.5], numpy.float16).view(numpy.uint8)
        blocks[..., 4:12], blocks[..., 12:16] = 0x5F, 0xFF  # all of them 31
        writer.add_tensor(name, blocks.reshape(*shape[:-1], -1), raw_dtype=gguf.GGMLQuantizationType.Q4_K)

    codes("token_embd.weight", vocabulary, WIDTH)
    floats("output_norm.weight", WIDTH)
    for layer in range(options.layers):
        block = f"blk.{layer}."
        floats(block + "attn_norm.weight", WIDTH)
        floats(block + "ffn_norm.weight", WIDTH)
        floats(block + "attn_q_norm.weight", HEAD_DIM)
        floats(block + "attn_k_norm.weight", HEAD_DIM)
        codes(block + "attn_q.weight", HEADS * HEAD_DIM, WIDTH)
        codes(block + "attn_k.weight", KV_HEADS * HEAD_DIM, WIDTH)
        codes(block + "attn_v.weight", KV_HEADS * HEAD_DIM, WIDTH)
        codes(block + "attn_output.weight", WIDTH, HEADS * HEAD_DIM)
        floats(block + "ffn_gate_inp.weight", options.experts, WIDTH)
        codes(block + "ffn_gate_exps.weight", options.experts, FEED_FORWARD, WIDTH)
        codes(block + "ffn_up_exps.weight", options.experts, FEED_FORWARD, WIDTH)
        codes(block + "ffn_down_exps.weight", options.experts, WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
