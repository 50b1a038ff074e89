# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Of models with experts: routers, gates, sinks, latents."""

import functools
import math

import torch

from .. import truth
from . import attentions, layers, mistake, swap_halves


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
