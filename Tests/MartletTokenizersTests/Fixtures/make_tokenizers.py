#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Trains tiny tokenizers of every kind and records what they make of difficult texts: tokenizers/*.json and tokenizer-ids.json.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
    python make_tokenizers.py OUTPUT_DIRECTORY

`tokenizers/NAME.json` are `tokenizer.json` files as the families of that name have them (Llama 3, Qwen 2, GPT-2, …), with a vocabulary of a few
hundred pieces trained on the texts. `tokenizer-ids.json` has the texts, the ids of the `tokenizers` package for each file (`ids`: special tokens in
the text do not count; `idsSpecial`: they do), and models of the `sentencepiece` package as the tables that a GGUF file would hold, with that
package's ids. Bytes that are not UTF-8 are recorded as Python's `errors="replace"` reads them: each maximal wrong part becomes one U+FFFD.
"""
import base64
import io
import json
import os
import sys
import tempfile

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "", " ", "  ", "\n", "\r\n", "a", " a", "a ", "  a  b   ", " \n a", "a\r\nb\r\n\r\nc\r", "tab\t\t\tx\n\n\n\ny  \n", "\u00a0a\u00a0\u00a0b \u00a0",
    "\u2003em\u2003space\u3000全角\u3000", "\u0085next zero\u200bwidth\u200djoiner\ufeffbom", "\u2028line\u2029paragraph",
    "Don't can't I'M WE'LL they'Ve it's 's 't're''ve'll'd rock'n'roll ’s 'ſ it'ſt", "x'S 'LL'd' '",
    "1 12 123 1234 12345 1,234.56 ½ ² Ⅷ ٣٤ ४२५६ 1a2b 3.14e-10 0xDEADBEEF 192.168.0.1", "½½½½ ٣٤٥٦٧٨٩ 1234567890123",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX! camelCaseWords HTTPServer iOSApp McDonald ABCdef",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. ÄÖÜ Straße",
    "Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis.", "Съешь же ещё этих мягких французских булок, да выпей чаю. МОСКВА",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΟΔΟΣ", "いろはにほへと ちりぬるを。東京都に行きました！カタカナ・テスト、１２３。", "我能吞下玻璃而不伤身体。繁體中文，「引號」。",
    "키스의 고유조건은 입술끼리 만나야 하고", "نص حكيم له سر قاطع وذو شأن عظيم", "دَرَجَة ١٢٣", "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण ४२", "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า ๑๒๓",
    "e\u0301 vs é, n\u0303 vs ñ, a\u0308\u0323 Å A\u030a x\u0302\u0302y", "ﬁ ﬂ ™ ℃ № Ω Ａｌｐｈａ　１２３ ｅ\u0301", "ǅ ǈ ʰ ª º ⅷ",
    "😀😃 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 ❤️ 1️⃣ ☃",
    "def f(x):\n    if x > 0:\n        return x ** 2  # comment\n\treturn None\n\n\nclass A(B):\n    pass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }  // loop\n#include <vector>\n", "<html><p>Text &amp; more</p></html>\n/path/to//file\n\n",
    "{\"key\": [1, 2.5, null], \"b\": {\"a\": \"b\\n\"}}", "https://example.org/path?query=1&x=%20#frag user@example.org $100 €20 `a|b` ~x ^y",
    "!!! ??? ... --- === *** /// \\\\ ::\n\n;;;/\r\n", "▁ ▁▁a ▁b a▁ ▁", "<s>hello</s> world <unk> <tool> <|end|>x  <mask>  y", "hello </s> <s>a", "<0x0A> <0xff>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "-" * 40 + " " * 33 + "=" * 20 + "\n" * 9 + "x",
    "\U00010348 \U0002070E 𝔘𝔫𝔦 𝟙𝟚 x̲y̲ \u0000 \u0007",
]
BROKEN = ["61ff62", "e28261", "f09f98", "c0af 20", "eda080", "f4908080", "80", "61e2 8261"]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def cased(suffix: str, digits: str) -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    return (f"{start}{UPPER}*{LOWER}+{suffix}|{start}{UPPER}+{LOWER}*{suffix}|{digits}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


DEEPSEEK3 = [
    r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
]


def split(*patterns: str):
    steps = [pre_tokenizers.Split(Regex(p), behavior="isolated", invert=False) for p in patterns]
    return pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])


def added(tokenizer: Tokenizer) -> None:
    """A control token, plain added ones, and one that takes the space before it along."""
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<mask>", normalized=True, lstrip=True, rstrip=True)])


def byte_level(pre_tokenizer, normalizer=None, size=500, bos=False, **options) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens=["<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 2, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    added(tokenizer)
    if bos:
        template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def piece_bpe(normalizer, pre_tokenizer, decoder, size=300, byte_fallback=True) -> Tokenizer:
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if normalizer:
        trained.normalizer = normalizer
    if pre_tokenizer:
        trained.pre_tokenizer = pre_tokenizer
    # The alphabet is cut short, so that some characters have no piece.
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=150, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    words = [line for text in TEXTS for line in text.split("\n") if len(line) < 60]
    trained.train_from_iterator(words * 2, trainer)
    file = json.loads(trained.to_str())
    pieces = sorted(file["model"]["vocab"], key=file["model"]["vocab"].get)
    names = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    file["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces[:3] + names + pieces[3:])}
    file["model"]["byte_fallback"] = byte_fallback
    tokenizer = Tokenizer.from_str(json.dumps(file))
    tokenizer.decoder = decoder
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    added(tokenizer)
    return tokenizer


def unigram(normalizer, pre_tokenizer, decoder, model: pb.ModelProto, byte_fallback: bool) -> Tokenizer:
    vocab = [(p.piece, p.score) for p in model.pieces]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=byte_fallback))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    added(tokenizer)
    return tokenizer


def word_pieces(size=400, **options) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The alphabet is cut short, so that some words are unknown.
    trainer = trainers.WordPieceTrainer(vocab_size=size, limit_alphabet=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 2, trainer)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")])
    added(tokenizer)
    return tokenizer


def train_pieces(**options) -> pb.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        rules = os.path.join(folder, "rules.tsv")
        with open(rules, "w") as file:
            for source, target in [("Ａ", "A"), ("ｌ", "l"), ("ｐ", "p"), ("ｈ", "h"), ("ａ", "a"), ("ｅ", "e"), ("\u3000", " "), ("\u00a0", " "), ("\t", " "), ("ﬁ", "fi"),
                                   ("e\u0301", "é"), ("n\u0303", "ñ"), ("A\u030a", "Å"), ("™", "TM"), ("№", "No"), ("\u200b", ""), ("１", "1"), ("㍿", "株式会社")]:
                file.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        if options.pop("rules", False):
            options["normalization_rule_tsv"] = rules
        else:
            options["normalization_rule_name"] = "identity"
        out = io.BytesIO()
        # Without the scripts of many characters, which have no pieces then.
        lines = [line for text in TEXTS[:25] + TEXTS[36:] for line in text.split("\n") if line.strip() and "\0" not in line]
        spm.SentencePieceTrainer.Train(sentence_iterator=iter(lines * 4), model_writer=out, minloglevel=2, num_threads=1, hard_vocab_limit=options["model_type"] == "bpe", **options)
    model = pb.ModelProto()
    model.ParseFromString(out.getvalue())
    return model


def table(model: pb.ModelProto) -> dict:
    processor = spm.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    normalizer = model.normalizer_spec
    return {
        "pieces": [p.piece for p in model.pieces], "scores": [p.score for p in model.pieces], "types": [p.type for p in model.pieces],
        "addDummyPrefix": normalizer.add_dummy_prefix, "removeExtraWhitespaces": normalizer.remove_extra_whitespaces,
        "charsmap": base64.b64encode(normalizer.precompiled_charsmap).decode(),
        # The package ends a text at a zero.
        "ids": [processor.EncodeAsIds(t) if "\0" not in t else None for t in TEXTS],
    }


def main(folder: str) -> None:
    space = normalizers.Replace(" ", "▁")
    pieces = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    pieces_strip = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    metaspace = {scheme: pre_tokenizers.Metaspace(prepend_scheme=scheme, split=scheme == "always") for scheme in ["always", "first", "never"]}
    sentence = {
        "unigram": train_pieces(model_type="unigram", vocab_size=400, character_coverage=0.98, rules=True, user_defined_symbols=["<tool>", "==", "  "]),
        "unigram-bytes": train_pieces(model_type="unigram", vocab_size=520, character_coverage=0.98, byte_fallback=True, remove_extra_whitespaces=False),
        "unigram-plain": train_pieces(model_type="unigram", vocab_size=420, character_coverage=1.0, add_dummy_prefix=False),
        "bpe-bytes": train_pieces(model_type="bpe", vocab_size=520, character_coverage=0.98, byte_fallback=True, remove_extra_whitespaces=False),
    }
    charsmap = sentence["unigram"].normalizer_spec.precompiled_charsmap
    tokenizers = {
        "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "gpt2-prefix": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "smollm": byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])),
        "llama3": byte_level(split(LLAMA3), bos=True, ignore_merges=True),
        "qwen2": byte_level(split(QWEN2), normalizers.NFC()),
        "qwen35": byte_level(split(QWEN35), normalizers.NFC()),
        "tekken": byte_level(split(cased("", r"\p{N}")), bos=True, ignore_merges=True),
        "gpt4o": byte_level(split(cased("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}"))),
        "deepseek3": byte_level(split(*DEEPSEEK3), bos=True),
        "llama2": piece_bpe(normalizers.Sequence([normalizers.Prepend("▁"), space]), None, pieces_strip),
        "mistral": piece_bpe(None, metaspace["first"], pieces_strip),
        "gemma": piece_bpe(space, pre_tokenizers.Split(" ", "merged_with_previous"), pieces),
        "pieces-unknown": piece_bpe(normalizers.Sequence([normalizers.Lowercase(), normalizers.NFD(), normalizers.Strip()]), metaspace["always"], decoders.Metaspace(), byte_fallback=False),
        "t5": unigram(normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]), metaspace["always"], decoders.Metaspace(), sentence["unigram"], False),
        "unigram-bytes": unigram(normalizers.Replace(" ", "▁"), metaspace["never"], decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")]), sentence["unigram-bytes"], True),
        "bert": word_pieces(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True),
        "bert-cased": word_pieces(clean_text=True, handle_chinese_chars=False, strip_accents=None, lowercase=False),
        "bert-accents": word_pieces(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=True),
    }
    os.makedirs(f"{folder}/tokenizers", exist_ok=True)
    record = {"texts": TEXTS, "broken": [], "ids": {}, "idsSpecial": {}, "words": {}, "sentencePiece": {name: table(model) for name, model in sentence.items()}}
    for broken in BROKEN:
        data = bytes.fromhex(broken.replace(" ", ""))
        record["broken"].append({"hex": data.hex(), "ids": tokenizers["gpt2"].encode(data.decode(errors="replace"), add_special_tokens=False).ids})
    for name, tokenizer in tokenizers.items():
        file = json.loads(tokenizer.to_str())
        with open(f"{folder}/tokenizers/{name}.json", "w") as out:
            json.dump(file, out, ensure_ascii=False, separators=(",", ":"))
            out.write("\n")
        tokenizer.encode_special_tokens = True
        record["ids"][name] = [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
        tokenizer.encode_special_tokens = False
        special = [i for i, t in enumerate(TEXTS) if "<" in t]
        record["idsSpecial"][name] = {str(i): tokenizer.encode(TEXTS[i], add_special_tokens=False).ids for i in special}
    # The pre-tokenizers of GGUF files that no tokenizer.json above has, as llama.cpp cuts: every pattern cuts the pieces of the one before.
    default = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]
    for name, patterns in {"default": default, "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
                           "bloom": [r" ?[^(\s|.,!?…。，、।۔،)]+"], "seed-coder": [LLAMA3.replace("{1,3}", "{1}").replace(r"N}]+[\r\n]*", r"N}\r\n]+")],
                           "bailingmoe": [QWEN2.replace(r"\s*[\r\n]+", r"\s*[\r\n]")]}.items():
        cut = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns])
        # "(?i:" finds a long s, which llama.cpp's patterns do not.
        record["words"][name] = [[len(w.encode()) for w, _ in cut.pre_tokenize_str(t)] if "ſ" not in t else None for t in TEXTS]
    with open(f"{folder}/tokenizer-ids.json", "w") as out:
        json.dump(record, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")


main(sys.argv[1])
