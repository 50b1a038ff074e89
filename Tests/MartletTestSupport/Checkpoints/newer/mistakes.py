# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Formulas read the obvious way: how far a log-probability of each checkpoint moves, or an element of its embedding.

A mistake is a function that spoils a model in float64 and yields what must be patched while it runs, as (object, name, value).
"""

import functools
import importlib
import json
import math

import torch
import transformers

from . import encoders, fp8, truth

ALL = []


def mistake(sentence, *names):
    def register(function):
        ALL.append((sentence, names, function))
        return function
    return register


def answer(directory, model, tokens):
    """Log-probabilities, or an embedding of length 1."""
    if (directory / "modules.json").exists():
        return encoders.embedding(directory, encoders.pool(directory, encoders.hidden(model, tokens)))
    return torch.log_softmax(truth.logits(model, tokens), -1)


def measure(name):
    directory = truth.HERE / name
    inputs = json.loads((directory / "expected.json").read_text())["prompts"]
    kind = transformers.AutoModel if (directory / "modules.json").exists() else transformers.AutoModelForCausalLM
    model = truth.load(directory, kind)
    module = importlib.import_module(type(model).__module__)
    right = [answer(directory, truth.in_float64(model), tokens) for tokens in inputs]
    for sentence, names, spoil in ALL:
        if name not in names:
            continue
        wrong = truth.in_float64(model)
        wrong.checkpoint = name
        places = list(spoil(wrong, module) or [])
        with truth.patched(*places):
            deltas = [float((answer(directory, wrong, tokens) - values).abs().max()) for tokens, values in zip(inputs, right)]
        print(f"{name}: {sentence}: " + ", ".join(f"{delta:.2g}" for delta in deltas))


def layers(model):
    return getattr(model, "model", model).layers


def attentions(model):
    return [layer.self_attn for layer in layers(model)]


def rotate(model, angles, magnitude=1):
    """Replaces the rotation: `angles(positions [n, 1])` gives the angles [n, pairs]."""
    def forward(x, position_ids, *arguments, **options):
        half = angles(position_ids[0, :, None].to(x.dtype))[None]
        both = torch.cat((half, half), -1)
        return both.cos() * magnitude, both.sin() * magnitude
    model.model.rotary_emb.forward = forward


def powers(theta, count, of):
    """theta^(−2i/of) for i < count."""
    return theta ** (-2 * torch.arange(count, dtype=torch.double) / of)


def swap_halves(weight):
    """The first and the second half of a fused weight's rows, the one for the other."""
    weight.data = torch.cat(weight.data.chunk(2, -2)[::-1], -2)


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


# Experts


def blocks(model):
    """The feed-forward blocks that have experts."""
    return [layer.mlp for layer in layers(model) if hasattr(layer.mlp, "experts")]


@mistake("the weights of chosen experts are not normalised", "qwen3-moe")
def _(model, module):
    for block in blocks(model):
        block.gate.norm_topk_prob = False


@mistake("the weights of chosen experts are normalised", "qwen3-moe-mixed")
def _(model, module):
    for block in blocks(model):
        block.gate.norm_topk_prob = True


@mistake("w1 is up and w3 is gate", "qwen3-moe", "mixtral")
def _(model, module):
    for block in blocks(model):
        swap_halves(block.experts.gate_up_proj)


@mistake("the weights of chosen experts are not normalised", "mixtral")
def _(model, module):
    def forward(gate, hidden):
        probabilities = torch.softmax(hidden @ gate.weight.T, -1)
        values, indices = torch.topk(probabilities, gate.top_k)
        return probabilities, values, indices
    for block in blocks(model):
        block.gate.forward = functools.partial(forward, block.gate)



# gpt-oss


@mistake("no sinks", "gpt-oss", "gpt-oss-mxfp4")
def _(model, module):
    for attention in attentions(model):
        attention.sinks.data.fill_(-1e9)


@mistake("sinks are scaled like scores", "gpt-oss")
def _(model, module):
    for attention in attentions(model):
        attention.sinks.data *= attention.scaling


@mistake("windows in the odd layers", "gpt-oss")
def _(model, module):
    model.config.layer_types = ["full_attention", "sliding_attention"]


@mistake("a window sees one key more", "gpt-oss")
def _(model, module):
    model.config.sliding_window += 1


