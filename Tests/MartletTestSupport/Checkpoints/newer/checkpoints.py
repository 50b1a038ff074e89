# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The checkpoints: a function each, in small and odd sizes, with every switch of its architecture somewhere."""

import torch
import transformers

from . import convert, truth

ALL = {}


def checkpoint(gguf=None):
    """Registers a function that writes the checkpoint of its name; `gguf`: the type of matrices for llama.cpp's converter."""
    def register(function):
        ALL[function.__name__.replace("_", "-")] = (function, gguf)
        return function
    return register


def make(name, converter):
    function, kind = ALL[name]
    directory = function(name)
    if kind and converter:
        convert.convert(converter, directory, kind)


SIZES = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             max_position_embeddings=64, vocab_size=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)



def plain_theta(config, rope):
    config["rope_theta"] = rope["rope_theta"]


@checkpoint(gguf="bf16")
def gemma2(name):
    """Caps low enough to bend scores and logits; windows on layers 0 and 2; 1/√24 instead of 1/√16."""
    config = transformers.Gemma2Config(**dict(SIZES, num_hidden_layers=3, hidden_size=40), sliding_window=7, query_pre_attn_scalar=24,
                                       attn_logit_softcapping=2.5, final_logit_softcapping=3.5, rms_norm_eps=1e-5,
                                       rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    directory = truth.make(name, config, torch.bfloat16, norms_add_one=True, gain={"embed": 3})

    def old(config, rope):
        plain_theta(config, rope)
        config.pop("layer_types")
    truth.write_old_config(directory, old)
    return directory


def phi_config(rope, **changes):
    sizes = dict(SIZES, hidden_size=64, intermediate_size=72, **changes)
    sizes.pop("head_dim")
    return transformers.Phi3Config(**sizes, tie_word_embeddings=False, rope_parameters={"rope_theta": 10000.0, **rope})


@checkpoint(gguf="bf16")
def phi3(name):
    """12 of 16 elements of a head are turned; a window in every layer."""
    directory = truth.make(name, phi_config({"rope_type": "default", "partial_rotary_factor": 0.75}, sliding_window=9), torch.bfloat16)

    def old(config, rope):
        plain_theta(config, rope)
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
        config["rope_scaling"] = None
    truth.write_old_config(directory, old)
    return directory


@checkpoint(gguf="bf16")
def phi3_long(name):
    """One prompt longer than the original 16 tokens, one that never gets there."""
    rope = {"rope_type": "longrope", "partial_rotary_factor": 0.75, "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.75],
            "long_factor": [1.5, 2.0, 3.25, 4.5, 6.0, 8.0], "original_max_position_embeddings": 16}
    directory = truth.make(name, phi_config(rope, original_max_position_embeddings=16), torch.bfloat16)

    def old(config, rope):
        plain_theta(config, rope)
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
        config["rope_scaling"] = {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    truth.write_old_config(directory, old)
    return directory


@checkpoint(gguf="bf16")
def smollm3(name):
    """As published: every fourth layer without rotation, no windows."""
    config = transformers.SmolLM3Config(**dict(dense_sizes(), num_hidden_layers=4, intermediate_size=56), tie_word_embeddings=True,
                                        rope_parameters={"rope_type": "default", "rope_theta": 20000.0})
    directory = truth.make(name, config, torch.bfloat16, gain={"embed": 2})

    def old(config, rope):
        plain_theta(config, rope)
        config["rope_scaling"] = None
        config.pop("layer_types")
    truth.write_old_config(directory, old)
    return directory


@checkpoint()
def smollm3_window(name):
    """Layers without rotation where the list says 0, and only those with a window; an attention bias. GGUF cannot say any of it."""
    config = transformers.SmolLM3Config(**dict(dense_sizes(), num_hidden_layers=3), tie_word_embeddings=False, no_rope_layers=[0, 1, 0],
                                        use_sliding_window=True, sliding_window=6, attention_bias=True,
                                        rope_parameters={"rope_type": "default", "rope_theta": 20000.0})
    return truth.make(name, config, torch.bfloat16)


def dense_sizes():
    """For classes that take the head's dimension from hidden size and heads."""
    return {key: value for key, value in SIZES.items() if key != "head_dim"}


@checkpoint(gguf="bf16")
def granite(name):
    config = transformers.GraniteConfig(**dict(dense_sizes(), num_hidden_layers=3), tie_word_embeddings=True, embedding_multiplier=6.5,
                                        logits_scaling=0.375, residual_multiplier=0.6, attention_multiplier=0.15, rms_norm_eps=1e-5,
                                        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    directory = truth.make(name, config, torch.bfloat16)

    def old(config, rope):
        plain_theta(config, rope)
        config["rope_scaling"] = None
    truth.write_old_config(directory, old)
    return directory


@checkpoint(gguf="bf16")
def ministral3(name):
    """Queries of the long prompt pass the original 8 tokens four times over; YaRN with both mscales, which differ."""
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 8, "beta_fast": 4.0,
            "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.5, "llama_4_scaling_beta": 0.4}
    config = transformers.Ministral3Config(**dict(SIZES, head_dim=20), tie_word_embeddings=False, rope_parameters=rope)
    return truth.make(name, config, torch.bfloat16, lengths=(30, 7))
