#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Records what sentence-transformers makes of sentences in ten scripts: sentences.json.

    pip install sentence-transformers
    python3 make_sentences.py MODEL > sentences.json

MODEL is the directory of all-MiniLM-L6-v2 as `martlet pull all-minilm-l6-v2` brings it. Vectors are base64 of float32 values in little endian.
Made with sentence-transformers 6.2.0, torch 2.13.0 and transformers 5.24.0.
"""
import base64
import json
import sys

from sentence_transformers import SentenceTransformer

SENTENCES = [
    "A martlet is a bird without feet that never lands, e-mail@example.org & $5.00.",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig. Příliš žluťoučký kůň úpěl ďábelské ódy. Tiếng Việt",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "我能吞下玻璃而不伤身体。繁體中文，「引號」。",
    "いろはにほへと ちりぬるを。カタカナ・テスト、１２３。ﾊﾝｶｸ",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "نص حكيم له سر قاطع وذو شأن عظيم دَرَجَة ١٢٣",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण ४२",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า שָׁלוֹם עוֹלָם 👩‍👩‍👧 🇩🇪 x² ≤ ∞",
]

model = SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(SENTENCES, batch_size=4)
json.dump({
    "sentences": SENTENCES,
    "tokens": [model.tokenizer(each)["input_ids"] for each in SENTENCES],
    "vectors": [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors],
}, sys.stdout, ensure_ascii=False, separators=(",", ":"))
print()
