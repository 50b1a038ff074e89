#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Builds the packages in Examples and runs them: Scripts/check-examples.sh MODELS [NAME…], the folder of model files, and all unless told. They
# share one build folder, so that what they have in common is compiled once; the one with a server shares the package's own, as README's first
# command leaves it.
set -euo pipefail
cd "$(dirname "$0")/.."
models=$(realpath -m "$1")
names=("${@:2}")
[ ${#names[@]} -gt 0 ] || names=(Examples/*)
mkdir -p .build-examples

for name in "${names[@]}"; do
  name=$(basename "$name")
  echo "$name:"
  build=.build-examples
  [ "$name" != hummingbird-app ] || build=.build
  # The plan in the folder is the last package's, and would be taken for this one's.
  rm -f $build/*.yaml $build/*/release/description.json
  swift build -c release --package-path "Examples/$name" --scratch-path $build 2>&1 | tail -1
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
    custom-model)
      # A seeded model, and what transformers writes behind its first prompt.
      checkpoint=Tests/MartletTestSupport/Checkpoints/ernie
      truth() { python3 -c "import json; print(*json.load(open('$checkpoint/expected.json'))['$1'][0])"; }
      # shellcheck disable=SC2046
      .build-examples/release/custom-model $checkpoint $(truth prompts) | tee .build-examples/output.txt
      grep -qx "tokens: $(truth greedy)" .build-examples/output.txt \
        || { echo "the model from outside does not write what transformers writes: $(truth greedy)" >&2; exit 1; }
      ;;
    hummingbird-app)
      python3 - "$models/smollm2-135m.gguf" <<'PYTHON' | tee .build-examples/output.txt
import json, signal, subprocess, sys, time, urllib.request
port = 8347
app = subprocess.Popen([".build/release/hummingbird-app", sys.argv[1], str(port)], stderr=subprocess.DEVNULL)
def get(path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=120).read().decode()
try:
    for _ in range(600):
        try:
            print(get("/greeting").strip())
            break
        except OSError:
            time.sleep(0.1)
    ask = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16, "temperature": 0}
    print(json.loads(get("/llm/v1/chat/completions", ask))["choices"][0]["message"]["content"])
    assert "<!doctype html>" in get("/llm/"), "no page"
finally:
    app.send_signal(signal.SIGTERM)
    print("ended with", app.wait(60))
PYTHON
      grep -q '^Hello from the application' .build-examples/output.txt && grep -q Paris .build-examples/output.txt \
        && grep -q '^ended with 0' .build-examples/output.txt || { echo "the application did not do what it is for" >&2; exit 1; }
      ;;
    *) ".build-examples/release/$name" | tee .build-examples/output.txt ;;
  esac
  [ -s .build-examples/output.txt ] || { echo "the example $name printed nothing" >&2; exit 1; }
  if [ "$name" = generate ]; then
    grep -q '^greedy: The capital of France is Paris' .build-examples/output.txt || { echo "the example's text is not what the model says" >&2; exit 1; }
  fi
done
