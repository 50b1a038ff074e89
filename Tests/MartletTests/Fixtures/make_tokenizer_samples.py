# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Records what independent tokenizers make of a set of difficult texts: tokenizer-samples.json.

    pip install gguf==0.19.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
    python make_tokenizer_samples.py CACHE_DIRECTORY > tokenizer-samples.json

`smollm2-135m` is the `tokenizers` package's byte-level BPE over the GGUF's vocabulary and merges, `gemma3-270m` the `sentencepiece` package over a
model made of the GGUF's pieces and scores. `words` are the byte lengths of the words that the `tokenizers` package's regular expressions cut.
Special tokens are not interpreted, user-defined tokens are; nothing is put before a text. Bytes that SmolLM2's vocabulary lacks do not occur, because
the two programs that it is used with differ there.
"""
import json
import random
import sys

import sentencepiece as spm
from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

WRITTEN = [
    "", " ", "  ", "\n", "\n\n", "\t", "a", " a", "a ", "  a", "a  b", "a   b ", " \n a", "\r\n", "a\r\nb\r\n\r\nc", "\u00a0a\u00a0\u00a0b",
    "\u2003em\u2003space", "\u3000全角\u3000", "\u0085next", "zero\u200bwidth\u200djoiner\ufeffbom", "tab\t\t\tx\n\n\n\ny",
    "Don't can't I'M WE'LL they'Ve it's 's 't're''ve'll'd rock'n'roll ’s", "'", "''", "'S 'ſ", "it'll'd've",
    "1 12 123 1234 12345 1,234.56 ½ ² Ⅷ ٣٤ ४२ 一二三 1a2b 3.14e-10 0xDEADBEEF 192.168.0.1", "1  2   3\n4", "x1 y22  z333", "½½½½", "٣٤٥٦٧٨٩",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX! (jumps) [over] {the} <lazy> \"dog\" — “quoted” … etc.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Straße, Maß, Äpfel, ÖPNV.",
    "Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis. Noël, garçon, où?",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia. ¿Qué? ¡Año!",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを。東京都に行きました！カタカナ・テスト、１２３。", "我能吞下玻璃而不伤身体。繁體中文測試，「引號」。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.", "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر", "דג סקרן שט בים מאוכזב",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण", "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", "Kŕdeľ ďatľov učí koňa žrať kôru.", "Pchnąć w tę łódź jeża lub ośm skrzyń fig.",
    "e\u0301 vs é, n\u0303 vs ñ, a\u0308\u0323 Å vs Å vs A\u030a", "ﬁ ﬂ ﬀ ™ © ® ℃ № ㍿ Ω Ω", "😀😃 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 ❤️ 1️⃣ #️⃣ ☃ ♞",
    "def f(x):\n    if x > 0:\n        return x ** 2  # comment\n\treturn None\n\n\nclass A(B):\n    pass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; }  // loop\n#include <vector>\n", "let x: [Int?] = xs.map { $0 ?? -1 }\n\nfunc g() throws -> () {}",
    "<html><body><h1>Title</h1><p>Text &amp; more</p><table><tr><td>1</td></tr></table></body></html>", "{\"key\": [1, 2.5, null], \"other\": {\"a\": \"b\\n\"}}",
    "SELECT * FROM t WHERE a='b' AND c<>5;--x", "https://example.org/path?query=1&x=%20#frag user@example.org", "$100 €20 £5 ¥1000 100% ~user ^caret `code` |pipe|",
    "!!! ??? ... --- === *** ___ /// \\\\\\ ::: ;;;", "a" * 300, "ab" * 200, " " * 70, "\n" * 70, "\t" * 40, "- " * 50, "ha" * 100 + " " + "ha" * 100, "▁", "▁▁a ▁b", "a▁ ▁",
    "<|im_start|>user\nhi<|im_end|>", "<s>[INST] hello [/INST]</s>", "<start_of_turn>user\nhi<end_of_turn>\n<eos><bos><unk>", "<0x0A> <0xff>", "<unused5>",
    "\ue000\uf8ff \u2028line\u2029paragraph", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐍈 𠜎", "ǅ ǈ ʰ ˈ ˥ ª º", "a\u0300\u0301\u0302b", "x̲y̲", "Ａｌｐｈａ　１２３", "→ ⇒ ∀x∈ℝ: ∃y ∑∫√", "┌─┐│ │└─┘ ▓▒░",
]


def invented(generator: random.Random) -> str:
    """A text of scraps that meet in ways nobody writes."""
    scraps = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "'", "'s", "'LL", "1", "42", "½", "é", "e\u0301", "日本", "слово", "word", "Word", "WORD", ".", "...", "!?", "_",
              "😀", "👩‍👧", "\u200d", "(", ")", "<b>", "</td>", "▁", "$", "ß", "가", "ก", "\u2003", "ª", "Ⅷ", "-", "—", "#", "the", " the", "ing", "http://"]
    return "".join(generator.choice(scraps) for _ in range(generator.randint(1, 25)))


def byte_level(reader: GGUFReader) -> Tokenizer:
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def sentence_piece(reader: GGUFReader) -> spm.SentencePieceProcessor:
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    scores = reader.fields["tokenizer.ggml.scores"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    model = pb.ModelProto()
    for token, score, kind in zip(tokens, scores, types):
        model.pieces.add(piece=token.replace(" ", "▁") if kind == 4 else token, score=score, type=kind)
    model.trainer_spec.model_type = pb.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(tokens)
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id, model.trainer_spec.pad_id = 3, 2, 1, 0
    model.trainer_spec.unk_piece, model.trainer_spec.bos_piece, model.trainer_spec.eos_piece, model.trainer_spec.pad_piece = "<unk>", "<bos>", "<eos>", "<pad>"
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    processor = spm.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def words(pre_tokenizer, text: str) -> list[int]:
    return [len(word.encode()) for word, _ in pre_tokenizer.pre_tokenize_str(text)]


def main(cache: str) -> None:
    generator = random.Random(20240607)
    texts = WRITTEN + [invented(generator) for _ in range(200)]
    byte_bpe = byte_level(GGUFReader(f"{cache}/smollm2-135m.gguf"))
    piece_bpe = sentence_piece(GGUFReader(f"{cache}/gemma3-270m.gguf"))
    def split(pattern): return pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    patterns = {
        "gpt-2": split(GPT2),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split(GPT2)]),
        "llama-bpe": split(LLAMA3),
        "qwen2": split(LLAMA3.replace("{1,3}", "")),
    }
    json.dump({
        "texts": texts,
        "tokens": {
            "smollm2-135m": [byte_bpe.encode(t).ids for t in texts],
            "gemma3-270m": [piece_bpe.EncodeAsIds(t) for t in texts],
        },
        "words": {name: [words(p, t) for t in texts] for name, p in patterns.items()},
    }, sys.stdout, separators=(",", ":"))
    print()


main(sys.argv[1])
