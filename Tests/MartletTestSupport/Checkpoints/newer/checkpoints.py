# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The checkpoints: a function each, in small and odd sizes, with every switch of its architecture somewhere."""

import shutil

import torch
import transformers

from . import convert, mxfp4, truth

ALL = {}


def checkpoint(gguf=None, check=None, **options):
    """Registers a function that writes the checkpoint of its name.

    `gguf`: the type of matrices for llama.cpp's converter, None where it cannot say what the checkpoint is; `options` of `convert.convert`. `check` looks
    at a directory that was converted.
    """
    def register(function):
        ALL[function.__name__.replace("_", "-")] = (function, gguf, check, options)
        return function
    return register


def make(name, converter):
    function, kind, check, options = ALL[name]
    directory = function(name)
    if kind and converter:
        convert.convert(converter, directory, kind, **options)
        if check:
            check(directory)


SIZES = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             max_position_embeddings=64, vocab_size=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)



def plain_theta(config, rope):
    config["rope_theta"] = rope["rope_theta"]


@checkpoint()
def gemma2(name):
    """Caps low enough to bend scores and logits; windows on layers 0 and 2; 1/√24 instead of 1/√16, which GGUF cannot say."""
    return make_gemma2(name, num_hidden_layers=3, query_pre_attn_scalar=24)


@checkpoint(gguf="bf16")
def gemma2_9b(name):
    """Scores scaled by the head's dimension as in the model of 9B."""
    return make_gemma2(name, num_hidden_layers=2, query_pre_attn_scalar=16)


