#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Runs every CUDA kernel on the emulator of Tests/CUDAEmulator, which needs no GPU, against plain references in float64, and the emulator itself against the
# PTX ISA's tables and against kernels that have each fault that it is there to find.
set -euo pipefail
cd "$(dirname "$0")/.."

clang=$(command -v clang || true)
if [ -z "$clang" ] && command -v swift > /dev/null; then clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang; fi
if [ ! -x "$clang" ]; then
  echo "clang is not on the PATH, nor beside swift; a Swift toolchain has it (https://www.swift.org/install)" >&2
  exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
emulator=Tests/CUDAEmulator kernels=Sources/CMartletCUDAKernels
options=(-O1 -Wall -Wextra -Werror -I "$emulator" -I "$emulator/include" -I "$kernels/include")

processes=()
"$clang" -std=gnu17 "${options[@]}" -c "$kernels/CMartletCUDAKernels.c" -o "$folder/table.o" &
processes+=($!)
for source in "$emulator"/*.cpp "$emulator"/checks/*.cpp; do
  "$clang++" -std=c++17 "${options[@]}" -c "$source" -o "$folder/$(basename "$source" .cpp).o" &
  processes+=($!)
done
for process in "${processes[@]}"; do wait "$process"; done
"$clang++" "$folder"/{ptx_check,emulator}.o -o "$folder/ptx_check"
"$clang++" "$folder"/{kernel_check,kernels,emulator,table}.o -o "$folder/kernel_check"

if ! "$folder/ptx_check" > "$folder/ptx.txt"; then
  grep -v ' ok$' "$folder/ptx.txt" >&2 || true
  echo "the emulator is WRONG (or crashed: the last line was \"$(tail -1 "$folder/ptx.txt")\")" >&2
  exit 1
fi
echo "cuda: emulator     $(grep -c ' ok$' "$folder/ptx.txt") comparisons"

processes=()
for part in "rows products append" attention; do
  # shellcheck disable=SC2086 # names of parts
  "$folder/kernel_check" $part &
  processes+=($!)
done
status=0
for process in "${processes[@]}"; do wait "$process" || status=1; done
exit $status
