# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Matrices in NVFP4, in the forms that people publish: 16 values of e2m1 share a scale in e4m3, all of a matrix a factor in float32.

compressed-tensors divides by the factor (`weight_global_scale`), modelopt multiplies by it (`weight_scale_2`). Factors have so few bits that modelopt's
values are exact in float32; a quotient is rounded once.

Two other programs say what the files mean, too: `compressed_tensors` expands its form, and what llama.cpp's converter makes of either is expanded by
the `gguf` package.
"""

import json

import gguf
import numpy
import torch
import transformers
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file

from . import fp8, truth
from .checkpoints import MOE, SIZES, SURE_ROUTES, checkpoint, make_gemma4

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
WEIGHTS = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True, "dynamic": False}


def quantise(weight, divides):
    """[out, in] → codes [out, in / 2], the even element in the low half of a byte, scales [out, in / 16] and the factor as the file has it."""
    weight = weight.float()
    factor = fp8.few_bits(weight.abs().amax() / (448 * 6), torch.bfloat16).float()
    groups = weight.unflatten(1, (-1, 16))
    scales = (groups.abs().amax(-1) / 6 / factor).clamp(2.0 ** -9, 448).to(torch.float8_e4m3fn)
    scaled = groups / (scales.float() * factor)[..., None]
    codes = ((scaled.abs()[..., None] - E2M1).abs().argmin(-1) + 8 * (scaled < 0)).flatten(1)
    return (codes[:, 0::2] + 16 * codes[:, 1::2]).to(torch.uint8), scales, 1 / factor if divides else factor


def expand(codes, scales, factor):
    """The same in float64; `factor` multiplies."""
    places = torch.stack((codes & 15, codes >> 4), -1).flatten(1).long()
    values = E2M1.double()[places & 7] * torch.where(places < 8, 1.0, -1.0).double()
    return (values.unflatten(1, (-1, 16)) * scales.double()[..., None]).flatten(1) * factor.double()


def store(form, is_quantised, settings, separate_settings=False):
    """A function that rewrites a directory: matrices as `form` says, whose settings go into config.json or into modelopt's own file."""
    divides = form == "compressed-tensors"

    def rewrite(directory):
        tensors = load_file(directory / "model.safetensors")
        # Files have a tensor for each expert.
        for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
            parts = ["down_proj"] if name.endswith("down_proj") else ["gate_proj", "up_proj"]
            for expert, matrices in enumerate(tensors.pop(name)):
                for part, matrix in zip(parts, matrices.chunk(len(parts))):
                    tensors[f"{name.rpartition('.')[0]}.{expert}.{part}.weight"] = matrix
        for name in [name for name in tensors if is_quantised(name)]:
            codes, scales, factor = quantise(tensors.pop(name), divides)
            module = name.removesuffix("weight")
            # What activations would be divided by.
            limit = torch.tensor([64.5]) if divides else torch.tensor(0.015625 * 1.25)
            tensors.update({module + ("weight_packed" if divides else "weight"): codes, module + "weight_scale": scales,
                            module + ("weight_global_scale" if divides else "weight_scale_2"): factor.reshape([1] if divides else []),
                            module + ("input_global_scale" if divides else "input_scale"): limit})
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        config = json.loads((directory / "config.json").read_text())
        if separate_settings:
            (directory / "hf_quant_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        else:
            config["quantization_config"] = settings
            (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return rewrite


def load(directory):
    """The model with each matrix multiplied out."""
    config = transformers.AutoConfig.from_pretrained(directory)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tensors = load_file(directory / "model.safetensors")
    for name in [name for name in tensors if name.endswith(".weight_scale")]:
        module, scales = name.removesuffix("weight_scale"), tensors.pop(name)
        if module + "weight_packed" in tensors:
            codes, divisor = tensors.pop(module + "weight_packed"), tensors.pop(module + "weight_global_scale")
            exact = expand(codes, scales, 1 / divisor.double())
            state = {"weight_packed": codes, "weight_scale": scales, "weight_global_scale": divisor}
            scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**WEIGHTS))
            theirs = NVFP4PackedCompressor.decompress(state, scheme)["weight"].double()
            # They multiply in bfloat16.
            assert ((theirs - exact).abs() <= 2.0 ** -8 * exact.abs()).all(), f"{name}: not what compressed_tensors reads"
        elif module + "weight_scale_2" in tensors:
            exact = expand(tensors[module + "weight"], scales, tensors.pop(module + "weight_scale_2"))
            assert torch.equal(exact, exact.float().double()), f"{name}: a product is not exact"
        else:
            exact = tensors[module + "weight"].double() * scales.double()
        tensors[module + "weight"] = exact
    tensors = {name: values for name, values in tensors.items() if not name.endswith(("input_scale", "input_global_scale"))}
    # Transformers has experts stacked.
    for name in [name for name in tensors if name.endswith("experts.0.gate_proj.weight")]:
        prefix = name.removesuffix("0.gate_proj.weight")
        matrices = [[tensors.pop(f"{prefix}{expert}.{part}_proj.weight") for expert in range(config.num_experts)]
                    for part in ("gate", "up", "down")]
        gate, up, down = (torch.stack(part) for part in matrices)
        tensors[prefix + "gate_up_proj"], tensors[prefix + "down_proj"] = torch.cat((gate, up), 1), down
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **truth.EAGER).eval()
    model.load_state_dict({name: values.float() for name, values in tensors.items()})
    return model


