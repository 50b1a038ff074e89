#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Builds every package in Examples and runs it: Scripts/check-examples.sh MODELS, the folder of model files. They share one build folder, so
# that what they have in common is compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."
models=$(realpath -m "$1")

for manifest in Examples/*/Package.swift; do
  name=$(basename "$(dirname "$manifest")")
  echo "$name:"
  # The plan in the folder is the last package's, and would be taken for this one's.
  rm -f .build-examples/*.yaml .build-examples/*/release/description.json
  swift build -c release --package-path "Examples/$name" --scratch-path .build-examples 2>&1 | tail -1
  case $name in
    generate) .build-examples/release/generate "The capital of France is" "$models" | tee .build-examples/output.txt ;;
    custom-backend)
      .build-examples/release/custom-backend verify | tee .build-examples/output.txt
      .build-examples/release/custom-backend generate "$models/smollm2-135m.gguf" | tee -a .build-examples/output.txt
      grep -q '^ Paris' .build-examples/output.txt || { echo "the backend from outside does not write what the model says" >&2; exit 1; }
      ;;
    chat-service)
      .build-examples/release/chat-service "$models/smollm2-135m.gguf" | tee .build-examples/output.txt
      grep -q '^stopped: cancelled' .build-examples/output.txt \
        && grep -q '^crowd: some answered: true, some refused: true, prefix hits: true' .build-examples/output.txt \
        && grep -q '^the service has ended' .build-examples/output.txt || { echo "the service did not do what it is for" >&2; exit 1; }
      ;;
    *) ".build-examples/release/$name" | tee .build-examples/output.txt ;;
  esac
  [ -s .build-examples/output.txt ] || { echo "the example $name printed nothing" >&2; exit 1; }
  if [ "$name" = generate ]; then
    grep -q '^greedy: The capital of France is Paris' .build-examples/output.txt || { echo "the example's text is not what the model says" >&2; exit 1; }
  fi
done
