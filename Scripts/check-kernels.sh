#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Runs every kernel of every variant against plain references: builds Tests/KernelCheck/kernel_check.c with the kernels for this machine and, on
# x86-64, for arm64 too, which runs under an emulator. The source of AVX-512's variants runs on processors that have only AVX2 too, with a model
# of the instructions that they lack. Nothing is skipped: what is missing is an error, or, with CI=true, is installed (Debian, Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/.."

clang=$(command -v clang || true)
if [ -z "$clang" ] && command -v swift > /dev/null; then clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang; fi
if [ ! -x "$clang" ]; then
  echo "clang is not on the PATH, nor beside swift; a Swift toolchain has it (https://www.swift.org/install)" >&2
  exit 1
fi

targets=(native)
if [ "$(uname -m)" = x86_64 ]; then
  targets+=(arm64)
  missing=()
  command -v aarch64-linux-gnu-gcc > /dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
  command -v qemu-aarch64 > /dev/null || missing+=(qemu-user)
  if [ ${#missing[@]} -gt 0 ] && [ "${CI:-}" = true ]; then
    echo "installing ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
  elif [ ${#missing[@]} -gt 0 ]; then
    echo "the arm64 kernels need ${missing[*]}: apt-get install ${missing[*]}, or run this with CI=true" >&2
    exit 1
  fi
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

build() {  # build TARGET OPTION…
  local target=$1 source objects=()
  shift
  mkdir "$folder/$target"
  for source in Tests/KernelCheck/*.c Sources/CMartletKernels/*/*.c; do
    objects+=("$folder/$target/$(basename "$source" .c).o")
    "$clang" "$@" -O2 -std=gnu17 -Wall -Wextra -Werror -I Sources/CMartletKernels/include -c "$source" -o "${objects[-1]}"
  done
  "$clang" "$@" "${objects[@]}" -lm -o "$folder/$target/kernel_check"
}

check() {  # check TARGET COMMAND…: a line for each variant, and all that is wrong
  local target=$1 log="$folder/$1.txt"
  shift
  if ! "$@" > "$log" 2>&1; then
    grep -v ' ok$' "$log" >&2 || true
    echo "the kernels of the $target build are WRONG (or crashed: the last line was \"$(tail -1 "$log")\")" >&2
    return 1
  fi
  awk -v target="$target" '/ ok$/ { count[$1]++ } !/ ok$/ { print target ": " $0 }
    END { for (name in count) printf "%s: %-12s %d comparisons\n", target, name, count[name] }' "$log"
}

run() {  # run TARGET
  if [ "$1" = arm64 ]; then
    build arm64 --target=aarch64-linux-gnu -static
    # The other variants are the same C as natively, without an instruction of their own, and minutes under an emulator.
    check arm64 qemu-aarch64 "$folder/arm64/kernel_check" neon
  else
    build native
    check native "$folder/native/kernel_check"
    model "$(awk '/ is not supported by this processor$/ { lacks[$1] } END { if (!("avx2" in lacks)) for (name in lacks) print name }' \
      "$folder/native.txt")"
  fi
}

# AVX-512's variants that the processor lacks, with a model of their instructions; the other kernels as they were built for this machine.
model() {  # model VARIANTS
  if [ -z "$1" ]; then return; fi
  local variant objects=() processes=()
  mkdir "$folder/model"
  for variant in avx512 avx512bf16 tables; do
    "$clang" -O1 -std=gnu17 -Wall -Wextra -Werror -Wno-psabi -I Sources/CMartletKernels/include -include Tests/KernelCheck/avx512_model.h \
      -c "Sources/CMartletKernels/variants/$variant.c" -o "$folder/model/$variant.o" &
    processes+=($!)
    rm "$folder/native/$variant.o"
  done
  for process in "${processes[@]}"; do wait "$process"; done
  objects=("$folder"/model/*.o "$folder"/native/*.o)
  "$clang" "${objects[@]}" -lm -o "$folder/model/kernel_check"
  processes=()
  for variant in $1; do
    check "model-$variant" "$folder/model/kernel_check" "$variant" &
    processes+=($!)
  done
  for process in "${processes[@]}"; do wait "$process"; done
}

processes=()
for target in "${targets[@]}"; do
  (run "$target") &
  processes+=($!)
done
status=0
for process in "${processes[@]}"; do wait "$process" || status=1; done
exit $status