@mistake("the first half of gate_up_proj is gate", "gpt-oss", "gpt-oss-mxfp4")
def _(model, module):
    for block in blocks(model):
        for name in ("gate_up_proj", "gate_up_proj_bias"):
            weight = getattr(block.experts, name)
            gate, up = weight.data.chunk(2, -1)
            weight.data = torch.stack((gate, up), -1).flatten(-2)


def gate_with(model, formula):
    """`formula(gate, up, limit)` instead of the clamped gate."""
    for block in blocks(model):
        block.experts._apply_gate = lambda both, limit=block.experts.limit: formula(both[..., ::2], both[..., 1::2], limit)


@mistake("up without + 1", "gpt-oss")
def _(model, module):
    gate_with(model, lambda gate, up, limit: up.clamp(-limit, limit) * (gate := gate.clamp(max=limit)) * torch.sigmoid(1.702 * gate))


@mistake("σ(gate) without 1.702", "gpt-oss")
def _(model, module):
    gate_with(model, lambda gate, up, limit: (up.clamp(-limit, limit) + 1) * (gate := gate.clamp(max=limit)) * torch.sigmoid(gate))


@mistake("nothing is clamped", "gpt-oss")
def _(model, module):
    gate_with(model, lambda gate, up, limit: (up + 1) * gate * torch.sigmoid(1.702 * gate))


@mistake("gate is clamped below too", "gpt-oss")
def _(model, module):
    gate_with(model, lambda gate, up, limit: (up.clamp(-limit, limit) + 1) * (gate := gate.clamp(-limit, limit)) * torch.sigmoid(1.702 * gate))


@mistake("up is clamped above only", "gpt-oss")
def _(model, module):
    gate_with(model, lambda gate, up, limit: (up.clamp(max=limit) + 1) * (gate := gate.clamp(max=limit)) * torch.sigmoid(1.702 * gate))


@mistake("softmax over all experts before top-k", "gpt-oss")
def _(model, module):
    def forward(router, hidden):
        scores = torch.softmax(hidden @ router.weight.T + router.bias, -1)
        values, indices = torch.topk(scores, router.top_k)
        return scores, values, indices
    for block in blocks(model):
        block.router.forward = functools.partial(forward, block.router)


@mistake("YaRN truncates", "gpt-oss")
def _(model, module):
    model.config.rope_parameters["truncate"] = True
    with truth.float64():
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)


@mistake("YaRN: cos and sin are not scaled", "gpt-oss")
def _(model, module):
    model.model.rotary_emb.attention_scaling = 1.0


@mistake("a row of MXFP4 has its high half first", "gpt-oss-mxfp4")
def _(model, module):
    for block in blocks(model):
        for weight in (block.experts.gate_up_proj, block.experts.down_proj):
            # [expert, in, out]: pairs along `in`.
            weight.data = weight.data.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)


# DeepSeek


LATENTS = ["deepseek-v2", "deepseek-v2-groups", "deepseek-v3", "deepseek-v3-halves"]


@mistake("latent norms read rms_norm_eps", "deepseek-v2-groups", "deepseek-v3-halves")
def _(model, module):
    for attention in attentions(model):
        for norm in (attention.q_a_layernorm, attention.kv_a_layernorm):
            norm.variance_epsilon = model.config.rms_norm_eps


@mistake("no latent norms", *LATENTS)
def _(model, module):
    for attention in attentions(model):
        attention.kv_a_layernorm.forward = lambda hidden: hidden


@mistake("RoPE pairs across halves", "deepseek-v2", "deepseek-v2-groups")
def _(model, module):
    def halves(query, key, rotation):
        def turn(values):
            turned = torch.view_as_real(torch.complex(*values.chunk(2, -1)) * rotation[:, None])
            return torch.cat((turned[..., 0], turned[..., 1]), -1)
        return turn(query), turn(key)
    yield module, "apply_rotary_emb", halves


