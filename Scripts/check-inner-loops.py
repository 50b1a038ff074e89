#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Counts the instructions of attention's inner loops in the disassembly: a guard against slowing down that no neighbour disturbs.

Each x86-64 variant is compiled alone. A loop is what lies between a backward jump within a function and its target, with no other such loop
inside. The loops that matter are those of the largest register tile, for prompts, and those of four rows, for a generated token of a head group
of four. They must be there, do no more beside their multiply-adds than the limit allows, and keep their sums in registers.

Scripts/check-inner-loops.py [--print]; needs clang, from Swift's toolchain or the PATH, and objdump.
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "Sources" / "CMartletKernels"

# Variant, function, whose name ends with its number of rows, multiply-add, how many of them are the tile, the most other instructions, the most of
# all that touch the stack. Beside the multiply-adds a loop of six rows has 4 loads of columns, 6 broadcasts of rows, its pointers and its end.
# Loops of four rows also ask for the next pages, and widen one-byte numbers. Other loops have as many multiply-adds, of the edges of a tile: they
# may be slower.
LIMITS = [
    ("avx512bf16", "attend_scores_many_bf16_6", "vdpbf16ps", 24, 16, 0),
    ("avx512bf16", "attend_values_many_bf16_6", "vdpbf16ps", 24, 15, 0),
    ("avx512bf16", "attend_scores_many_f32_6", "vfmadd", 24, 14, 0),
    ("avx512bf16", "attend_values_many_f32_6", "vfmadd", 24, 15, 0),
    ("avx512", "attend_scores_many_f32_6", "vfmadd", 24, 14, 0),
    ("avx512", "attend_values_many_f32_6", "vfmadd", 24, 15, 0),
    ("avx2", "attend_scores_many_f32_6", "vfmadd", 24, 21, 0),
    ("avx2", "attend_values_many_f32_6", "vfmadd", 24, 21, 0),
    ("avx512bf16", "attend_scores_few_bf16_4", "vdpbf16ps", 16, 16, 0),
    ("avx512bf16", "attend_values_few_bf16_4", "vdpbf16ps", 16, 18, 0),
    ("avx512bf16", "attend_scores_few_e4m3_4", "vdpbf16ps", 32, 53, 0),
    ("avx512bf16", "attend_values_few_e4m3_4", "vdpbf16ps", 32, 61, 2),
    ("avx512bf16", "attend_scores_few_i8_4", "vdpbf16ps", 32, 73, 0),
    ("avx512bf16", "attend_values_few_i8_4", "vdpbf16ps", 32, 77, 6),
    ("avx512", "attend_scores_few_f32_4", "vfmadd", 16, 16, 0),
    ("avx512", "attend_values_few_f32_4", "vfmadd", 16, 18, 0),
    ("avx2", "attend_scores_few_bf16_4", "vfmadd", 16, 21, 0),
    ("avx2", "attend_values_few_bf16_4", "vfmadd", 16, 21, 0),
    ("avx2", "attend_scores_few_e4m3_4", "vfmadd", 32, 84, 6),
    ("avx2", "attend_values_few_e4m3_4", "vfmadd", 32, 82, 4),
    ("avx2", "attend_scores_few_i8_4", "vfmadd", 32, 47, 0),
    ("avx2", "attend_values_few_i8_4", "vfmadd", 32, 47, 0),
]


def clang() -> str:
    """The compiler that builds the package."""
    swift = shutil.which("swift")
    beside = Path(swift).resolve().parent / "clang" if swift else None
    return str(beside) if beside and beside.exists() else "clang"


def disassemble(variant: str, folder: str) -> dict[str, list[tuple[int, str]]]:
    """Every function's instructions: address and text."""
    target = Path(folder) / f"{variant}.o"
    subprocess.run(
        [clang(), "-std=gnu17", "-O2", "-fno-omit-frame-pointer", f"-I{KERNELS / 'include'}", "-c", KERNELS / "variants" / f"{variant}.c",
         "-o", target],
        check=True)
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", target], check=True, capture_output=True, text=True).stdout
    functions: dict[str, list[tuple[int, str]]] = {}
    name = ""
    for line in text.splitlines():
        if match := re.match(r"[0-9a-f]+ <(\w+)>:", line):
            name = match[1]
            functions[name] = []
        elif match := re.match(r"\s+([0-9a-f]+):\s+(.*)", line):
            functions[name].append((int(match[1], 16), match[2]))
    return functions


def innermost_loops(code: list[tuple[int, str]]) -> list[list[str]]:
    """The instructions of each loop that contains no other."""
    at = {address: index for index, (address, _) in enumerate(code)}
    spans = []
    for index, (address, text) in enumerate(code):
        match = re.match(r"j\w+\s+([0-9a-f]+)", text)
        if match and int(match[1], 16) <= address and int(match[1], 16) in at:
            spans.append((at[int(match[1], 16)], index))
    inner = [a for a in spans if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [[text for _, text in code[first:last + 1]] for first, last in inner]


def check(shows: bool) -> list[str]:
    """What is wrong."""
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        variants = sorted({limit[0] for limit in LIMITS})
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            listings = dict(zip(variants, pool.map(lambda variant: disassemble(variant, folder), variants)))
    for variant, function, multiply, count, limit, stack in LIMITS:
        loops = [loop for loop in innermost_loops(listings[variant].get(function, []))
                 if sum(text.startswith(multiply) for text in loop) == count]
        good = [loop for loop in loops if len(loop) - count <= limit and sum("(%rsp" in text for text in loop) <= stack]
        others = sorted(len(loop) - count for loop in loops)
        print(f"{variant} {function}: loops of {count} {multiply} with {others} other instructions; {len(good)} keep to {limit}")
        if shows:
            for loop in loops:
                print("\n".join("    " + text for text in loop), "\n")
        if not good:
            problems.append(f"{variant} {function}: no loop of {count} {multiply} has at most {limit} other instructions and {stack} on the "
                            "stack")
    return problems


def main() -> int:
    problems = check("--print" in sys.argv[1:])
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
