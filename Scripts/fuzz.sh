#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Feeds the readers of files with what libFuzzer makes up, under the address sanitizer: Scripts/fuzz.sh [SECONDS [TARGET…]], a minute and all
# targets unless told. The modules are compiled here and not by the package, because a package that others depend on by version may not ask for
# sanitizers. An input that crashes a target is an error; it is left in .build-fuzz/TARGET, with the corpus that the next run goes on from.
set -euo pipefail
cd "$(dirname "$0")/.."
export SWIFT_BACKTRACE=enable=no

seconds=${1:-60}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(gguf safetensors tokenizer_json template)
folder=.build-fuzz
mkdir -p "$folder/modules"

clang=$(dirname "$(readlink -f "$(command -v swiftc)")")/clang
swift=(swiftc -O -wmo -parse-as-library -swift-version 6 -enable-upcoming-feature ExistentialAny -enable-upcoming-feature MemberImportVisibility
  -enable-upcoming-feature InternalImportsByDefault -package-name martlet -I "$folder/modules" -I Sources/CMartletLibc/include -use-ld=lld)
objects=()

kernels() {
  local source
  printf 'module CMartletKernels { umbrella header "%s" export * }\n' "$PWD/Sources/CMartletKernels/include/CMartletKernels.h" \
    > "$folder/modules/module.modulemap"
  for source in Sources/CMartletKernels/*/*.c; do
    "$clang" -fsanitize=address -O1 -std=gnu17 -I Sources/CMartletKernels/include -c "$source" -o "$folder/$(basename "$source" .c).o"
  done
}

module() {  # module NAME FILE…
  objects+=("$folder/$1.o")
  "${swift[@]}" -sanitize=address,fuzzer -module-name "$1" -emit-module -emit-module-path "$folder/modules/$1.swiftmodule" \
    -emit-object "${@:2}" -o "$folder/$1.o"
}

kernels &
compiling=$!
for name in MartletCore MartletFormats MartletTemplates MartletTokenizers MartletKVCache MartletAttention MartletModels MartletCPU; do
  if [ $name = MartletCPU ]; then wait $compiling; fi
  mapfile -t sources < <(find "Sources/$name" -name '*.swift')
  module "$name" "${sources[@]}"
done
for source in Sources/CMartletKernels/*/*.c; do objects+=("$folder/$(basename "$source" .c).o"); done

# Seeds are written by the package's own writers.
"${swift[@]}" -sanitize=address -module-name Seeds Tests/Fuzz/Seeds.swift Tests/MartletTestSupport/{TinyModel,SeededGenerator}.swift \
  "${objects[@]}" -o "$folder/seeds"
mkdir -p "$folder"/seeds-{gguf,safetensors,tokenizer_json,template}
ASAN_OPTIONS=detect_leaks=0 "$folder/seeds" "$folder/seeds-"
cp Tests/MartletTokenizersTests/Fixtures/tokenizers/*.json "$folder/seeds-tokenizer_json/"
python3 Tests/Fuzz/template_seeds.py "$folder/seeds-template"

for target in "${targets[@]}"; do
  mkdir -p "$folder/$target"
  sources=("Tests/Fuzz/fuzz_$target.swift")
  if [ "$target" = template ]; then sources+=(Tests/MartletTemplatesTests/JSON+Parsed.swift); fi
  "${swift[@]}" -sanitize=address,fuzzer -module-name "Fuzz_$target" "${sources[@]}" "${objects[@]}" -o "$folder/fuzz_$target"
done

# Not a second longer for one input, and no more memory than a file of this size may cost. A template is a program with small limits.
fuzz() {  # fuzz TARGET
  local log="$folder/$1.log" megabytes=2048 options=()
  if [ "$1" = template ]; then
    megabytes=256
    options=(-dict=Tests/Fuzz/template.dict -max_len=4096)
    # What the sanitizer keeps of memory that was given back is not the template's.
    export ASAN_OPTIONS=quarantine_size_mb=16
  fi
  "$folder/fuzz_$1" "$folder/$1" "$folder/seeds-$1" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb="$megabytes" -detect_leaks=0 "${options[@]}" \
    -artifact_prefix="$folder/$1/" -print_final_stats=1 > "$log" 2>&1 || { tail -60 "$log" >&2; echo "fuzzing $1 FAILED" >&2; return 1; }
  sed -n 's/^stat::number_of_executed_units: */'"fuzz $1: executions "'/p' "$log"
}

# All at once, for as long as it takes each to have its time of the processors.
processors=$(nproc)
if [ ${#targets[@]} -gt "$processors" ]; then seconds=$((seconds * ${#targets[@]} / processors)); fi
status=0
processes=()
for target in "${targets[@]}"; do
  fuzz "$target" &
  processes+=($!)
done
for process in "${processes[@]}"; do wait "$process" || status=1; done
exit $status