@mistake("RoPE the other way (rope_interleave)", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    model.config.rope_interleave = not model.config.rope_interleave


@mistake("scores are not scaled by mscale²", *LATENTS)
def _(model, module):
    for attention in attentions(model):
        attention.scaling = attention.qk_head_dim ** -0.5


@mistake("cos and sin are not scaled", "deepseek-v2-groups", "deepseek-v3-halves")
def _(model, module):
    model.model.rotary_emb.attention_scaling = 1.0


@mistake("cos and sin × (0.1·ln f + 1)", "deepseek-v2", "deepseek-v2-groups", "deepseek-v3")
def _(model, module):
    model.model.rotary_emb.attention_scaling = 0.1 * math.log(model.config.rope_parameters["factor"]) + 1


@mistake("scores are scaled by the head dimension without RoPE's part", *LATENTS)
def _(model, module):
    for attention in attentions(model):
        attention.scaling *= (attention.qk_head_dim / attention.qk_nope_head_dim) ** 0.5


@mistake("no shared experts", *LATENTS)
def _(model, module):
    for block in blocks(model):
        block.shared_experts.down_proj.weight.data.zero_()


def route_with(model, scores=torch.softmax, group=lambda scores: scores.amax(-1), hidden_group=0.0, bias=True, biased_weights=False,
               normalised=False, scaled=True):
    """DeepSeek's router with parts of it to choose: both models have the same steps."""
    def forward(gate, hidden):
        hidden = hidden.reshape(-1, gate.hidden_dim)
        all_scores = scores(hidden @ gate.weight.T, -1)
        choice = all_scores + gate.e_score_correction_bias if bias and hasattr(gate, "e_score_correction_bias") else all_scores
        if gate.num_group and gate.num_group > 1:
            grouped = choice.unflatten(-1, (gate.num_group, -1))
            kept = torch.zeros_like(grouped[..., 0]).scatter(1, torch.topk(group(grouped), gate.topk_group).indices, 1.0).bool()
            choice = torch.where(kept[..., None], grouped, hidden_group).flatten(-2)
        values, indices = torch.topk(choice, gate.top_k)
        weights = values if biased_weights else all_scores.gather(1, indices)
        if normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        return all_scores, weights * (gate.routed_scaling_factor if scaled else 1), indices
    for block in blocks(model):
        block.gate.forward = functools.partial(forward, block.gate)


@mistake("(the router written once more, and right)", "deepseek-v2", "deepseek-v2-groups")
def _(model, module):
    route_with(model)


@mistake("the weights of chosen experts are normalised", "deepseek-v2", "deepseek-v2-groups")
def _(model, module):
    route_with(model, normalised=True)


@mistake("the scaling factor is not read", "deepseek-v2", "deepseek-v2-groups")
def _(model, module):
    route_with(model, scaled=False)


@mistake("a group's score is the sum of its best two", "deepseek-v2-groups")
def _(model, module):
    route_with(model, group=best_two)


@mistake("groups are not read", "deepseek-v2-groups")
def _(model, module):
    for block in blocks(model):
        block.gate.topk_method = "greedy"


def best_two(scores):
    return scores.sort(-1, descending=True).values[..., :2].sum(-1)


V3 = dict(scores=lambda logits, axis: torch.sigmoid(logits), group=best_two, hidden_group=-math.inf, normalised=True)


@mistake("(the router written once more, and right)", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    route_with(model, **V3)


@mistake("hidden groups count as 0", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    route_with(model, **{**V3, "hidden_group": 0.0})


@mistake("a group's score is its maximum", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    route_with(model, **{**V3, "group": lambda scores: scores.amax(-1)})


@mistake("weights include the bias", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    route_with(model, **{**V3, "biased_weights": True})


@mistake("the bias is not read", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    route_with(model, **{**V3, "bias": False})


@mistake("the weights of chosen experts are not normalised", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    route_with(model, **{**V3, "normalised": False})


@mistake("softmax, not sigmoid", "deepseek-v3", "deepseek-v3-halves")
def _(model, module):
    route_with(model, **{**V3, "scores": torch.softmax})


# Gemma 4


GEMMA4 = ["gemma4", "gemma4-moe"]


@mistake("norms multiply by 1 + weight", *GEMMA4)
def _(model, module):
    for name, parameter in model.named_parameters():
        if truth.is_norm(name):
            parameter.data += 1


@mistake("scores are scaled by 1/√d", *GEMMA4)
def _(model, module):
    for attention in attentions(model):
        attention.scaling = attention.head_dim ** -0.5


def value_norms(model):
    return [attention for attention in attentions(model) if not attention.is_kv_shared_layer]


@mistake("values have no norm", *GEMMA4)
def _(model, module):
    for attention in value_norms(model):
        attention.v_norm.forward = lambda values: values


@mistake("values are keys after their norm", "gemma4-moe")
def _(model, module):
    for attention in value_norms(model):
        if attention.v_proj is None:
            attention.v_norm.forward = attention.k_norm.forward


@mistake("values are keys after norm and RoPE", "gemma4-moe")
def _(model, module):
    right, last = module.apply_rotary_pos_emb, []

    def remembered(values, *arguments, **options):
        last[:] = [right(values, *arguments, **options)]
        return last[0]
    for attention in value_norms(model):
        if attention.v_proj is None:
            attention.v_norm.forward = lambda values: last[0]
    yield module, "apply_rotary_pos_emb", remembered


@mistake("layer_scalar is not read", *GEMMA4)
def _(model, module):
    for layer in layers(model):
        layer.layer_scalar.fill_(1)


@mistake("layer_scalar leaves the residual out", *GEMMA4)
def _(model, module):
    for layer in layers(model):
        scalar, layer.layer_scalar = layer.layer_scalar, torch.ones(1, dtype=torch.double)
        right = layer.forward
        layer.forward = lambda hidden, *arguments, right=right, scalar=scalar, **options: (
            hidden + scalar * (right(hidden, *arguments, **options) - hidden))


@mistake("RoPE of full layers: exponents divide by the rotated part", *GEMMA4)
def _(model, module):
    model.model.rotary_emb.full_attention_inv_freq[:3] = powers(10000, 3, 6)


@mistake("RoPE of full layers: pairs within the rotated part", *GEMMA4)
def _(model, module):
    right = module.apply_rotary_pos_emb

    def first_part(values, cos, sin, unsqueeze_dim=1):
        if values.shape[-1] != 24:
            return right(values, cos, sin, unsqueeze_dim=unsqueeze_dim)
        cos, sin = (torch.cat((each[..., :3], each[..., :3]), -1) for each in (cos, sin))
        return torch.cat((right(values[..., :6], cos, sin, unsqueeze_dim=unsqueeze_dim), values[..., 6:]), -1)
    yield module, "apply_rotary_pos_emb", first_part


@mistake("RoPE of full layers: all of a head is turned", *GEMMA4)
def _(model, module):
    model.model.rotary_emb.full_attention_inv_freq.copy_(powers(10000, 12, 24))


@mistake("shared layers read the first layer of their type", "gemma4")
def _(model, module):
    for index, attention in enumerate(attentions(model)):
        attention.store_full_length_kv = index < 2


@mistake("inputs of layers: not × 2^−½", "gemma4")
def _(model, module):
    model.model.per_layer_input_scale = 1


@mistake("inputs of layers: the projection is not × hidden^−½ (the norm's epsilon alone sees it)", "gemma4")
def _(model, module):
    model.model.per_layer_model_projection_scale = 1


@mistake("inputs of layers: the embedding is not × √d", "gemma4")
def _(model, module):
    model.model.embed_tokens_per_layer.embed_scale.fill_(1)


@mistake("inputs of layers: the projection is not normalised", "gemma4")
def _(model, module):
    model.model.per_layer_projection_norm.forward = lambda values: values


@mistake("inputs of layers: they are not read", "gemma4")
def _(model, module):
    for layer in layers(model):
        layer.post_per_layer_input_norm.weight.data.zero_()


@mistake("a window sees one key more", *GEMMA4)
def _(model, module):
    model.config.sliding_window += 1


@mistake("GELU by erf, not by tanh", *GEMMA4)
def _(model, module):
    for layer in layers(model):
        layer.mlp.act_fn = torch.nn.GELU()


@mistake("logits are not capped", *GEMMA4)
def _(model, module):
    model.config.final_logit_softcapping = None


def routers(model):
    return [layer.router for layer in layers(model)]


@mistake("experts: their scale is not read", "gemma4-moe")
def _(model, module):
    for router in routers(model):
        router.per_expert_scale.data.fill_(1)


@mistake("experts: the router's scores are not × hidden^−½", "gemma4-moe")
def _(model, module):
    for router in routers(model):
        router.scalar_root_size = 1


@mistake("experts: the router's input is not normalised", "gemma4-moe")
def _(model, module):
    for router in routers(model):
        router.norm.forward = lambda hidden: hidden


@mistake("experts: they read the dense block's norm", "gemma4-moe")
def _(model, module):
    for layer in layers(model):
        layer.pre_feedforward_layernorm_2 = layer.pre_feedforward_layernorm


@mistake("experts: they and the dense block are added without norms of their own", "gemma4-moe")
def _(model, module):
    for layer in layers(model):
        layer.post_feedforward_layernorm_1.forward = layer.post_feedforward_layernorm_2.forward = lambda hidden: hidden


# Encoders


@mistake("GELU by tanh, not by erf", "bert")
def _(model, module):
    for layer in model.encoder.layer:
        layer.intermediate.intermediate_act_fn = torch.nn.GELU(approximate="tanh")


@mistake("no token types", "bert")
def _(model, module):
    model.embeddings.token_type_embeddings.weight.data.zero_()


@mistake("variance over n − 1", "bert")
def _(model, module):
    norms = [each for each in model.modules() if isinstance(each, torch.nn.LayerNorm)]
    for norm in norms:
        norm.forward = lambda hidden, norm=norm: (hidden - hidden.mean(-1, keepdim=True)) / hidden.std(-1, keepdim=True) * norm.weight + norm.bias


@mistake("attention is causal", "bert")
def _(model, module):
    yield module, "create_bidirectional_mask", lambda config, inputs_embeds, **_: torch.full(
        (1, 1, inputs_embeds.shape[1], inputs_embeds.shape[1]), -1e30).triu(1)


def pool_with(function):
    return encoders, "pool", lambda directory, states: function(states)


@mistake("the first token's state", "bert", "gemma3-embedding")
def _(model, module):
    yield pool_with(lambda states: states[0])


@mistake("the mean without the first and the last token", "bert")
def _(model, module):
    yield pool_with(lambda states: states[1:-1].mean(0))


@mistake("the mean of all tokens", "qwen3-embedding")
def _(model, module):
    yield pool_with(lambda states: states.mean(0))


@mistake("no norm at the end", "qwen3-embedding", "gemma3-embedding")
def _(model, module):
    model.norm.forward = lambda hidden: hidden


@mistake("attention is causal", "gemma3-embedding")
def _(model, module):
    model.config.use_bidirectional_attention = False


@mistake("the window is not halved", "gemma3-embedding")
def _(model, module):
    model.config.sliding_window = 9


@mistake("the window is halved without + 1", "gemma3-embedding")
def _(model, module):
    model.config.sliding_window -= 1


@mistake("the window counts |q − k| ≤ w//2 + 1", "gemma3-embedding")
def _(model, module):
    model.config.sliding_window += 1


@mistake("the layers behind the pooling are not read", "gemma3-embedding")
def _(model, module):
    yield encoders, "embedding", lambda directory, pooled: pooled / pooled.norm()


# FP8


def scale_with(model, expanded):
    """Weights with other scales: a function of the right scales, expanded, gives others."""
    for name, parameter in model.named_parameters():
        if "proj" in name:
            tensors = fp8.load_file(truth.HERE / model.checkpoint / "model.safetensors")
            scale = next(tensors[name.replace("weight", suffix)] for suffix in ("weight_scale", "weight_scale_inv")
                         if name.replace("weight", suffix) in tensors)
            parameter.data = tensors[name].double() * expanded(scale.double(), parameter.shape)


@mistake("weight_scale_inv divides", "fp8-block")
def _(model, module):
    scale_with(model, lambda scale, shape: 1 / fp8.expand(scale, shape))


@mistake("scales are not read", "fp8-tensor", "fp8-static", "fp8-channel", "fp8-block", "fp8-block-compressed")
def _(model, module):
    scale_with(model, lambda scale, shape: torch.ones(shape, dtype=torch.double))


@mistake("blocks are transposed", "fp8-block", "fp8-block-compressed")
def _(model, module):
    scale_with(model, lambda scale, shape: fp8.expand(scale.T.contiguous(), shape) if scale.shape[0] == scale.shape[1] else fp8.expand(scale, shape))


@mistake("the last block's scale is the first's", "fp8-block", "fp8-block-compressed")
def _(model, module):
    scale_with(model, lambda scale, shape: scale[0, 0].expand(shape))


@mistake("the first row's scale for all", "fp8-channel")
def _(model, module):
    scale_with(model, lambda scale, shape: scale[0].expand(shape))
