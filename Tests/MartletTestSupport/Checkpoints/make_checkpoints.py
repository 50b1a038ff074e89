#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes the tiny checkpoints beside it, and what Transformers computes with them.

    pip install torch transformers tokenizers gguf
    python3 make_checkpoints.py

Every model is drawn from a seed, stored in one of three types, read back by Transformers and run in float32 with eager attention. Beside each
checkpoint lie `expected.safetensors` (the logits after each token of each prompt) and `expected.json` (prompts, greedy tokens). `model.gguf` is
the same model written with the gguf package (`model-0000n-of-0000m.gguf`: in parts), its names from that package's table. `rope.json` has
RoPE's frequencies for every kind of scaling, `defaults.json` what Transformers' classes take for settings that are missing.

Made with torch 2.15.0, transformers 5.24.0, tokenizers 0.23.3, gguf 0.19.0.
"""

import json
import pathlib
import shutil

import gguf
import numpy
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = pathlib.Path(__file__).resolve().parent
GREEDY_TOKENS = 8
# A greedy token is only worth comparing if rounding cannot choose another.
LEAST_MARGIN = 0.05

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, vocab_size=128)


def draw(config, seed):
    """A model with weights that keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    is_gemma = config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight") or "layernorm" in name:
                parameter.copy_(noise * 0.2 + (0 if is_gemma else 1))
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.5)
            else:
                # Logits a few units apart, so that greedy tokens are sure.
                parameter.copy_(noise * (2 if "lm_head" in name else 1) / parameter.shape[-1] ** 0.5)
    return model


def prompts(vocabulary, seed):
    random = numpy.random.default_rng(seed)
    return [random.integers(0, vocabulary, length).tolist() for length in (24, 5)]