def make_gemma2(name, **changes):
    config = transformers.Gemma2Config(**{**SIZES, "hidden_size": 40, **changes}, sliding_window=7, attn_logit_softcapping=2.5,
                                       final_logit_softcapping=3.5, rms_norm_eps=1e-5,
                                       rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    directory = truth.make(name, config, torch.bfloat16, norms_add_one=True, gain={"embed": 3})

    def old(config, rope):
        plain_theta(config, rope)
        config.pop("layer_types")
    truth.write_old_config(directory, old)
    return directory


@checkpoint()
def gemma3_caps(name):
    """A cap on scores in the settings, which Gemma 3 does not read, and one on logits, which it does."""
    config = transformers.Gemma3TextConfig(
        **dict(SIZES, hidden_size=32, intermediate_size=48), sliding_window=7, query_pre_attn_scalar=24, attn_logit_softcapping=1.5,
        final_logit_softcapping=3.5, layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
                         "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}})
    return truth.make(name, config, torch.bfloat16, norms_add_one=True, gain={"embed": 3})


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
    """For classes that take the head's dimension, 16, from hidden size and heads."""
    return {**{key: value for key, value in SIZES.items() if key != "head_dim"}, "hidden_size": 64}


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


@checkpoint()
def ernie(name):
    """For the example that adds its architecture from outside, which needs a tokenizer to run an engine: Qwen 3's tiny one."""
    config = transformers.Ernie4_5Config(**dict(SIZES, vocab_size=300), tie_word_embeddings=True,
                                         rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    directory = truth.make(name, config, torch.bfloat16)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(truth.HERE / "qwen3" / file, directory)
    return directory


@checkpoint(gguf="bf16")
def ministral3(name):
    """Queries of the long prompt pass the original 8 tokens three times; as published, both mscales are 1: YaRN leaves cos and sin alone."""
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 8, "beta_fast": 4.0,
            "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4}
    config = transformers.Ministral3Config(**dict(SIZES, head_dim=24), tie_word_embeddings=False, rope_parameters=rope)
    return truth.make(name, config, torch.bfloat16, lengths=(30, 7))


MOE = dict(num_experts_per_tok=3, moe_intermediate_size=20)
SURE_ROUTES = {"gate.weight": 2, "router.weight": 2}


def make_qwen3_moe(name, **changes):
    config = transformers.Qwen3MoeConfig(**{**SIZES, **MOE, "num_experts": 6, **changes}, tie_word_embeddings=False,
                                         rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    directory = truth.make(name, config, torch.bfloat16, gain=SURE_ROUTES)

    def old(config, rope):
        plain_theta(config, rope)
        config["rope_scaling"] = None
        config["num_experts"] = config.pop("num_local_experts")
    truth.write_old_config(directory, old)
    return directory


@checkpoint(gguf="bf16")
def qwen3_moe(name):
    """As published: experts in every layer, their weights normalised."""
    return make_qwen3_moe(name, norm_topk_prob=True)


@checkpoint()
def qwen3_moe_mixed(name):
    """Layers 1 and 3 by the step, 3 dense by the list; weights not normalised. llama.cpp knows neither."""
    return make_qwen3_moe(name, norm_topk_prob=False, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], intermediate_size=40)


@checkpoint(gguf="bf16")
def mixtral(name):
    config = transformers.MixtralConfig(**dict(SIZES, intermediate_size=28), num_local_experts=4, num_experts_per_tok=2,
                                        tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    directory = truth.make(name, config, torch.bfloat16, gain=SURE_ROUTES)
    truth.write_old_config(directory, plain_theta)
    return directory


def make_gpt_oss(name, stored=None, **sizes):
    """Windows of 5 in layer 0; gates drawn so wide that some pass the limit of 7."""
    rope = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 1.5,
            "beta_slow": 0.25, "truncate": False}
    config = transformers.GptOssConfig(**{**SIZES, "max_position_embeddings": 128, **sizes}, sliding_window=5, num_local_experts=4,
                                       num_experts_per_tok=2, tie_word_embeddings=False, rope_parameters=rope)
    return truth.make(name, config, torch.bfloat16, stored=stored,
                      gain={**SURE_ROUTES, "gate_up_proj": 4, "down_proj_bias": 4, "sinks": 4})


@checkpoint(gguf="bf16")
def gpt_oss(name):
    directory = make_gpt_oss(name, hidden_size=40, intermediate_size=24)

    def old(config, rope):
        plain_theta(config, rope)
        config["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    truth.write_old_config(directory, old)
    return directory


@checkpoint(gguf="bf16")
def gpt_oss_mxfp4(name):
    """The experts' weights in MXFP4, as published: two blocks a row, and three."""
    return make_gpt_oss(name, mxfp4.quantise_experts, hidden_size=64, intermediate_size=96, num_attention_heads=2,
                        num_key_value_heads=1)


LATENT = dict(hidden_size=36, intermediate_size=56, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3, vocab_size=128,
              max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, kv_lora_rank=24, qk_nope_head_dim=20,
              qk_rope_head_dim=12, v_head_dim=16, first_k_dense_replace=1, n_shared_experts=2, moe_intermediate_size=12,
              tie_word_embeddings=False)


def latent_rope(mscale, mscale_all_dim):
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
            "beta_slow": 0.5, "mscale": mscale, "mscale_all_dim": mscale_all_dim}
    return {key: value for key, value in rope.items() if value is not None}


def old_latent(config, rope):
    plain_theta(config, rope)
    config["rope_scaling"] = {"type" if key == "rope_type" else key: value for key, value in rope.items() if key != "rope_theta"}
    config.pop("head_dim", None)
    if config["model_type"] == "deepseek_v3":
        # Transformers knows no other; llama.cpp's converter does, and takes softmax where nothing is said.
        config.update(scoring_func="sigmoid", topk_method="noaux_tc")
    for new, old in (("num_experts", "n_routed_experts"), ("num_local_experts", "n_routed_experts"),
                     ("num_mtp_layers", "num_nextn_predict_layers")):
        if new in config:
            config[old] = config.pop(new)


@checkpoint(gguf="bf16")
def deepseek_v2(name):
    """The Lite form: queries without a latent, routes without groups, equal mscales."""
    config = transformers.DeepseekV2Config(**LATENT, q_lora_rank=None, n_routed_experts=6, num_experts_per_tok=3, topk_method="greedy",
                                           n_group=1, topk_group=1, routed_scaling_factor=1.5, norm_topk_prob=False,
                                           rope_parameters=latent_rope(0.707, 0.707))
    directory = truth.make(name, config, torch.bfloat16, gain=SURE_ROUTES)
    truth.write_old_config(directory, old_latent)
    return directory


@checkpoint()
def deepseek_v2_groups(name):
    """A latent for queries, groups of experts, mscales that differ, and an epsilon so large that it shows which norms read it.

    `norm_topk_prob` is true, and nobody reads it. GGUF has one mscale and one epsilon, and no choice of groups by their maximum.
    """
    config = transformers.DeepseekV2Config(**LATENT, q_lora_rank=28, n_routed_experts=12, num_experts_per_tok=3,
                                           topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=2.5,
                                           norm_topk_prob=True, rms_norm_eps=0.01, rope_parameters=latent_rope(1.0, 0.5))
    directory = truth.make(name, config, torch.bfloat16, gain=SURE_ROUTES)
    truth.write_old_config(directory, old_latent)
    return directory


def make_deepseek_v3(name, **changes):
    config = transformers.DeepseekV3Config(**LATENT, q_lora_rank=28, n_routed_experts=9, num_experts_per_tok=4, n_group=3, topk_group=2,
                                           routed_scaling_factor=2.5, norm_topk_prob=True, num_mtp_layers=0, **changes)

    def biases(model, generator):
        # Some below −1, so that a score with its bias is negative and a mask of 0 would choose the masked. In float32, as published.
        for layer in model.model.layers[1:]:
            layer.mlp.gate.e_score_correction_bias = torch.randn(9, generator=generator) * 0.5 - 0.6
    directory = truth.make(name, config, torch.bfloat16, gain=SURE_ROUTES, prepare=biases)
    truth.write_old_config(directory, old_latent)
    return directory


@checkpoint(gguf="bf16")
def deepseek_v3(name):
    return make_deepseek_v3(name, rope_parameters=latent_rope(1.0, 1.0))


@checkpoint()
def deepseek_v3_halves(name):
    """Pairs across halves (`rope_interleave` false), and one mscale alone: scores take it, cos and sin 0.1 · ln f + 1."""
    return make_deepseek_v3(name, rope_parameters=latent_rope(None, 0.5), rope_interleave=False, rms_norm_eps=0.01)


GEMMA4_ROPE = {"sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
               "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 10000.0}}


def make_gemma4(name, layer_types, global_key_value_heads, stored=None, **changes):
    """An epsilon so large that factors show which a norm after them takes away otherwise (those of the inputs of layers)."""
    sizes = {**SIZES, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": len(layer_types), **changes}
    config = transformers.Gemma4TextConfig(**sizes, layer_types=layer_types, sliding_window=6,
                                           global_head_dim=24, num_global_key_value_heads=global_key_value_heads,
                                           vocab_size_per_layer_input=128, final_logit_softcapping=6.5, rope_parameters=GEMMA4_ROPE,
                                           rms_norm_eps=1e-3)

    def scalars(model, generator):
        for layer in model.model.layers:
            layer.layer_scalar.copy_(torch.rand(1, generator=generator) * 0.6 + 0.5)
    directory = truth.make(name, config, torch.bfloat16, prepare=scalars, stored=stored,
                           gain={"embed": 2, "router.proj": 10, "q_norm": 0.5})

    def old(config, rope):
        config.pop("per_layer_config")
        config.update(rope_parameters=rope, global_head_dim=24, num_global_key_value_heads=global_key_value_heads)
    truth.write_old_config(directory, old)
    return directory


@checkpoint(gguf="bf16")
def gemma4(name):
    """The form of E2B: the last layer of each type reads the keys and values of the one before it; an input for each layer.

    `num_global_key_value_heads` counts only where keys serve as values, so not here.
    """
    types = ["sliding_attention", "full_attention"] * 3
    return make_gemma4(name, types, 3, num_attention_heads=3, num_key_value_heads=1, intermediate_size=24,
                       hidden_size_per_layer_input=10, num_kv_shared_layers=2, use_double_wide_mlp=True)


@checkpoint(gguf="bf16")
def gemma4_moe(name):
    """The form of 26B: experts beside the dense block, keys that serve as values in the full layer, which has fewer heads of them."""
    types = ["sliding_attention", "sliding_attention", "full_attention"]
    return make_gemma4(name, types, 1, hidden_size_per_layer_input=0, attention_k_eq_v=True, enable_moe_block=True, num_experts=5,
                       top_k_experts=2, moe_intermediate_size=12)
