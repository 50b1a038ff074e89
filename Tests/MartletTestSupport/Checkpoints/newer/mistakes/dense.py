# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Of models without experts."""

import functools
import math

import torch

from . import attentions, layers, mistake, powers, rotate, swap_halves


# Gemma 2


@mistake("scores are not capped", "gemma2", "gemma2-9b")
def _(model, module):
    for attention in attentions(model):
        attention.attn_logit_softcapping = None


@mistake("logits are not capped", "gemma2", "gemma2-9b", "gemma3-caps")
def _(model, module):
    model.config.final_logit_softcapping = None


@mistake("scores are scaled by the head dimension", "gemma2", "gemma2-9b")
def _(model, module):
    for attention in attentions(model):
        attention.scaling = attention.head_dim ** -0.5


@mistake("norms multiply by the weight, not by 1 + weight", "gemma2", "gemma2-9b")
def _(model, module):
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data -= 1


@mistake("windows in the other layers", "gemma2", "gemma2-9b")
def _(model, module):
    other = {"full_attention": "sliding_attention", "sliding_attention": "full_attention"}
    model.config.layer_types = [other[each] for each in model.config.layer_types]


@mistake("a window sees one key more", "gemma2", "gemma2-9b", "phi3")
def _(model, module):
    model.config.sliding_window += 1


@mistake("the embedding is not scaled", "gemma2", "gemma2-9b")
def _(model, module):
    model.model.embed_tokens.embed_scale.fill_(1)


@mistake("GELU by erf, not by tanh", "gemma2", "gemma2-9b")
def _(model, module):
    for layer in layers(model):
        layer.mlp.act_fn = torch.nn.GELU()


@mistake("scores are capped", "gemma3-caps")
def _(model, module):
    yield module, "eager_attention_forward", functools.partial(module.eager_attention_forward, softcap=model.config.attn_logit_softcapping)


@mistake("RoPE of window layers in all layers", "gemma3-caps")
def _(model, module):
    model.model.rotary_emb.full_attention_inv_freq.copy_(model.model.rotary_emb.sliding_attention_inv_freq)


# Phi 3


@mistake("the first half of gate_up_proj is up", "phi3")
def _(model, module):
    for layer in layers(model):
        swap_halves(layer.mlp.gate_up_proj.weight)


@mistake("all of a head is turned", "phi3")
def _(model, module):
    rotate(model, lambda positions: positions * powers(10000, 8, 16))


@mistake("exponents divide by the head dimension", "phi3")
def _(model, module):
    rotate(model, lambda positions: positions * powers(10000, 6, 16))


def long_rope(model, name):
    rope = model.config.rope_parameters
    return powers(10000, 6, 12) / torch.tensor(rope[name], dtype=torch.double), model.model.rotary_emb.attention_scaling


@mistake("each position chooses its factors", "phi3-long")
def _(model, module):
    (short, magnitude), (long, _) = long_rope(model, "short_factor"), long_rope(model, "long_factor")
    rotate(model, lambda positions: positions * torch.where(positions < 16, short, long), magnitude)


@mistake("short factors always", "phi3-long")
def _(model, module):
    short, magnitude = long_rope(model, "short_factor")
    rotate(model, lambda positions: positions * short, magnitude)


@mistake("cos and sin are not scaled", "phi3-long")
def _(model, module):
    model.model.rotary_emb.attention_scaling = 1.0


# SmolLM 3


@mistake("no_rope_layers lists layers without rotation", "smollm3", "smollm3-window")
def _(model, module):
    for attention in attentions(model):
        attention.use_rope = not attention.use_rope


@mistake("every layer is turned", "smollm3", "smollm3-window")
def _(model, module):
    for attention in attentions(model):
        attention.use_rope = 1


@mistake("windows in the layers with rotation", "smollm3-window")
def _(model, module):
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]


@mistake("windows in every layer", "smollm3-window")
def _(model, module):
    model.config.layer_types = ["sliding_attention"] * 3


# Granite


@mistake("the attention multiplier comes on top of 1/√d", "granite")
def _(model, module):
    for attention in attentions(model):
        attention.scaling *= attention.head_dim ** -0.5


@mistake("the attention multiplier is not read", "granite")
def _(model, module):
    for attention in attentions(model):
        attention.scaling = attention.head_dim ** -0.5


@mistake("logits are multiplied by logits_scaling", "granite")
def _(model, module):
    model.config.logits_scaling = 1 / model.config.logits_scaling


@mistake("the residual multiplier is not read", "granite")
def _(model, module):
    for layer in layers(model):
        layer.residual_multiplier = 1


@mistake("the residual multiplier is read for attention alone", "granite")
def _(model, module):
    for layer in layers(model):
        layer.mlp.down_proj.weight.data /= layer.residual_multiplier


@mistake("the embedding multiplier is not read", "granite")
def _(model, module):
    model.model.embedding_multiplier = 1


# Ministral 3


@mistake("queries are not scaled", "ministral3")
def _(model, module):
    yield module, "get_llama_4_attn_scale", lambda positions, beta, original: torch.ones(1)


@mistake("queries are scaled by ⌊(position + 1)/original⌋", "ministral3")
def _(model, module):
    right = module.get_llama_4_attn_scale
    yield module, "get_llama_4_attn_scale", lambda positions, beta, original: right(positions + 1, beta, original)


@mistake("queries are scaled without ⌊⌋", "ministral3")
def _(model, module):
    yield module, "get_llama_4_attn_scale", lambda positions, beta, original: (
        1 + beta * torch.log(1 + positions / original))[:, None, :, None]


@mistake("keys are scaled too", "ministral3")
def _(model, module):
    right = module.apply_rotary_pos_emb

    def both(query, key, cos, sin):
        query, key = right(query, key, cos, sin)
        rope = model.config.rope_parameters
        positions = torch.arange(key.shape[2])[None]
        return query, key * module.get_llama_4_attn_scale(positions, rope["llama_4_scaling_beta"], rope["original_max_position_embeddings"])
    yield module, "apply_rotary_pos_emb", both


@mistake("YaRN: cos and sin × (0.1·ln f + 1), whatever the mscales", "ministral3")
def _(model, module):
    model.model.rotary_emb.attention_scaling = 0.1 * math.log(model.config.rope_parameters["factor"]) + 1


@mistake("YaRN: scores too are scaled by mscale², as in DeepSeek", "ministral3")
def _(model, module):
    rope = model.config.rope_parameters
    for attention in attentions(model):
        attention.scaling *= (0.1 * rope["mscale_all_dim"] * math.log(rope["factor"]) + 1) ** 2
