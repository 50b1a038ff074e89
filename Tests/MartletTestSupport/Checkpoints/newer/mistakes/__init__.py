# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Formulas read the obvious way: how far a log-probability of each checkpoint moves, or an element of its embedding.

A mistake is a function that spoils a model in float64 and yields what must be patched while it runs, as (object, name, value).
"""

import importlib
import json

import torch
import transformers

from .. import encoders, truth

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


from . import dense, experts, gemma4, vectors, weights  # noqa: E402 (they register what they have)
