# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Of Gemma 4."""

import torch

from .. import truth
from . import attentions, layers, mistake, powers


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
