# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Experts of gpt-oss in MXFP4 (OCP Microscaling Formats 1.0): 32 values of e2m1 share a power of two, stored as e8m0."""

import json

import torch
from safetensors.torch import load_file, save_file

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def quantise(values):
    """[…, n · 32] → blocks […, n, 16], the even element in the low half of a byte, and scales [..., n]."""
    groups = values.float().unflatten(-1, (-1, 32))
    exponents = torch.floor(torch.log2(groups.abs().amax(-1).clamp(min=2.0 ** -120))) - 2
    scaled = groups / 2.0 ** exponents[..., None]
    codes = (scaled.abs()[..., None] - E2M1).abs().argmin(-1) + 8 * (scaled < 0)
    blocks = codes[..., 0::2] + 16 * codes[..., 1::2]
    return blocks.to(torch.uint8), (exponents + 127).to(torch.uint8)


def quantise_experts(directory):
    """Rewrites a directory of gpt-oss as its authors publish it: blocks and scales [expert, out, in/32, …] instead of [expert, in, out]."""
    tensors = load_file(directory / "model.safetensors")
    for name in list(tensors):
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            blocks, scales = quantise(tensors.pop(name).transpose(1, 2))
            tensors[name + "_blocks"], tensors[name + "_scales"] = blocks.contiguous(), scales.contiguous()
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
        "quant_method": "mxfp4"}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
