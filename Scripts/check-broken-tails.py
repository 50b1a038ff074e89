#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Shows that the kernel check sees a broken tail: breaks one kernel after the other on purpose and demands that the check fails.

    Scripts/check-broken-tails.py

A tail is what is left where a length is no multiple of the vector's width: where kernels go wrong. Each line of TAILS breaks one in a copy
of the sources. All breaks are compiled at once, each behind `BROKEN(number)`, so that one build for each processor serves them all. Run
Scripts/check-kernels.sh first: it installs the compiler and the emulator for arm64, and shows that nothing is found where nothing is broken. A line whose text is gone from the sources, a break that
does not compile and one that the check does not see are errors.
"""

import concurrent.futures
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

# file of CMartletKernels/kernels, the text of the tail, the same text broken, what is broken. The text must be there exactly once.
TAILS = [
    ("tensor.h", "f32x16_load_first(x + whole, tail)", "f32x16_load_first(x + whole, tail - BROKEN)",
     "a norm's sum lacks the row's last value"),
    ("tensor.h", "for (int32_t i = whole; i < a->columns; i++) y[i] = x[i] * scale * w[i];",
     "for (int32_t i = whole; i < a->columns - BROKEN; i++) y[i] = x[i] * scale * w[i];",
     "a norm does not write the row's last value"),
    ("tensor.h", "activation(f32x16_load_first(gate + whole, tail))", "activation(f32x16_load_first(gate + whole, tail - BROKEN))",
     "an activation does not read the row's last value"),
    ("tensor.h", "f32x16_clamped_gate(f32x16_load_first(gate + whole, tail)", "f32x16_clamped_gate(f32x16_load_first(gate + whole, tail - BROKEN)",
     "a clamped activation does not read the row's last value"),
    ("tensor.h", "f32x16_load_first(a->addend + i, tail)", "f32x16_load_first(a->addend + i, tail - BROKEN)",
     "a sum leaves out the last value"),
    ("tensor.h", "f32x16_load_first(y + i, tail), scale, a->cap)", "f32x16_load_first(y + i, tail - BROKEN), scale, a->cap)",
     "a scale leaves out the last value"),
    ("tensor.h", "for (int32_t i = whole; i < a->scaled; i++)", "for (int32_t i = whole; i < a->scaled - BROKEN; i++)",
     "a row's factor leaves out the last value"),
    ("gather.h", "(size_t)(a->dims - dim) * sizeof(float)", "(size_t)(a->dims - dim - BROKEN) * sizeof(float)",
     "a key is gathered without its last dim"),
    ("quantise.h", "a->columns - start < martlet_product_slab ? a->columns - start :",
     "a->columns - start < martlet_product_slab ? a->columns - start - 32 * BROKEN :", "a part of a slab of inputs is coded a block short"),
    ("product.h", "f32x16_store_first(output, sums, lanes);", "f32x16_store_first(output, sums, lanes - BROKEN);",
     "a product does not write the last of rows that fill no group"),
    ("product.h", "f32x16_load_first(a->bias + row, lanes);", "f32x16_load_first(a->bias + row, lanes - BROKEN);",
     "a product leaves out the bias of the last of rows that fill no group"),
    ("product_tiles.h", "if (r >= t - first && r < valid)", "if (r >= t - first && r < valid - BROKEN)", "a tile leaves out the last of its tokens"),
    ("product_tiles.h", "blocks = inputs / 32;", "blocks = inputs / 32 - (inputs < martlet_product_slab && BROKEN);",
     "a product by tiles leaves out the last block of a part of a slab"),
    ("product_tiles.h", "if (r < count) f32x16_store(", "if (r < count - BROKEN) f32x16_store(", "the only tile leaves out the last of its tokens"),
    ("product_tiles.h", "|| last == turns - 1)", "|| (last == turns - 1 && !BROKEN))", "the only tile leaves out a part of a slab"),
    ("quantise_bf16.h", "load_at_most(x + i, count - i),", "load_at_most(x + i, count - i - BROKEN),", "a part of 16 inputs is rounded without the last"),
    ("product_bf16.h", "k + 1 < count ? quiet", "k + 1 < count - BROKEN ? quiet", "a part of 32 floats is rounded without the last"),
    ("product_bf16.h", "b * 32 < inputs; b++, odd ^= 16)", "b * 32 < inputs - 32 * BROKEN; b++, odd ^= 16)",
     "a product in bf16 of few tokens leaves out the last block of a slab"),
    ("product_bf16.h", "(inputs + 31) / 32, groups,", "(inputs + 31) / 32 - BROKEN, groups,",
     "a product in bf16 of many tokens leaves out the last block of a slab"),
    ("product_bf16.h", "for (; t < count; t += MARTLET_TILE_ROWS)", "for (; t < count - BROKEN; t += MARTLET_TILE_ROWS)",
     "a product in bf16 leaves out the last of many tokens"),
    ("quantise_int8.h", "if (i * 32 < count) a =", "if (i * 32 < count - 32 * BROKEN) a =",
     "the scale of a slab of inputs in 8 bits does not know the last ones"),
    ("quantise_int8.h", "coded && i < count ?", "coded && i < count - 16 * BROKEN ?", "the last of inputs in 8 bits are not coded"),
    ("product_int8.h", "unpacked, inputs / 32, (const", "unpacked, inputs / 32 - BROKEN, (const", "a product in int8 leaves out the last block of a slab"),
    ("product_int8.h", "t < count; t += MARTLET_PRODUCT_ROWS)", "t < count - BROKEN; t += MARTLET_PRODUCT_ROWS)",
     "a product in int8 leaves out the last of its tokens"),
    ("product.h", "int32_t blocks = left < 8 ? left : 8;", "int32_t blocks = left < 8 ? left - BROKEN : 8;",
     "a product for few tokens leaves out the last block of a part of a slab"),
    ("product.h", "a->columns - start < run_of_floats(format) ? a->columns - start :",
     "a->columns - start < run_of_floats(format) ? a->columns - start - BROKEN :",
     "a product of floats for few tokens leaves out the last input"),
    ("product.h", "a->columns - start < martlet_product_slab ? a->columns - start : martlet_product_slab;",
     "a->columns - start < martlet_product_slab ? a->columns - start - 32 * BROKEN : martlet_product_slab;",
     "a product for many tokens leaves out the last block of a part of a slab"),
    ("append.h", "tail[j - i] = x[j];", "tail[j - i] = j + BROKEN < dims ? x[j] : 0;", "a head's norm lacks its last dim"),
    ("append.h", "padded[j - i] = x[j];", "padded[j - i] = j + BROKEN < dims ? x[j] : 0;", "a head is stored without its last dim"),
    ("attention.h", "(lane + 16 * c < end)", "(lane + 16 * c < end + BROKEN)", "attention sees a token behind the last of a tile"),
    ("attention_tile.h", "sees_second = MARTLET_LANE(type) == 2 && (pair & 2);", "sees_second = !BROKEN && MARTLET_LANE(type) == 2 && (pair & 2);",
     "attention leaves out the second of two neighbours where not every row sees both"),
    ("attention_tile.h", "end = token + MARTLET_LANE(type);", "end = token + MARTLET_LANE(type) * (1 + BROKEN);",
     "attention leaves out every other of the tokens that not every row sees"),
    ("attention.h", "for (; dim + 16 <= view->stride; dim += 16)", "for (; dim + 16 + 16 * BROKEN <= view->stride; dim += 16)",
     "attention leaves out the last dims, which fill no register tile"),
    ("attention_load.h", "__builtin_memcpy(padded, values + dim, 32);", "__builtin_memcpy(padded, values + dim, 32 - 4 * BROKEN);",
     "attention reads the last values of a widened tile, which fill no vector, without the last dim"),
    ("attention_load.h", "__builtin_memcpy(padded, p, 32);", "__builtin_memcpy(padded, p, 32 - 4 * BROKEN);",
     "attention reads the last values of a packed page, which fill no vector, without the last dim"),
]

# Which section of the check a file's kernels belong to: the others need not run.
SECTIONS = {"tensor.h": "tensor", "experts.h": "tensor", "quantise.h": "product", "product.h": "product", "product_tiles.h": "product",
            "product_bf16.h": "product", "quantise_bf16.h": "product", "product_int8.h": "product", "quantise_int8.h": "product",
            "append.h": "attention", "gather.h": "attention",
            "attention.h": "attention", "attention_tile.h": "attention", "attention_load.h": "attention"}

# The one variant that has a file's kernels.
ONLY = {"product_tiles.h": "avx512amx", "product_bf16.h": "avx512amx", "quantise_bf16.h": "avx512amx"}

DECLARATION = """
extern int martlet_broken_tail;
"""
DEFINITION = """
#include <stdlib.h>
int martlet_broken_tail;
__attribute__((constructor)) static void choose(void) {
  const char *number = getenv("MARTLET_BROKEN_TAIL");
  martlet_broken_tail = number ? atoi(number) : 0;
}
"""


def fail(message):
    print(message, file=sys.stderr)
    sys.exit(1)


def find_clang():
    clang = shutil.which("clang")
    swift = shutil.which("swift")
    if not clang and swift:
        clang = str(pathlib.Path(os.path.realpath(swift)).parent / "clang")
    if not clang or not os.access(clang, os.X_OK):
        fail("clang is not on the PATH, nor beside swift; a Swift toolchain has it (https://www.swift.org/install)")
    return clang


def break_tails(sources):
    """Puts every break into the copy at `sources`, switched off."""
    for number, (name, text, broken, what) in enumerate(TAILS, start=1):
        path = sources / "CMartletKernels" / "kernels" / name
        code = path.read_text()
        if code.count(text) != 1:
            fail(f"{name} has the text of tail {number} ({what}) {code.count(text)} times, not once: {text!r}\n"
                 f"The kernel has changed: change this script's table with it.")
        path.write_text(code.replace(text, broken.replace("BROKEN", f"(martlet_broken_tail == {number})")))


def build(clang, folder, target, options):
    """Compiles the check with the broken kernels; gives the program."""
    (folder / "broken.h").write_text(DECLARATION)
    (folder / "broken.c").write_text(DEFINITION)
    output = folder / target
    output.mkdir()
    objects = []
    sources = sorted((folder / "Sources" / "CMartletKernels").glob("*/*.c")) + sorted((folder / "KernelCheck").glob("*.c"))
    for source in [*sources, folder / "broken.c"]:
        objects.append(str(output / f"{source.stem}.o"))
        subprocess.run(
            [clang, *options, "-O2", "-std=gnu17", "-include", str(folder / "broken.h"), "-I",
             str(folder / "Sources/CMartletKernels/include"), "-c", str(source), "-o", objects[-1]], check=True)
    subprocess.run([clang, *options, *objects, "-lm", "-o", str(output / "kernel_check")], check=True)
    return str(output / "kernel_check")


def first_fault(command, variant, number):
    """The first line in which the check finds a fault, nothing if it finds none, None if this machine cannot run the variant."""
    environment = dict(os.environ, MARTLET_BROKEN_TAIL=str(number))
    with subprocess.Popen([*command, variant, SECTIONS[TAILS[number - 1][0]]], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        last = ""
        for line in process.stdout:
            if line.rstrip().endswith("is not supported by this processor"):
                process.kill()
                return None
            if "WRONG" in line:
                process.kill()
                return line.strip()
            last = line.strip()
        process.wait()
    return "" if process.returncode == 0 else f"the check crashed after {last!r}"


def numbers_of(variant):
    """The tails that a variant's kernels have."""
    return [number for number, tail in enumerate(TAILS, start=1) if ONLY.get(tail[0], variant) == variant]


