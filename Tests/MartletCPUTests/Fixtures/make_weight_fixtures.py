#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes weights.json: for each weight format random blocks, and what the `gguf` package's dequantisation makes of them; of e4m3, which it does not
know, what `ml_dtypes` makes.

    pip install gguf ml_dtypes && python3 make_weight_fixtures.py

Bytes and values (little-endian float32) are base64. Codes are random bytes; in every matrix one block has all codes 0 and one all
ones. Scales are halves of every kind that is finite: both signs, zero, subnormal, the greatest; MXFP4's are powers of two down to the subnormal ones,
NVFP4's every byte.
"""

import base64
import importlib.metadata
import json
import pathlib

import gguf
import ml_dtypes
import numpy as np

SEED = 20250601
# For each format: where halves lie in a block, rows, columns. 17 rows are one more than a kernel's group.
FORMATS = {
    "F32": ([], 17, 20),
    "F16": ([], 17, 20),
    "BF16": ([], 17, 20),
    "Q4_0": ([0], 17, 64),
    "Q4_1": ([0, 2], 17, 64),
    "Q5_0": ([0], 17, 64),
    "Q8_0": ([0], 17, 64),
    "Q4_K": ([0, 2], 3, 512),
    "Q6_K": ([208], 3, 512),
    "Q5_1": ([0, 2], 17, 64),
    "Q2_K": ([80, 82], 3, 512),
    "Q3_K": ([108], 3, 512),
    "Q5_K": ([0, 2], 3, 512),
    "IQ4_NL": ([0], 17, 64),
    "MXFP4": ([], 17, 64),
    "F8_E4M3": ([], 17, 20),
    "NVFP4": ([], 17, 320),
}


def random_halves(generator, count):
    halves = generator.normal(0, 0.05, count).astype(np.float16)
    special = np.array([0.0, -0.0, 2.0**-24, -(2.0**-15), 65504.0, -65504.0], dtype=np.float16)
    halves[generator.permutation(count)[: len(special)]] = special[:count]
    return halves.view(np.uint8).reshape(count, 2)


def add(fixture, name, rows, columns, data, values):
    assert values.shape == (rows, columns) and np.isfinite(values).all()
    fixture["weights"][name] = {
        "rows": rows,
        "columns": columns,
        "bytes": base64.b64encode(np.ascontiguousarray(data).tobytes()).decode(),
        "values": base64.b64encode(values.tobytes()).decode(),
    }


def main():
    generator = np.random.default_rng(SEED)
    fixture = {"gguf": importlib.metadata.version("gguf"), "seed": SEED, "weights": {}}
    for name, (halves, rows, columns) in FORMATS.items():
        if name == "F8_E4M3":
            # Every code but the two NaNs, and some twice.
            codes = np.arange(rows * columns, dtype=np.int64).astype(np.uint8)
            codes[(codes & 0x7F) == 0x7F] = 0
            data = codes.reshape(rows, columns)
            add(fixture, name, rows, columns, data, data.view(ml_dtypes.float8_e4m3fn).astype("<f4"))
            continue
        kind = gguf.GGMLQuantizationType[name]
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if name in ("F32", "F16", "BF16"):
            values = generator.normal(0, 1, (rows, columns)).astype(np.float32)
            values[0, :4] = [0.0, -0.0, 2.0**-24, -65504.0]
            data = {
                "F32": lambda: values.view(np.uint8),
                "F16": lambda: values.astype(np.float16).view(np.uint8),
                "BF16": lambda: (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8),
            }[name]()
        else:
            blocks = generator.integers(0, 256, (rows * columns // block_size, block_bytes), dtype=np.uint8)
            blocks[0] = 0x00
            blocks[1] = 0xFF
            for offset in halves:
                blocks[:, offset : offset + 2] = random_halves(generator, len(blocks))
                blocks[:2, offset : offset + 2] = np.array([0.5, -0.25], dtype=np.float16).view(np.uint8).reshape(2, 2)
            if name == "MXFP4":
                # 12 times the greatest of them is finite still.
                blocks[:, 0] = generator.integers(100, 140, len(blocks), dtype=np.uint8)
                blocks[2:6, 0] = [0, 1, 2, 251]
            if name == "NVFP4":
                blocks[:, :4] = np.arange(4 * len(blocks)).astype(np.uint8).reshape(-1, 4)
            data = blocks.reshape(rows, -1)
        add(fixture, name, rows, columns, data, gguf.quants.dequantize(np.ascontiguousarray(data), kind).astype("<f4"))
    path = pathlib.Path(__file__).with_name("weights.json")
    path.write_text(json.dumps(fixture, indent=1) + "\n")


main()
