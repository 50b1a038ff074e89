# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Of models whose answer is a vector."""

import torch

from .. import encoders
from . import mistake


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
