# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Of weights in FP8 and NVFP4."""

import torch

from .. import fp8, truth
from . import mistake


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


NVFP4 = ["nvfp4", "nvfp4-moe", "nvfp4-mixed", "gemma4-moe-nvfp4"]


def coded(model):
    """The matrices of feed-forward blocks that are in NVFP4, with their names: [..., out, in]."""
    part = ".experts." if "moe" in model.checkpoint else ".mlp."
    return [(name, parameter) for name, parameter in model.named_parameters() if part in name and "proj" in name]


@mistake("a row of NVFP4 has its high half first", *NVFP4)
def _(model, module):
    for _, parameter in coded(model):
        parameter.data = parameter.data.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


@mistake("a byte of NVFP4 has values 8 apart, as in GGUF", *NVFP4)
def _(model, module):
    for _, parameter in coded(model):
        parameter.data = parameter.data.unflatten(-1, (-1, 8, 2)).transpose(-1, -2).flatten(-3)


@mistake("the factor of every other matrix is that of the one before it", "nvfp4", "nvfp4-mixed")
def _(model, module):
    # Factors are a matrix's greatest value over 2688.
    matrices = coded(model)
    for (_, first), (_, second) in zip(matrices[::2], matrices[1::2]):
        second.data *= first.abs().amax() / second.abs().amax()


@mistake("what an expert counts is multiplied twice", "gemma4-moe-nvfp4")
def _(model, module):
    for name, parameter in model.named_parameters():
        if name.endswith("per_expert_scale"):
            parameter.data **= 2
