#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Records what the transformers package makes of the files beside a tokenizer.json: directories.json.

    pip install tokenizers==0.23.3 transformers==5.24.0
    python make_directories.py OUTPUT_DIRECTORY

Each case is a directory's files and, for each text, the ids with special tokens put before it and special tokens in the text found.
"""
import json
import os
import sys
import tempfile

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

TEXTS = ["ab", "<s>a</s>", "<|im_start|>a<think> <pad> b<s>", "a <x>b", "a&b", "<bos><x><s>"]


def token(content: str, special: bool = True, **flags) -> dict:
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": special} | flags


def tokenizer(template: str | None = None, added=()) -> dict:
    """A byte-level tokenizer without merges."""
    vocab = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    result = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.add_special_tokens([AddedToken(content, normalized=False) for content in added])
    if template:
        result.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", result.token_to_id("<s>"))])
    return json.loads(result.to_str())


def main(folder: str) -> None:
    cases = {
        "decoder": (tokenizer(), {"tokenizer_config.json": {"added_tokens_decoder": {
            "256": token("<s>"), "257": token("<|im_start|>"), "258": token("<think>", False), "259": token("<pad>", lstrip=True, rstrip=True)}}}),
        "decoder of other ids": (tokenizer(), {"tokenizer_config.json": {"added_tokens_decoder": {"301": token("<x>"), "300": token("<s>")}}}),
        "decoder of other flags": (tokenizer(added=["<s>", "<x>"]), {"tokenizer_config.json": {"added_tokens_decoder": {
            "256": token("<s>"), "257": token("<x>", lstrip=True)}}}),
        "decoder of a piece": (tokenizer(), {"tokenizer_config.json": {"added_tokens_decoder": {"5": token("&")}}}),
        "decoder, and a name": (tokenizer(), {"tokenizer_config.json": {"added_tokens_decoder": {"256": token("<s>", False)}, "bos_token": "<s>"}}),
        "named piece": (tokenizer(), {"tokenizer_config.json": {"pad_token": "&", "additional_special_tokens": ["b"]}}),
        "added_tokens.json": (tokenizer(), {"added_tokens.json": {"<x>": 256, "<s>": 257}, "special_tokens_map.json": {"bos_token": "<s>"}}),
        "map": (tokenizer(added=["<s>"]), {"special_tokens_map.json": {"bos_token": token("<s>")}}),
        "map before config": (tokenizer(added=["<s>", "<bos>"]), {
            "special_tokens_map.json": {"bos_token": "<bos>"}, "tokenizer_config.json": {"bos_token": "<s>"}}),
        "map without a say": (tokenizer(added=["<s>", "<bos>"]), {
            "special_tokens_map.json": {"bos_token": "<bos>"}, "tokenizer_config.json": {"added_tokens_decoder": {"256": token("<s>")}}}),
        "template, flag false": (tokenizer("<s> $A", ["<s>"]), {"tokenizer_config.json": {"bos_token": "<s>", "add_bos_token": False}}),
        "template, flag true": (tokenizer("<s> $A", ["<s>"]), {"tokenizer_config.json": {"add_bos_token": True}}),
        "template of nothing, flag true": (tokenizer("$A", ["<s>"]), {"tokenizer_config.json": {"bos_token": "<s>", "add_bos_token": True}}),
    }
    record = {"texts": TEXTS, "cases": {}}
    for name, (file, others) in cases.items():
        others.setdefault("tokenizer_config.json", {})["tokenizer_class"] = "PreTrainedTokenizerFast"
        with tempfile.TemporaryDirectory() as directory:
            files = {"tokenizer.json": file} | others
            for path, content in files.items():
                with open(os.path.join(directory, path), "w") as out:
                    json.dump(content, out)
            loaded = AutoTokenizer.from_pretrained(directory)
        texts = {path: json.dumps(content, ensure_ascii=False, separators=(",", ":")) for path, content in files.items()}
        record["cases"][name] = {"files": texts, "bos": loaded.bos_token_id, "ids": [loaded.encode(text) for text in TEXTS]}
    with open(f"{folder}/directories.json", "w") as out:
        json.dump(record, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")


main(sys.argv[1])