truth.LOADERS.update({"nvfp4-pack-quantized": load, "NVFP4": load, "MIXED_PRECISION": load})


def check_converted(directory):
    """What llama.cpp's converter wrote must be the same matrices to the `gguf` package, times the factor that lies beside them."""
    reader = gguf.GGUFReader(directory / "model.gguf")
    values = {tensor.name: tensor for tensor in reader.tensors}
    model, counts = load(directory).state_dict(), 0
    for name, tensor in values.items():
        if tensor.tensor_type != gguf.GGMLQuantizationType.NVFP4:
            continue
        found = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).double()
        factor = torch.tensor(values[name.replace(".weight", ".scale")].data).double()
        found *= factor.reshape(-1, *[1] * (found.ndim - 1))
        layer, part = name.split(".")[1:3] if name.startswith("blk.") else (None, name)
        if part.endswith("_exps"):
            suffix = "experts." + ("down_proj" if "down" in part else "gate_up_proj")
            experts, = (values for key, values in model.items() if key.startswith(f"model.layers.{layer}.") and key.endswith(suffix))
            gate, up = experts.chunk(2, 1)
            expected = {"ffn_gate_exps": gate, "ffn_up_exps": up, "ffn_down_exps": experts}[part]
            if "down" in part and (scale := model.get(f"model.layers.{layer}.router.per_expert_scale")) is not None:
                # Gemma 4's converter multiplies what an expert counts into its factor.
                expected = expected * scale[:, None, None]
        else:
            parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
                     "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
            expected = model["lm_head.weight" if layer is None else f"model.layers.{layer}.{parts[part]}.weight"]
            if part in ("attn_q", "attn_k") and "Llama" in json.loads((directory / "config.json").read_text())["architectures"][0]:
                # Rows of a head as pairs.
                heads = expected.shape[0] // SIZES["head_dim"]
                expected = expected.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        # A divisor's inverse is rounded.
        assert ((found - expected).abs() <= 2.0 ** -23 * expected.abs()).all(), f"{name}: not what the gguf package reads"
        counts += 1
    assert counts > 0


SIZES = dict(SIZES, hidden_size=64, intermediate_size=128)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}


@checkpoint(gguf="bf16", check=check_converted)
def nvfp4(name):
    """compressed-tensors."""
    group = {"targets": ["Linear"], "weights": WEIGHTS,
             "input_activations": {**WEIGHTS, "dynamic": "local"}, "output_activations": None, "format": "nvfp4-pack-quantized"}
    settings = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "quantization_status": "compressed",
                "ignore": ["lm_head"], "config_groups": {"group_0": group}, "kv_cache_scheme": None, "transform_config": {},
                "sparsity_config": {}}
    config = transformers.LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=ROPE)
    return truth.make(name, config, torch.bfloat16, stored=store("compressed-tensors", lambda name: "proj" in name, settings))


@checkpoint(gguf="bf16", check=check_converted)
def nvfp4_moe(name):
    """modelopt, whose settings lie in a file of their own: experts, and the output matrix."""
    settings = {"producer": {"name": "modelopt", "version": "0.39.0"},
                "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16,
                                 "exclude_modules": ["model.layers.*.mlp.gate"]}}
    config = transformers.Qwen3MoeConfig(**{**SIZES, **MOE, "moe_intermediate_size": 64}, num_experts=6, norm_topk_prob=True,
                                         tie_word_embeddings=False, rope_parameters=ROPE)
    return truth.make(name, config, torch.bfloat16, gain=SURE_ROUTES,
                      stored=store("modelopt", lambda name: "proj" in name or "lm_head" in name, settings, separate_settings=True))


@checkpoint()
def nvfp4_mixed(name):
    """modelopt: NVFP4 in feed-forward blocks, FP8 in attention."""
    algorithms = {f"model.layers.{layer}.self_attn.{part}_proj": {"quant_algo": "FP8"} for layer in range(2) for part in "qkvo"}
    algorithms.update({f"model.layers.{layer}.mlp.{part}_proj": {"quant_algo": "NVFP4", "group_size": 16}
                       for layer in range(2) for part in ("gate", "up", "down")})
    settings = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": algorithms, "ignore": ["lm_head"]}
    others = fp8.store("tensor", "weight_scale", torch.float32, None, scalars=True, is_quantised=lambda name: "self_attn" in name)

    def rewrite(directory):
        others(directory)
        store("modelopt", lambda name: ".mlp." in name, settings)(directory)
    config = transformers.LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=ROPE)
    return truth.make(name, config, torch.bfloat16, stored=rewrite)


@checkpoint(gguf="bf16", check=check_converted)
def gemma4_moe_nvfp4(name):
    """modelopt: experts that have scales of their own beside the factors of NVFP4."""
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head"]}
    types = ["sliding_attention", "full_attention"]
    return make_gemma4(name, types, 1, stored=store("modelopt", lambda name: ".experts." in name, settings), hidden_size=64,
                       hidden_size_per_layer_input=0, attention_k_eq_v=True, enable_moe_block=True, num_experts=5, top_k_experts=2,
                       moe_intermediate_size=64)
