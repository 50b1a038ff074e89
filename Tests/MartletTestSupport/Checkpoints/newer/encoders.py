# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Models whose answer is a vector: directories as sentence-transformers lays them out.

`expected.safetensors` has for each input the last hidden states `hidden.i` [tokens, hidden], `pooled.i` [hidden], and `embedding.i`: what the
modules behind the pooling make of it, of length 1.
"""

import json
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from . import truth
from .checkpoints import SIZES, checkpoint

TEXTS = ["The martlet's nest: never lands, 12 times!", "Über den Wolken", "swift", "sleeping swifts sleep unseen \u4e2d\u6587 in \u00e9t\u00e9"]


def hidden(model, tokens):
    """[tokens, hidden]"""
    with torch.no_grad(), truth.float64(), truth.NothingRounds():
        return model(input_ids=torch.tensor([tokens])).last_hidden_state[0].contiguous()


def pool(directory, states):
    settings = json.loads((directory / "1_Pooling" / "config.json").read_text())
    return states.mean(0) if settings["pooling_mode_mean_tokens"] else states[-1]


def embedding(directory, pooled):
    for folder in sorted(directory.glob("*_Dense")):
        pooled = load_file(folder / "model.safetensors")["linear.weight"].double() @ pooled
    return pooled / pooled.norm()


def write_modules(directory, mode, width, dense=()):
    """`modules.json` and its folders; dense: weights [out, in] behind the pooling."""
    kinds = ["Transformer", "Pooling"] + ["Dense"] * len(dense) + ["Normalize"]
    truth.write(directory / "modules.json", [
        {"idx": index, "name": str(index), "path": "" if index == 0 else f"{index}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)])
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    (directory / "1_Pooling").mkdir()
    truth.write(directory / "1_Pooling" / "config.json",
                {"word_embedding_dimension": width, **{f"pooling_mode_{each}": each == mode for each in modes}, "include_prompt": True})
    for index, weight in enumerate(dense, start=2):
        folder = directory / f"{index}_Dense"
        folder.mkdir()
        truth.write(folder / "config.json", {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": False,
                                             "activation_function": "torch.nn.modules.linear.Identity"})
        save_file({"linear.weight": weight}, folder / "model.safetensors", {"format": "pt"})


def make(name, config, dtype, mode, architecture=None, norms_add_one=False, gain={}, dense=(), tokens=None, tokenizer=None, lengths=(23, 4)):
    """The checkpoint `name`, from seed 0: nothing is chosen here. `tokens`: of TEXTS; else random ones."""
    directory = truth.HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    model = transformers.AutoModel.from_config(config, dtype=torch.float32, attn_implementation="eager")
    truth.draw_parameters(model, 0, norms_add_one, gain)
    model.to(dtype).save_pretrained(directory)
    if architecture:
        settings = json.loads((directory / "config.json").read_text())
        settings["architectures"] = [architecture]
        (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    generator = torch.Generator().manual_seed(1)
    write_modules(directory, mode, config.hidden_size, [
        (torch.randn(shape, generator=generator) / shape[1] ** 0.5).bfloat16().float() for shape in dense])
    if tokenizer:
        tokenizer.save_pretrained(directory)
    inputs = tokens or truth.prompts(config.vocab_size, 0, lengths)
    model = truth.load(directory, transformers.AutoModel)
    exact = truth.in_float64(model)
    expected, rounding = {}, 0
    for index, prompt in enumerate(inputs):
        states = expected[f"hidden.{index}"] = hidden(exact, prompt)
        pooled = expected[f"pooled.{index}"] = pool(directory, states)
        expected[f"embedding.{index}"] = embedding(directory, pooled)
        with torch.no_grad():
            rounding = max(rounding, float((model(input_ids=torch.tensor([prompt])).last_hidden_state[0] - states).abs().max()))
    assert rounding < truth.MOST_ROUNDING, f"{name}: rounding grows to {rounding}"
    save_file({key: values.float() for key, values in expected.items()}, directory / "expected.safetensors")
    truth.write(directory / "expected.json", {"seed": 0, "prompts": inputs, **({"texts": TEXTS} if tokens else {})})
    print(f"{name}: float32 differs by {rounding:.1e}")
    return directory


def word_pieces():
    """A tokenizer in the manner of BERT's uncased ones: words, letters and their continuations."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["the", "mart", "##let", "swift", "##ing", "sleep", "##s", "un", "##seen", "in", "uber", "den", "wolken", "never", "land", "nest",
             "time", "12", "\u4e2d"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"!',-.:?0123456789", *letters, *(f"##{each}" for each in letters), *words]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for index in range(len(vocabulary), 128):
        vocabulary[f"[unused{index}]"] = index
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


@checkpoint(gguf="f32", pre="bert-bge")
def bert(name):
    """The form of all-MiniLM: BertModel with a pooler that nobody reads, in float32, mean pooling."""
    config = transformers.BertConfig(vocab_size=128, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, intermediate_size=52,
                                     max_position_embeddings=48, type_vocab_size=2, layer_norm_eps=1e-12)
    tokenizer = word_pieces()
    # Embeddings that are large beside their layer norm's bias; GELU wide enough to tell its two formulas apart.
    return make(name, config, torch.float32, "mean_tokens", tokens=[tokenizer(text)["input_ids"] for text in TEXTS], tokenizer=tokenizer,
                gain={"embeddings.weight": 3, "_embeddings": 3, "intermediate": 2})


@checkpoint(gguf="bf16")
def qwen3_embedding(name):
    """The form of Qwen3-Embedding: the class of a language model, names without `model.`, the last token's state."""
    config = transformers.Qwen3Config(**SIZES, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    return make(name, config, torch.bfloat16, "lasttoken", architecture="Qwen3ForCausalLM")


@checkpoint(gguf="bf16", arguments=["--sentence-transformers-dense-modules"])
def gemma3_embedding(name):
    """The form of EmbeddingGemma: attention to both sides, in a window of 9 that reaches 4 tokens either way; two dense layers behind.

    Layers and scale as GGUF has them: every sixth layer is full, and scores are scaled by the head's dimension.
    """
    sizes = dict(SIZES, hidden_size=32, intermediate_size=28, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=1)
    config = transformers.Gemma3TextConfig(
        **sizes, sliding_window=9, query_pre_attn_scalar=16, use_bidirectional_attention=True,
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                         "full_attention": {"rope_type": "default", "rope_theta": 1000000.0}})
    return make(name, config, torch.bfloat16, "mean_tokens", norms_add_one=True, dense=((72, 32), (32, 72)))
