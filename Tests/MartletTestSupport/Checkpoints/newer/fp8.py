# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Llamas whose matrices are e4m3 with scales, in the forms that people publish. A weight is its e4m3 value times its scale.

Scales have so few bits that these products are exact in float32. `logits.i` are what the weights give; where a file has scales for the cache
of keys and values too, `logits-kv.i` are what they give if each key (after RoPE) and value is read as e4m3(x / scale) · scale.
"""

import json

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

from . import truth
from .checkpoints import SIZES, checkpoint

BLOCK = 128


def few_bits(scale, dtype):
    """Scales as the file has them: bfloat16, or float32 whose last five bits are 0."""
    return scale.bfloat16() if dtype == torch.bfloat16 else (scale.float().view(torch.int32) & ~31).view(torch.float32)


def is_block(scale, shape):
    return scale.ndim == 2 and (scale.shape[1] > 1 or scale.shape[0] not in (1, shape[0]))


def expand(scale, shape):
    """A scale for each weight: scale [], [1], [out, 1] or [out / 128, in / 128], rounded up."""
    scale = scale.double()
    if is_block(scale, shape):
        scale = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:shape[0], :shape[1]]
    return scale.expand(shape)


def quantise(weight, strategy, dtype):
    weight = weight.float()
    if strategy == "tensor":
        largest = weight.abs().amax().reshape(1)
    elif strategy == "channel":
        largest = weight.abs().amax(1, keepdim=True)
    else:
        rows, columns = (-(-size // BLOCK) for size in weight.shape)
        padded = torch.nn.functional.pad(weight.abs(), (0, columns * BLOCK - weight.shape[1], 0, rows * BLOCK - weight.shape[0]))
        largest = padded.unflatten(0, (rows, BLOCK)).unflatten(2, (columns, BLOCK)).amax((1, 3))
    scale = few_bits(largest / 448, dtype)
    return (weight / expand(scale, weight.shape)).clamp(-448, 448).float().to(torch.float8_e4m3fn), scale


def compressed(strategy, kv=False):
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False}
    if strategy == "block":
        weights["block_structure"] = [BLOCK, BLOCK]
    scheme = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
            "kv_cache_scheme": scheme if kv else None}


def store(strategy, suffix, dtype, settings, cache=None, scalars=False, is_quantised=lambda name: True):
    """A function that rewrites a directory: matrices of layers as e4m3 with a tensor of scales beside each.

    - suffix: of the scales' names.
    - cache: the shape of `k_scale` and `v_scale`; None: there are none.
    - is_quantised: of projections, by their names, which.
    - scalars: scales are of shape [], and there are scales of activations, as of files that quantise them.
    """
    def rewrite(directory):
        tensors = load_file(directory / "model.safetensors")
        generator = torch.Generator().manual_seed(5)

        def scale_near(value):
            return few_bits(value * (0.75 + 0.5 * torch.rand(1, generator=generator)), dtype)
        for name in list(tensors):
            if "proj" in name and is_quantised(name):
                tensors[name], scale = quantise(tensors[name], strategy, dtype)
                tensors[name.replace("weight", suffix)] = scale.reshape([]) if scalars else scale
                if scalars:
                    tensors[name.replace("weight", "input_scale")] = scale_near(0.02).reshape([])
            if cache is not None and "k_proj" in name:
                # Keys and values are within a few units: almost all are below 448 times this.
                tensors[name.replace("k_proj.weight", "k_scale")] = scale_near(0.01).reshape(cache)
                tensors[name.replace("k_proj.weight", "v_scale")] = scale_near(0.006).reshape(cache)
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        config = json.loads((directory / "config.json").read_text())
        config["quantization_config"] = settings
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return rewrite


def load(directory):
    """The model with each matrix multiplied out."""
    config = transformers.AutoConfig.from_pretrained(directory)
    del config.quantization_config
    tensors = load_file(directory / "model.safetensors")
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        scale = next(tensors.pop(name.replace("weight", suffix)) for suffix in ("weight_scale", "weight_scale_inv")
                     if name.replace("weight", suffix) in tensors)
        exact = tensors[name].double() * expand(scale, tensors[name].shape)
        blocks = [BLOCK, BLOCK] if is_block(scale, exact.shape) else None
        # The formula of Transformers' kernels. (What it has for loading, Fp8Dequantize, divides a side by its number of scales instead: wrong
        # where 128 does not divide the side, as here.)
        theirs = _dequantize_fp8_weight(tensors[name], scale, blocks, torch.float32)
        tensors[name] = exact.float()
        assert torch.equal(tensors[name].double(), exact), f"{name}: a product is not exact"
        assert torch.equal(tensors[name], theirs), f"{name}: the scales' layout is not Transformers'"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **truth.EAGER).eval()
    missing, _ = model.load_state_dict({name: values.float() for name, values in tensors.items()}, strict=False)
    assert not missing
    return model


truth.LOADERS.update({"fp8": load, "compressed-tensors": load})


def cached_logits(directory, model, tokens):
    """Logits where attention reads keys and values as the cache in e4m3 has them."""
    tensors = load_file(directory / "model.safetensors")
    module = __import__(type(model).__module__, fromlist=["apply_rotary_pos_emb"])
    turn, layer = module.apply_rotary_pos_emb, iter(range(model.config.num_hidden_layers))

    def stored(values, scale):
        scale = scale.double().reshape([])
        return (values / scale).clamp(-448, 448).to(torch.float8_e4m3fn).double() * scale

    def turned(query, key, cos, sin):
        query, key = turn(query, key, cos, sin)
        return query, stored(key, tensors[f"model.layers.{next(layer)}.self_attn.k_scale"])
    hooks = [each.self_attn.v_proj.register_forward_hook(
        lambda _, inputs, output, index=index: stored(output, tensors[f"model.layers.{index}.self_attn.v_scale"]))
        for index, each in enumerate(model.model.layers)]
    try:
        with torch.no_grad(), truth.float64(), truth.patched((module, "apply_rotary_pos_emb", turned)):
            return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()


def make(name, *arguments, sizes=SIZES, **options):
    config = transformers.LlamaConfig(**sizes, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    directory = truth.make(name, config, torch.bfloat16, stored=store(*arguments, **options))
    if options.get("cache") is not None:
        expected = load_file(directory / "expected.safetensors")
        prompts = json.loads((directory / "expected.json").read_text())["prompts"]
        exact = truth.in_float64(load(directory))
        for index, prompt in enumerate(prompts):
            expected[f"logits-kv.{index}"] = cached_logits(directory, exact, prompt).float().contiguous()
        save_file(expected, directory / "expected.safetensors")
    return directory


@checkpoint()
def fp8_tensor(name):
    """compressed-tensors, a scale a matrix, and scales of the cache."""
    return make(name, "tensor", "weight_scale", torch.bfloat16, compressed("tensor", kv=True), cache=[1])


@checkpoint()
def fp8_static(name):
    """The form of vLLM's and AutoFP8's files: scalars in float32, scales of activations (which weights alone do not read) and of the cache."""
    return make(name, "tensor", "weight_scale", torch.float32, {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
                cache=[], scalars=True)


@checkpoint()
def fp8_channel(name):
    """compressed-tensors, a scale a row."""
    return make(name, "channel", "weight_scale", torch.bfloat16, compressed("channel"))


# No side is a multiple of 128: two blocks, the second of 4, 8 or 16.
ODD = dict(SIZES, hidden_size=132, intermediate_size=136, num_attention_heads=3, num_key_value_heads=1, head_dim=48, num_hidden_layers=2)


@checkpoint()
def fp8_block(name):
    """The form of DeepSeek's and Qwen's files: `weight_scale_inv`, which multiplies all the same."""
    return make(name, "block", "weight_scale_inv", torch.float32, {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK],
        "modules_to_not_convert": ["lm_head"]}, sizes=ODD)


@checkpoint()
def fp8_block_compressed(name):
    """compressed-tensors, a scale for 128 × 128."""
    return make(name, "block", "weight_scale", torch.bfloat16, compressed("block"), sizes=dict(ODD, num_hidden_layers=1))
