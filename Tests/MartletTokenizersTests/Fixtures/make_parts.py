#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Records what the tokenizers package makes of parts of a tokenizer.json that the trained ones lack: parts.json.

    pip install tokenizers==0.23.3
    python make_parts.py OUTPUT_DIRECTORY

`files` has small `tokenizer.json` files with texts and ids. In those of `words` every word is one unknown token, so that the number of ids tells how
a pattern cuts. `pre` has the lengths of words that the patterns behind the names of GGUF files' pre-tokenizers cut, each the pieces of the one before.
The texts of `words` and `pre` are those of tokenizer-ids.json, and `digits`.
"""
import json
import sys
import unicodedata

from tokenizers import Regex, Tokenizer, pre_tokenizers

DIGITS = ["1234567 12a 1234a x123 _1234 1_234 12345678901234567890", "٣٤٥٦٧ 1\u0301234 ½123 12½ 1.234,5678", "漢字1234かな カタカナ 한국어 ไทย",
          "12① 12Ⓐ 12\u200d 12² 12Ⅷ 12৴ 12‿ 12％", "  \n  a \n\n b  ", " \r\n x \n", "\n \n \nx   y   ",
          " " * 1100 + "x" + " " * 511 + "\u3000y" + " " * 300 + "\n" + " " * 4 + "z" + " " * 7, "a b  c\u0301 \u0301d é f1 g\u0301\u0302 h, 漢 字 x漢y漢's X漢'S it's 漢 DON'T Don't 한 국 ",
          "1½23 12½ ½1234 123456x x1234567 ²³ ١٢٣٤ 1234٥"]
FORMS = ["", "plain", "\u0301a½", "한글 ᄒ ㅎㅏㄴ ﾡￂ ᄒ\u1161\u11ab 각\u11a8 각ￂ\u11a8 ㈀ ㉠ ￦ 가ㄱ", "e\u0301ﬁ\u0323\u0307 ſ\u0307\u0323 \u1e9b\u0323 ½\u0301 Å\u0327 \u0344 \ufdfa ①\u20dd",
         "ｶﾞ ﾊﾟ カ\u3099 ｶ\u0301\u3099 \u0958 \u212a \u212b \u2126 \u03d3 \u0e33 \u0f77\u0f71 \uff9e", "<x>＜ｘ＞<ｘ> a＜x＞b \u00a8\u0301\u0327 \u1fc1", "…‥․ ㍿㎏ ² x²\u0327 \U0001d400\u0301"]
CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER, START = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[^\r\n\p{L}\p{N}]?"
CASED = (f"{START}{UPPER}*{LOWER}+{CONTRACTIONS}?|{START}{UPPER}+{LOWER}*{CONTRACTIONS}?|%s" r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES)
HANLESS = (UPPER[:-1] + r"&&[^\p{Han}]]", LOWER[:-1] + r"&&[^\p{Han}]]", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?")
KIMI = START + "%s*%s+%s" % HANLESS + "|" + START + "%s+%s*%s" % HANLESS
QWEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
THREES = r"\d{1,3}(?=(?:\d{3})*\b)"
LETTERS = (
    "\\s?["
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d"
    "\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-"
    "\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-"
    "\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-"
    "\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-"
    "\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-"
    "\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+")
WORDS = {
    "line ends": r"\s+$", "threes": THREES, "threes of numbers": r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)", "threes or one": THREES + r"|\p{N}",
    "repeated repeat": r"\p{N}{1,3}+", "repeated repeat of two": r"\p{L}{2,}+", "han": r"[\p{Han}]+", "not han": r"[^\p{Han}\s]+",
    "scripts": r"[\p{Hiragana}\p{Katakana}]+|\p{Hangul}+|\p{Thai}",
}
PRE = {
    "deepseek-llm": [r"[\r\n]", LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}+"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"],
    "youtu": ["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+", CASED % r"\p{N}"],
    "tiny_aya": [THREES, CASED % r"\p{N}{1,3}"],
    "granite-embed-multi-97m": [CASED % r"\p{N}{1,3}"],
    "ufakzeka": [QWEN],
    "laguna": [r"[^\n]+|[\n]+", CONTRACTIONS + "|" + QWEN],
    "spark2_5": [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
                 PUNCTUATION + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"],
    "roberta-bpe": [GPT2],
    "jais-2": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               + "".join(r"|\s{%s}(?!\S)" % count for count in [512, 256, 128, 64, 32, 16, 8, 4, "1,2"]) + r"|\s{1}"],
    "exaone-moe": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"],
    "kimi-k2": [r"[\p{Han}]+|" + KIMI + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES],
    "afmoe": [r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
              PUNCTUATION + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + SPACES],
}


def token(id: int, content: str, special: bool = False, **flags) -> dict:
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special} | flags


def bpe(pieces: str, tokens=(), **parts) -> dict:
    vocab = {"?": 0} | {piece: i + 1 for i, piece in enumerate(pieces)}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [token(len(vocab) + i, **t) for i, t in enumerate(tokens)], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": {"type": "BPE", "unk_token": "?", "fuse_unk": True, "vocab": vocab, "merges": []}} | parts


# Tokens of the kinds that Qwen 3's file has, and one that is looked for in the normalised text.
QWEN3 = bpe("<>|/_abcdefghijklmnopqrstuvwxyz \n", [
    {"content": "<|endoftext|>", "special": True}, {"content": "<|im_start|>", "special": True}, {"content": "<|im_end|>", "special": True},
    {"content": "<tool_call>"}, {"content": "</tool_call>"}, {"content": "<think>"}, {"content": "</think>"}, {"content": "<n>", "normalized": True}], normalizer={"type": "NFC"})
QWEN3_TEXTS = ["<think>a</think>", "<|im_start|>user\n<think>\n</think><tool_call>x</tool_call><|im_end|>\n", "<|im_end|><|endoftext|>", "<n>a<n>", "<th<think>ink>",
               "<|im_<|im_end|>end|>", "<|im_end<think>|>", "<|im_start|><n><think>"]


def metaspace(scheme: str) -> dict:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}


def main(folder: str) -> None:
    strip = {"type": "Strip", "strip_left": True, "strip_right": False}
    spaces = [" a", "a", "  a b", "a <x> b", "<x> a", " <x>a", "", " "]
    mask = [{"content": "<m>", "lstrip": True, "rstrip": True}, {"content": "  "}, {"content": "<n>", "rstrip": True}]
    masked = ["<m>  x", "<m>   x", "x  <m>  ", "<n>    x", "<n>  <m>  x", "<m>  <m>   <n>  ", "x <m>\n  \tx", "  <m>", "<n>     <n>"]
    single = [{"content": "ab", "single_word": True}, {"content": "<a>", "single_word": True}, {"content": "b"}]
    singles = ["ab", "ab ab", "xab", "abx", " ab-ab.ab", "_ab", "ab_", "éab", "abé", "ab1", "1ab", "ab\u0301", "ab\u200d", "<a>", "x<a>", "<a><a>", "ab½", "abⅧ", "ab①", "ab漢"]
    every = "".join(chr(c) for c in [*range(1, 0x250), *range(0x300, 0x370), *range(0x1680, 0x1681), *range(0x2000, 0x2070), 0x2581, 0x3000, 0xFEFF, 0xFFFD, 0x903, 0x20DD])
    files = {
        "first after strip": (bpe("▁ab", [{"content": "<x>"}], normalizer=strip, pre_tokenizer=metaspace("first")), spaces),
        "first after prepend": (bpe("▁ab", [{"content": "<x>"}], normalizer={"type": "Prepend", "prepend": "b"}, pre_tokenizer=metaspace("first")), spaces),
        "first after strip and prepend": (bpe("▁ab", [{"content": "<x>"}], normalizer={"type": "Sequence", "normalizers": [strip, {"type": "Prepend", "prepend": "b"}]}, pre_tokenizer=metaspace("first")), spaces),
        "first after removal": (bpe("▁ab", [{"content": "<x>"}], normalizer={"type": "Replace", "pattern": {"String": " "}, "content": ""}, pre_tokenizer=metaspace("first")), spaces),
        "first after replacement": (bpe("▁ab", [{"content": "<x>"}], normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "b"}, pre_tokenizer=metaspace("first")), spaces),
        "taken spaces": (bpe(" x", mask), masked),
        "single words": (bpe("ab", single), singles),
        "nmt": (bpe("\u0300" + every, normalizer={"type": "Nmt"}), [every]),
        "strip accents": (bpe(every, normalizer={"type": "StripAccents"}), [every]),
        "strip accents of NFD": (bpe(every, normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}), [every]),
    }
    # Every character that the two forms know, the latest ones among them, which the package leaves as they are.
    compatible = "".join(c for c in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]) if unicodedata.normalize("NFKD", c) != unicodedata.normalize("NFD", c))
    forms = [compatible[i:i + 500] for i in range(0, len(compatible), 500)] + FORMS
    for form in ["NFKC", "NFKD"]:
        pieces = "".join(sorted(set(unicodedata.normalize(form, "".join(forms))) - {"?"}))
        files[form] = (bpe(pieces, [{"content": "<x>", "normalized": True}], normalizer={"type": form}), forms)
    record = {"files": {}, "digits": DIGITS, "words": {}, "pre": {}}
    for name, (file, texts) in files.items():
        text = json.dumps(file, ensure_ascii=False, separators=(",", ":"))
        tokenizer = Tokenizer.from_str(text)
        record["files"][name] = {"file": text, "texts": texts, "ids": [tokenizer.encode(t).ids for t in texts]}
    with open(f"{folder}/tokenizer-ids.json") as file:
        texts = json.load(file)["texts"] + DIGITS
    for name, pattern in WORDS.items():
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        text = json.dumps(bpe("", pre_tokenizer=split), ensure_ascii=False, separators=(",", ":"))
        tokenizer = Tokenizer.from_str(text)
        record["words"][name] = {"file": text, "counts": [len(tokenizer.encode(t).ids) for t in texts]}
    for name, patterns in PRE.items():
        cut = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns])
        record["pre"][name] = [[len(w.encode()) for w, _ in cut.pre_tokenize_str(t)] for t in texts]
    text, tokenizer = (lambda file: (file, Tokenizer.from_str(file)))(json.dumps(QWEN3, ensure_ascii=False, separators=(",", ":")))
    record["contents"] = {"file": text, "texts": QWEN3_TEXTS, "ids": [tokenizer.encode(t).ids for t in QWEN3_TEXTS]}
    tokenizer.encode_special_tokens = True
    record["contents"]["idsAsText"] = [tokenizer.encode(t).ids for t in QWEN3_TEXTS]
    with open(f"{folder}/parts.json", "w") as out:
        json.dump(record, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")


main(sys.argv[1])
