# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""A checkpoint from a seed, and what Transformers computes with it in float64.

`model.double()` alone is not float64: norms, RoPE, softmax and routers name float32 in their code. Within `float64()` that name means
float64, so every formula stays Transformers' own and none rounds: a watcher refuses any result in a smaller type.
"""

import contextlib
import copy
import json
import pathlib
import shutil

import numpy
import torch
import transformers
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent.parent
GREEDY_TOKENS = 8
# A greedy token is only worth comparing if rounding cannot choose another, and so is a chosen expert.
LEAST_MARGIN = 0.05
LEAST_ROUTING_MARGIN = 1e-3
# Between Transformers' float32 and the same formulas in float64: a model that carries rounding further tells nothing.
MOST_ROUNDING = 3e-5


class NothingRounds(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
                assert leaf.dtype in (torch.double, torch.cdouble), f"{function} rounds to {leaf.dtype}"
        return result


@contextlib.contextmanager
def patched(*places):
    """Attributes set for a while: (object, name, value), …"""
    old = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for place, name, value in places:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in reversed(old):
            setattr(place, name, value)


@contextlib.contextmanager
def float64():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    try:
        with patched((torch, "float32", torch.double), (torch, "float", torch.double), (torch.Tensor, "float", torch.Tensor.double)):
            yield
    finally:
        torch.set_default_dtype(default)


@contextlib.contextmanager
def routing_margins(margins):
    """Appends, for each call of torch.topk, the least distance between the last that is chosen and the first that is not."""
    topk = torch.topk

    def watched(scores, k, *arguments, **options):
        if k < scores.shape[-1]:
            best = topk(scores, k + 1, -1).values
            margins.append(float((best[..., -2] - best[..., -1]).min()))
        return topk(scores, k, *arguments, **options)

    with patched((torch, "topk", watched)):
        yield


def is_norm(name):
    return name.endswith("norm.weight") or "layernorm" in name or "LayerNorm.weight" in name


def draw_parameters(model, seed, norms_add_one=False, gain={}):
    """Weights that keep activations near 1, with nothing at a value that would hide it: no norm at 1, no bias at 0.

    `gain`: a factor for the weights whose name contains the key.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if is_norm(name):
                values = noise * 0.2 + (0 if norms_add_one else 1)
            elif name.endswith("scale"):
                values = noise * 0.2 + 1
            elif parameter.ndim == 1:
                values = noise * 0.5
            else:
                # Logits a few units apart, so that greedy tokens are sure.
                values = noise * (2 if "lm_head" in name else 1) / parameter.shape[-1] ** 0.5
            for part, factor in gain.items():
                if part in name:
                    values = values * factor
            parameter.copy_(values)


def prompts(vocabulary, seed, lengths=(24, 5)):
    random = numpy.random.default_rng(seed)
    return [random.integers(0, vocabulary, length).tolist() for length in lengths]


EAGER = dict(attn_implementation="eager", experts_implementation="eager")


# For weights that Transformers does not expand by itself: a format, an algorithm or a method of the settings → a function of the directory.
LOADERS = {}


def load(directory, kind=AutoModelForCausalLM):
    """The directory as Transformers reads it, in float32; experts in MXFP4 expanded by Transformers' own table."""
    options = dict(EAGER)
    quantization = json.loads((directory / "config.json").read_text()).get("quantization_config", {})
    if (directory / "hf_quant_config.json").exists():
        quantization = json.loads((directory / "hf_quant_config.json").read_text())["quantization"]
    for key in ("format", "quant_algo", "quant_method"):
        if quantization.get(key) in LOADERS:
            return LOADERS[quantization[key]](directory)
    if quantization.get("quant_method") == "mxfp4":
        options["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    return kind.from_pretrained(directory, dtype=torch.float32, **options).eval()


def in_float64(model):
    """The same model built again within `float64()`: what it computes when it is made (RoPE's frequencies) is float64 too."""
    with float64():
        exact = type(model)._from_config(copy.deepcopy(model.config), dtype=torch.double, **EAGER).eval()
    exact.load_state_dict({name: values.double() if values.is_floating_point() else values
                           for name, values in model.state_dict().items()})
    return exact


def logits(model, tokens):
    with torch.no_grad(), float64(), NothingRounds():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].contiguous()