def run(directory, prompts):
    """Logits and greedy tokens of what is in the directory; None if a greedy token is not sure."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    logits, greedy = {}, []
    with torch.no_grad():
        for index, prompt in enumerate(prompts):
            logits[f"logits.{index}"] = model(torch.tensor([prompt]), use_cache=False).logits[0].contiguous()
            tokens = list(prompt)
            for _ in range(GREEDY_TOKENS):
                last = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
                best = torch.topk(last, 2)
                if best.values[0] - best.values[1] < LEAST_MARGIN:
                    return None
                tokens.append(int(best.indices[0]))
            greedy.append(tokens[len(prompt):])
    return logits, greedy


def make(name, config, dtype, shard_size="1GB"):
    directory = HERE / name
    for seed in range(1000):
        shutil.rmtree(directory, ignore_errors=True)
        draw(config, seed).to(dtype).save_pretrained(directory, max_shard_size=shard_size)
        (directory / "generation_config.json").unlink(missing_ok=True)
        inputs = prompts(config.vocab_size, seed)
        if result := run(directory, inputs):
            break
    logits, greedy = result
    save_file(logits, directory / "expected.safetensors")
    write(directory / "expected.json", {"seed": seed, "prompts": inputs, "greedy": greedy})
    return directory


def write(path, value):
    path.write_text(json.dumps(value, indent=None, separators=(",", ":")) + "\n")


def write_gguf(directory, architecture, name, **split):
    """The directory's model as GGUF, in the types of its tensors; norms and biases in float32."""
    config = json.loads((directory / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    stored = {"bfloat16": gguf.GGMLQuantizationType.BF16, "float16": gguf.GGMLQuantizationType.F16}[config["dtype"]]
    writer = gguf.GGUFWriter(directory / "model.gguf", name, **split)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_name(f"tiny {name}")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    if name == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    state = model.state_dict()
    if config["tie_word_embeddings"]:
        state.pop("lm_head.weight")
    for original, tensor in state.items():
        values = tensor.numpy()
        target = names.get_name(original, try_suffixes=(".weight", ".bias"))
        kind = stored if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(target, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tokenizer(directory, vocabulary_size):
    """A byte-level BPE as Qwen's, trained on a few sentences, and what it makes of a prompt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size - len(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["the swift sleeps in the sky and the martlet never lands there"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": special[1:2]})
    fast.chat_template = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    fast.save_pretrained(directory)
    ends = sorted([fast.convert_tokens_to_ids("<|im_end|>"), fast.convert_tokens_to_ids("<|endoftext|>")])
    write(directory / "generation_config.json", {"eos_token_id": ends})
    text = "The swift's nest, 12 é\n"
    tokens = fast(text)["input_ids"]
    return {"text": text, "text_tokens": tokens, "end_tokens": ends}


def rope_cases():
    """Settings of a Llama with 16 dims a head, and the frequencies that Transformers makes of them."""
    long = {"short_factor": [1.0 + 0.25 * i for i in range(8)], "long_factor": [2.0 + 1.5 * i for i in range(8)]}
    scalings = [
        ("default", {"rope_type": "default"}), ("linear", {"rope_type": "linear", "factor": 4.0}),
        ("dynamic", {"rope_type": "dynamic", "factor": 4.0}), ("llama3", {k: v for k, v in LLAMA3.items() if k != "rope_theta"}),
        ("yarn", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
        ("yarn with betas", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 0.5}),
        ("yarn with mscales", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.5,
                               "mscale_all_dim": 0.75}),
        ("yarn with an attention factor", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                           "attention_factor": 1.25}),
        ("longrope", {"rope_type": "longrope", "original_max_position_embeddings": 16, **long}),
        ("longrope with a factor", {"rope_type": "longrope", "original_max_position_embeddings": 16, "factor": 6.0, **long}),
        ("longrope with an attention factor", {"rope_type": "longrope", "original_max_position_embeddings": 16, "attention_factor": 1.5,
                                               **long}),
    ]
    cases = []
    for name, scaling in scalings:
        config = LlamaConfig(**SIZES, rope_parameters={**scaling, "rope_theta": 500000.0})
        for length in (8, 64):
            if scaling["rope_type"] == "default":
                frequencies, factor = 1.0 / 500000.0 ** (torch.arange(0, 16, 2).float() / 16), 1.0
            else:
                frequencies, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"), seq_len=length)
            new = json.loads(config.to_json_string())
            old = {k: v for k, v in new.items() if k != "rope_parameters"}
            old["rope_theta"] = 500000.0
            if scaling["rope_type"] != "default":
                old["rope_scaling"] = {**{k: v for k, v in scaling.items() if k != "rope_type"}, "type": scaling["rope_type"]}
            cases.append({"name": name, "length": length, "config": new, "old_config": old, "frequencies": frequencies.tolist(),
                          "magnitude": float(factor)})
    return cases


def class_defaults():
    """What Transformers' classes make of a config.json that says nothing but its type."""
    cases = {name: AutoConfig.for_model(name) for name in (
        "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma3_text", "gemma2", "granite", "phi3", "smollm3", "mixtral", "qwen3_moe",
        "bert", "deepseek_v2", "deepseek_v3", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text")}
    cases |= {f"{name} with windows": AutoConfig.for_model(name, use_sliding_window=True) for name in ("qwen2", "qwen3", "qwen2_vl_text", "qwen2_5_vl_text")}
    keys = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "max_position_embeddings", "rms_norm_eps", "rope_parameters", "sliding_window", "layer_types", "query_pre_attn_scalar",
            "tie_word_embeddings", "attn_logit_softcapping", "final_logit_softcapping", "embedding_multiplier", "residual_multiplier",
            "attention_multiplier", "logits_scaling", "no_rope_layers", "num_local_experts", "num_experts",
            "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "q_lora_rank", "kv_lora_rank",
            "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "n_routed_experts", "n_shared_experts", "first_k_dense_replace",
            "routed_scaling_factor", "n_group", "topk_group", "layer_norm_eps", "type_vocab_size"]
    return {name: {key: getattr(config, key) for key in keys if hasattr(config, key)} for name, config in cases.items()}


def main():
    llama = make("llama", LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=False), torch.bfloat16, "60KB")
    # The same settings as Transformers before version 5 wrote them.
    config = json.loads((llama / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    write(llama / "config-old.json", config)

    gemma = dict(SIZES, hidden_size=32, intermediate_size=48, num_hidden_layers=3)
    gemma = make("gemma3", Gemma3TextConfig(
        **gemma, head_dim=16, sliding_window=8, sliding_window_pattern=2, query_pre_attn_scalar=24), torch.float32)
    config = json.loads((gemma / "config.json").read_text())
    for key in ("layer_types", "rope_parameters"):
        config.pop(key)
    config.update(rope_theta=1000000.0, rope_local_base_freq=10000.0, sliding_window_pattern=2)
    write(gemma / "config-old.json", config)

    qwen2 = make("qwen2", Qwen2Config(**SIZES, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
                 torch.float16)
    # In parts, the first of which has metadata only.
    write_gguf(qwen2, gguf.MODEL_ARCH.QWEN2, "qwen2", split_max_tensors=12, small_first_shard=True)

    sizes = dict(SIZES, intermediate_size=64, vocab_size=300)
    qwen3 = make("qwen3", Qwen3Config(
        **sizes, head_dim=32, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}), torch.bfloat16)
    write_gguf(qwen3, gguf.MODEL_ARCH.QWEN3, "qwen3")
    expected = json.loads((qwen3 / "expected.json").read_text())
    expected.update(write_tokenizer(qwen3, 300))
    write(qwen3 / "expected.json", expected)

    # Windows from a layer on, which Qwen's settings can ask for and no published model has.
    make("qwen2-window", Qwen2Config(
        **dict(SIZES, hidden_size=32, intermediate_size=32), use_sliding_window=True, sliding_window=6, max_window_layers=1,
        tie_word_embeddings=True), torch.float16)
    write(HERE / "rope.json", rope_cases())
    write(HERE / "defaults.json", class_defaults())


main()
