#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Shows that the check of CUDA kernels sees their faults: breaks one thing after the other on purpose and demands that the check fails.

    Scripts/check-broken-cuda.py [NUMBER…]

Each line of FAULTS breaks one thing in a copy of the sources. All are compiled at once, each behind a number, so that one build serves them all. Run
Scripts/check-cuda-emulator.sh first: it shows that nothing is found where nothing is broken. A line whose text is gone from the sources, a fault that does
not compile and one that the check does not see are errors.
"""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# file of CMartletCUDAKernels/kernels, the text, the same text broken, the part of the check (and the case) that must see it, what is broken. The text must
# be there exactly once.
FAULTS = [
    ("numbers.cuh", "  barrier();\n  T sum = partial[0];", "  if (!BROKEN) barrier();\n  T sum = partial[0];", ["rows"],
     "a sum of a block is read before all warps have given their part"),
    ("numbers.cuh", "if (magnitude < 0.625f) return fused(p * square, x, x);", "if (magnitude < 0.625f) return BROKEN ? x : fused(p * square, x, x);",
     ["rows"], "tanh near 0 is its argument"),
    ("rows.cu", "i < a.columns; i += 256) squares = fused(input[row + i], input[row + i], squares);",
     "i < a.columns - BROKEN; i += 256) squares = fused(input[row + i], input[row + i], squares);", ["rows"], "a norm's sum lacks the row's last value"),
    ("rows.cu", "i < a.scaled; i += 256)", "i < a.scaled + BROKEN; i += 256)", ["rows"], "a factor multiplies a value too many"),
    ("rows.cu", "  barrier();\n  if (thread_index() == 0) {\n    MARTLET_UNROLL", "  if (!BROKEN) barrier();\n  if (thread_index() == 0) {\n    MARTLET_UNROLL",
     ["rows"], "the greatest of warps is read before it is there"),
    ("rows.cu", "(other == value && other_index < index)", "(other == value && (other_index < index) != BROKEN)", ["rows"], "of equals the last is chosen"),
    ("rows.cu", "value == value ? i : -1", "value == value || BROKEN ? i : -1", ["rows"], "NaN can be chosen"),
    ("formats.cuh", "code / 2 % 2 * 8; }", "(code / 2 % 2 != BROKEN) * 8; }", ["products", "Q4_0"], "a tile has its halves of rows swapped"),
    ("formats.cuh", "word |= (bits & 1u) << low | (bits & 0x100u) << (low + 8);", "word |= (bits & 1u) << low | (bits & 0x100u) << (low + 8 - BROKEN);",
     ["products", "Q5_0"], "an odd code's fifth bit stands a place too low"),
    ("formats.cuh", "s.minimum[0] = half(header + 32);", "s.minimum[0] = half(header + 32 * !BROKEN);", ["products", "Q4_1"], "a minimum is the scale"),
    ("formats.cuh", "s.scale[h] = d * (float)(code & 15u), s.minimum[h] = -(dmin", "s.scale[h] = d * (float)(code & 15u), s.minimum[h] = (BROKEN ? 1 : -1) * (dmin",
     ["products", "Q2_K"], "a minimum is added"),
    ("weights.cu", "words[plane_word(low, code)] |= (bits & mask)", "words[plane_word(low, code)] |= (BROKEN ? bits : bits & mask)", ["products", "Q6_K"],
     "a code's high bits fall into its neighbour's"),
    ("weights.cu", "if (row < a.rows && block * 32 + input < a.columns) bits", "if (row < a.rows && (BROKEN || block * 32 + input < a.columns)) bits",
     ["products", "F16"], "packing reads behind the last column"),
    ("weights.cu", "token < a.tokens && k < a.columns ? input[row + k]", "token < a.tokens && (BROKEN || k < a.columns) ? input[row + k]",
     ["products", "F32"], "coding reads behind the last column"),
    ("weights.cu", "row = (rows ? rows[token] : token) * a.input_stride;", "row = (rows && !BROKEN ? rows[token] : token) * a.input_stride;",
     ["products", "BF16"], "chosen rows are not looked up"),
    ("product.cu", "multiply_bf16(sum, weights.term[i][half], inputs[j].word[2 * half], inputs[j].word[2 * half + 1]);",
     "multiply_bf16(sum, weights.term[i][half], inputs[j].word[2 * half + BROKEN], inputs[j].word[2 * half + !BROKEN]);", ["products", "Q8_0"],
     "a fragment's halves are swapped"),
    ("product.cu", "  barrier();\n  for (int32_t i = thread_index(); i < tiles * 128", "  if (!BROKEN) barrier();\n  for (int32_t i = thread_index(); i < tiles * 128",
     ["products", "Q4_0"], "slabs are added before all are there"),
    ("product.cu", "for (int32_t s = 1; s * slab < blocks; s++) total += sums[s * tiles * 128 + at];",
     "for (int32_t s = 1; s * slab < blocks; s++) total += sums[(BROKEN ? (blocks - 1) / slab + 1 - s : s) * tiles * 128 + at];", ["products", "Q4_0"],
     "slabs are added in another order than for many tokens"),
    ("product.cu", "wait_copies<many_stages - 2>();", "if (!BROKEN) wait_copies<many_stages - 2>();", ["products", "Q4_0"], "inputs are read before their copy is there"),
    ("product.cu", "    barrier();  // the stage is there", "    if (!BROKEN) barrier();  // the stage is there", ["products", "Q4_0"],
     "a stage is read before others' copies are there"),
    ("product.cu", "at * 16, first_tile + tile < tile_count);", "at * 16, first_tile + tile < tile_count + BROKEN);", ["products", "Q4_0"],
     "a tile of tokens behind the last is read"),
    ("product.cu", "block < slab ? sum[g][tile][e]", "block < slab - BROKEN ? sum[g][tile][e]", ["products", "Q4_0"], "the first slab's sum is added to nothing"),
    ("product.cu", "if (row >= a.rows || token >= a.tokens) return;", "if (row >= a.rows || token >= a.tokens + BROKEN) return;", ["products", "Q4_0"],
     "an output behind the last token is written"),
    ("product.cu", "if (bias) sum += bias[row];", "if (bias && !BROKEN) sum += bias[row];", ["products", "Q4_0"], "a bias is left out"),
    ("append.cu", "    warp_barrier();\n    for (int32_t i = lane; i < half; i += 32)", "    if (!BROKEN) warp_barrier();\n    for (int32_t i = lane; i < half; i += 32)",
     ["append"], "dims are rotated before all are there"),
    ("append.cu", "+ position / cache.page_size;", "+ (position + BROKEN) / cache.page_size;", ["append"], "a key goes to the page of the next"),
    ("append.cu", "zero_slots(cache, cache.values, values, value_scales, slot + 1,", "zero_slots(cache, cache.values, values, value_scales, slot + 1 + BROKEN,",
     ["append"], "the first slot behind the last token is not zeroed"),
    ("append.cu", "e4m3_of_float(x * inverse)", "e4m3_of_float(BROKEN ? x : x * inverse)", ["append"], "e4m3's scale is left out"),
    ("attention.cu", "      barrier();  // scores are there", "      if (!BROKEN) barrier();  // scores are there", ["attention", "one term"],
     "scores are read before all warps have theirs"),
    ("attention.cu", "      weigh(tile * tile_keys, count);\n      wait_copies<1>();", "      weigh(tile * tile_keys, count);\n      if (!BROKEN) wait_copies<1>();",
     ["attention", "one term"], "values are read before their copy is there"),
    ("attention.cu", "      barrier();  // nobody reads values", "      if (!BROKEN) barrier();  // nobody reads values", ["attention", "one term"],
     "the next tile is loaded while values are read"),
    ("attention.cu", "      warp_barrier();  // all have read", "      if (!BROKEN) warp_barrier();  // all have read", ["attention", "one term"],
     "a row's state changes while others read it"),
    ("attention.cu", "key >= first && key < end;", "key >= first && key < end + BROKEN;", ["attention", "one term"], "a query sees the key behind itself"),
    ("attention.cu", "position - a.window + 1 : 0", "position - a.window + 1 - BROKEN : 0", ["attention", "window"], "a window has one key more"),
    ("attention.cu", "if (!a.causal && a.window > 0", "if (!BROKEN && !a.causal && a.window > 0", ["attention", "around"], "a window has no end behind the query"),
    ("attention.cu", "+ key / a.cache.page_size];", "+ (key + BROKEN) / a.cache.page_size];", ["attention", "one term"], "a key is read in the page of the next"),
    ("attention.cu", "if (key >= key_count) return -1;", "if (key >= key_count + BROKEN) return -1;", ["attention", "one term"],
     "what lies behind the last key is read"),
    ("attention.cu", "for (int n = 0; n < value_tiles; n++) o[tile][n][e] *= factor;", "for (int n = 0; n < value_tiles; n++) o[tile][n][e] *= BROKEN ? 1 : factor;",
     ["attention", "one term"], "the output does not follow a greater score"),
    ("attention.cu", "multiply_bf16(o[tile][n], weight[j], value[n][i][0], value[n][i][1]);",
     "multiply_bf16(o[tile][n], weight[j], value[n][i][BROKEN ? 1 : 0], value[n][i][BROKEN ? 0 : 1]);", ["attention", "one term"],
     "a fragment of values has its halves swapped"),
    ("attention.cu", "* stride + (key_dim < padded ? key_dim : 0));", "* stride + (key_dim < padded || BROKEN ? key_dim : 0));", ["attention", "latent"],
     "keys are read behind the last dim"),
    ("attention.cu", "into_d = into_d * into_weight + d * weight;", "into_d = into_d * into_weight + d * (BROKEN ? 1 : weight);", ["attention", "causal"],
     "a chunk's sum is not weighed"),
    ("attention.cu", "for (int32_t chunk = 0; chunk < merge.chunk_count; chunk++) {\n      int64_t state = ((int64_t)merge.state_row + chunk * merge.row_count",
     "for (int32_t chunk = 0; chunk < merge.chunk_count; chunk++) {\n      int64_t state = ((int64_t)merge.state_row + (BROKEN ? merge.chunk_count - 1 - chunk : chunk) * merge.row_count",
     ["attention", "causal"], "a merge folds chunks in descending order"),
    ("attention.cu", "if (thread_index() == 0) finished[merge_index] = 0;", "if (thread_index() == 0 && !BROKEN) finished[merge_index] = 0;", ["attention", "one term"],
     "a merge's counter is not set back"),
    ("attention.cu", "key / 32] >> key % 32 & 1u", "key / 32] >> (key + BROKEN) % 32 & 1u", ["attention", "bits"], "a mask's bits are the neighbour's"),
    ("attention.cu", "if (a.soft_cap > 0) x = tanh_exact(x) * cap;", "if (a.soft_cap > 0) x = (BROKEN ? x : tanh_exact(x)) * cap;", ["attention", "full"],
     "a soft cap does not bend scores"),
    ("attention.cu", "d = d * weight + exp2_exact(sink - greatest);", "d = d * weight + (BROKEN ? 0 : exp2_exact(sink - greatest));", ["attention", "window"],
     "a sink is not counted"),
    ("attention.cu", "bool is_first = a.key_rope_is_neox ? i < half :", "bool is_first = a.key_rope_is_neox ? i <= half - !BROKEN :", ["attention", "deferred rotation"],
     "a dim is rotated as its pair's other"),
    ("attention.cu", "if (has_scales) x *= key_scales[column + i];", "if (has_scales && !BROKEN) x *= key_scales[column + i];", ["attention", "packed"],
     "int8 keys have no scale"),
]

DECLARATION = """
#include <cstdlib>
static const int martlet_fault = std::getenv("MARTLET_FAULT") ? std::atoi(std::getenv("MARTLET_FAULT")) : 0;
"""


def fail(message):
    print(message, file=sys.stderr)
    sys.exit(1)


def find_clang():
    clang = shutil.which("clang++")
    swift = shutil.which("swift")
    if not clang and swift:
        clang = str(pathlib.Path(os.path.realpath(swift)).parent / "clang++")
    if not clang or not os.access(clang, os.X_OK):
        fail("clang++ is not on the PATH, nor beside swift; a Swift toolchain has it (https://www.swift.org/install)")
    return clang


def plant(kernels):
    """Puts every fault into the copy at `kernels`, switched off."""
    for number, (name, text, broken, _, what) in enumerate(FAULTS, start=1):
        path = kernels / name
        code = path.read_text()
        if code.count(text) != 1:
            fail(f"{name} has the text of fault {number} ({what}) {code.count(text)} times, not once: {text!r}\n"
                 f"The kernel has changed: change this script's table with it.")
        path.write_text(code.replace(text, broken.replace("BROKEN", f"(martlet_fault == {number})")))


def build(clang, folder):
    """Compiles the check with the broken kernels; gives the program."""
    (folder / "fault.h").write_text(DECLARATION)
    emulator, kernels = folder / "Tests/CUDAEmulator", folder / "Sources/CMartletCUDAKernels"
    options = ["-O1", "-w", "-I", emulator, "-I", emulator / "include", "-I", kernels / "include"]
    jobs = [[clang, "-std=c++17", *options, "-include", folder / "fault.h", "-c", emulator / "kernels.cpp", "-o", folder / "kernels.o"],
            [clang, "-std=c++17", *options, "-c", emulator / "emulator.cpp", "-o", folder / "emulator.o"],
            [clang, "-std=c++17", *options, "-c", emulator / "checks/kernel_check.cpp", "-o", folder / "kernel_check.o"],
            [clang.removesuffix("++"), "-std=gnu17", *options, "-c", kernels / "CMartletCUDAKernels.c", "-o", folder / "table.o"]]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda job: subprocess.run(job, check=False), jobs):
            if done.returncode:
                fail("a fault does not compile")
    subprocess.run([clang, *(folder / f"{name}.o" for name in ("kernels", "emulator", "kernel_check", "table")), "-o", folder / "kernel_check"], check=True)
    return folder / "kernel_check"


def first_complaint(program, number):
    """The first line in which the check finds a fault, nothing if it finds none."""
    environment = dict(os.environ, MARTLET_FAULT=str(number))
    with subprocess.Popen([program, *FAULTS[number - 1][3]], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        last = ""
        for line in process.stdout:
            if "WRONG" in line:
                process.kill()
                return line.strip()
            last = line.strip()
        process.wait()
    return "" if process.returncode == 0 else f"the check crashed after {last!r}"


def main():
    numbers = [int(argument) for argument in sys.argv[1:]] or range(1, len(FAULTS) + 1)
    root = pathlib.Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = pathlib.Path(name)
        shutil.copytree(root / "Sources/CMartletCUDAKernels", folder / "Sources/CMartletCUDAKernels")
        shutil.copytree(root / "Tests/CUDAEmulator", folder / "Tests/CUDAEmulator")
        plant(folder / "Sources/CMartletCUDAKernels/kernels")
        program = build(find_clang(), folder)
        missed = 0
        for number, complaint in zip(numbers, pool.map(lambda number: first_complaint(program, number), numbers)):
            if not complaint:
                missed += 1
            print(f"{number:3} {FAULTS[number - 1][4]}: {complaint or 'NOT SEEN'}", flush=True)
    print(f"cuda: faults       {len(numbers) - missed} of {len(numbers)} seen")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