def run(directory, inputs):
    """Logits and greedy tokens of what is in the directory; a sentence if one of its choices is not sure."""
    model = load(directory)
    exact = in_float64(model)
    margins, truth, greedy = [], {}, []
    with routing_margins(margins):
        for index, prompt in enumerate(inputs):
            truth[f"logits.{index}"] = logits(exact, prompt)
            if min(margins, default=1) < LEAST_ROUTING_MARGIN:
                return "experts are not sure"
            tokens = list(prompt)
            for _ in range(GREEDY_TOKENS):
                last, best = torch.sort(logits(exact, tokens)[-1], descending=True)
                if last[0] - last[1] < LEAST_MARGIN:
                    return "greedy tokens are not sure"
                tokens.append(int(best[0]))
            greedy.append(tokens[len(prompt):])
    if min(margins, default=1) < LEAST_ROUTING_MARGIN:
        return "experts are not sure"
    rounding = 0
    with torch.no_grad():
        for index, prompt in enumerate(inputs):
            rounded = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0]
            rounding = max(rounding, float((rounded - truth[f"logits.{index}"]).abs().max()))
    if rounding > MOST_ROUNDING:
        return "rounding grows"
    return truth, greedy, {"float32": rounding, "routing": min(margins, default=None)}


def make(name, config, dtype, lengths=(24, 5), norms_add_one=False, gain={}, prepare=None, stored=None):
    """Writes the checkpoint `name` with the first seed whose choices are sure.

    - prepare: changes the model that was drawn and is in its type, with a generator of random numbers.
    - stored: changes the directory that was written, before it is read back.
    """
    directory = HERE / name
    for seed in range(1000):
        shutil.rmtree(directory, ignore_errors=True)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **EAGER)
        draw_parameters(model, seed, norms_add_one, gain)
        model.to(dtype)
        if prepare:
            prepare(model, torch.Generator().manual_seed(1000 + seed))
        model.save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        if stored:
            stored(directory)
        inputs = prompts(config.vocab_size, seed, lengths)
        result = run(directory, inputs)
        if not isinstance(result, str):
            break
    else:
        raise SystemExit(f"{name}: no seed is sure: {result}")
    truth, greedy, found = result
    save_file({key: values.float() for key, values in truth.items()}, directory / "expected.safetensors")
    write(directory / "expected.json", {"seed": seed, "prompts": inputs, "greedy": greedy})
    routing = "" if found["routing"] is None else f", experts sure by {found['routing']:.1e}"
    print(f"{name}: seed {seed}, float32 differs by {found['float32']:.1e}{routing}")
    return directory


def write_old_config(directory, change):
    """`config-old.json`: the settings as published files of Transformers before version 5 say them; Transformers must read the same from both.

    `change` gets the settings, RoPE's popped out of them and given beside, and says them the old way.
    """
    config = json.loads((directory / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.40.0"
    change(config, rope)
    write(directory / "config-old.json", config)
    old = transformers.AutoConfig.from_pretrained(directory / "config-old.json").to_dict()
    new = transformers.AutoConfig.from_pretrained(directory / "config.json").to_dict()
    old["rope_parameters"].pop("type", None)
    different = {key for key in new if old.get(key) != new.get(key)} - {"transformers_version", "_name_or_path"}
    assert not different, f"{directory.name}: {[(key, old.get(key), new.get(key)) for key in different]}"


def write(path, value):
    path.write_text(json.dumps(value, indent=None, separators=(",", ":")) + "\n")
