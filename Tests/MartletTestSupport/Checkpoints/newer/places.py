# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Text models whose tokens have places in time, height and width: Transformers' text classes alone, their embedding as the output matrix.

`expected.json` has beside prompts and greedy tokens `places`, [3][tokens], for the first prompt, as an image between two texts has them, and
`placed_greedy`; `expected.safetensors` has `placed`, the logits with them.
"""

import json
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file

from . import truth
from .checkpoints import SIZES, checkpoint


def logits(model, tokens, places=None):
    """[tokens, vocabulary]. places: [3, tokens]; the places of tokens behind them go on from the greatest."""
    if places is None:
        places = torch.arange(len(tokens)).expand(3, -1)
    new = torch.arange(len(tokens) - places.shape[1]) + places.max() + 1
    places = torch.cat([places, new.expand(3, -1)], 1)
    with torch.no_grad(), truth.float64(), truth.NothingRounds():
        hidden = model(input_ids=torch.tensor([tokens]), position_ids=places[:, None], use_cache=False).last_hidden_state[0]
        return (hidden @ model.embed_tokens.weight.T).contiguous()


def greedy(model, prompt, places=None):
    """None where a token is not sure."""
    tokens = list(prompt)
    for _ in range(truth.GREEDY_TOKENS):
        last, best = torch.sort(logits(model, tokens, places)[-1], descending=True)
        if last[0] - last[1] < truth.LEAST_MARGIN:
            return None
        tokens.append(int(best[0]))
    return tokens[len(prompt):]


def image_between_texts(count):
    """Four tokens of text, an image of 3 × 4 patches, and text to the end: the form of Qwen2-VL."""
    places = [[place] * 3 for place in range(4)] + [[4, 4 + row, 4 + column] for row in range(3) for column in range(4)]
    places += [[8 + index] * 3 for index in range(count - len(places))]
    return torch.tensor(places).T


def make(name, kind, config, architecture):
    directory = truth.HERE / name
    for seed in range(1000):
        shutil.rmtree(directory, ignore_errors=True)
        model = kind._from_config(config, dtype=torch.float32, **truth.EAGER)
        truth.draw_parameters(model, seed, gain={"embed": 3})
        model.to(torch.bfloat16).save_pretrained(directory)
        exact = truth.in_float64(truth.load(directory, kind))
        inputs = truth.prompts(config.vocab_size, seed)
        places = image_between_texts(len(inputs[0]))
        found = [*(greedy(exact, prompt) for prompt in inputs), greedy(exact, inputs[0], places)]
        if None not in found:
            break
    expected = {f"logits.{index}": logits(exact, prompt) for index, prompt in enumerate(inputs)}
    expected["placed"] = logits(exact, inputs[0], places)
    save_file({key: values.float() for key, values in expected.items()}, directory / "expected.safetensors")
    truth.write(directory / "expected.json", {"seed": seed, "prompts": inputs, "greedy": found[:2], "places": places.tolist(),
                                              "placed_greedy": found[2]})
    # Names as in the whole model, and its class, by which llama.cpp's converter knows it.
    weights = load_file(directory / "model.safetensors")
    save_file({f"model.{key}": values for key, values in weights.items()}, directory / "model.safetensors", {"format": "pt"})
    settings = json.loads((directory / "config.json").read_text())
    settings["architectures"] = [architecture]
    (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    moved = float((expected["placed"] - expected["logits.0"]).abs().max())
    print(f"{name}: seed {seed}, places move a logit by {moved:.2g}")
    return directory


@checkpoint(gguf="bf16")
def qwen2_vl(name):
    """Sections of pairs side by side, of different lengths. With Qwen 3's tiny tokenizer, so that an engine can run it."""
    sizes = dict(SIZES, hidden_size=64, vocab_size=300)
    sizes.pop("head_dim")
    config = transformers.Qwen2VLConfig().get_text_config().__class__(
        **sizes, tie_word_embeddings=True, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 3, 3]})
    directory = make(name, transformers.Qwen2VLTextModel, config, "Qwen2VLForConditionalGeneration")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(truth.HERE / "qwen3" / file, directory)
    return directory


@checkpoint(gguf="bf16")
def qwen3_vl(name):
    """Sections that take turns until height and width, of different lengths, have theirs."""
    config = transformers.Qwen3VLConfig().get_text_config().__class__(
        **SIZES, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True})
    return make(name, transformers.Qwen3VLTextModel, config, "Qwen3VLForConditionalGeneration")