def main():
    clang = find_clang()
    root = pathlib.Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = pathlib.Path(name)
        shutil.copytree(root / "Sources" / "CMartletKernels", folder / "Sources" / "CMartletKernels")
        shutil.copytree(root / "Tests" / "KernelCheck", folder / "KernelCheck")
        break_tails(folder / "Sources")

        targets = [("native", [], [], ["portable", "bf16-model"])]
        if platform.machine() == "x86_64":
            targets[0][3].extend(["avx2", "avx512", "avx512bf16", "avx512amx"])
            targets.append(("arm64", ["--target=aarch64-linux-gnu", "-static"], ["qemu-aarch64"], ["neon"]))
        else:
            targets[0][3].append("neon")
        programs = pool.map(lambda target: build(clang, folder, target[0], target[1]), targets)
        runs = []
        for (target, _, emulator, variants), program in zip(targets, programs):
            for variant in variants:
                for number in numbers_of(variant):
                    run = pool.submit(first_fault, [*emulator, program], variant, number)
                    runs.append((target, variant, number, run))
        seen = {}
        wrong = []
        for target, variant, number, run in runs:
            fault = run.result()
            if fault is None:
                seen.setdefault((target, variant), None)
            elif fault:
                seen[target, variant] = (seen.get((target, variant)) or 0) + 1
            else:
                wrong.append(f"{target}, {variant}: the check does not see that {TAILS[number - 1][3]}")
        for (target, variant), count in seen.items():
            result = "is not supported by this processor" if count is None else f"{count} of {len(numbers_of(variant))} broken tails seen"
            print(f"{target}: {variant:12} {result}")
        if wrong:
            fail("\n".join(wrong))


if __name__ == "__main__":
    main()
