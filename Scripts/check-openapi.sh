#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Checks that the server's OpenAPI document is valid and true, and that its replies are what the makers of the APIs say they are.
#
#   Scripts/check-openapi.sh MARTLET MODEL [EXAMPLES]
#
# MARTLET is a build with the trait HTTPServer, MODEL a file or a name, of a model whose chat template writes tools, such as qwen2.5-coder-0.5b;
# EXAMPLES (100) is how many cases are made for each operation. Three parts: openapi-spec-validator reads the document; schemathesis makes requests
# from it, right ones and wrong ones, and compares what comes with it; the models of the packages openai and anthropic read replies and events,
# strictly. What is installed for that goes into MARTLET_VENVS, where it stays, or into a folder that is gone afterwards.
set -euo pipefail
martlet=${1:?"the path of martlet"}
model=${2:?"a model"}
examples=${3:-100}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
venvs=${MARTLET_VENVS:-$work}
mkdir -p "$venvs"
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

# venv NAME PACKAGE…
venv() {
  local path=$venvs/$1
  shift
  [ -x "$path/bin/python" ] || python3 -m venv "$path"
  "$path/bin/pip" install -q --only-binary :all: --disable-pip-version-check "$@"
}
venv openapi schemathesis==4.32.5 openapi-spec-validator
venv types openai==3.57.0 anthropic==2.14.0

"$martlet" serve "$model" --served-name tested --alias org/tested --port 0 --max-queue 64 --request-timeout 20 \
  >"$work/out" 2>"$work/err" &
server=$!
for _ in $(seq 300); do
  url=http://127.0.0.1:$(sed -n 's/^{"port": \([0-9]*\)}$/\1/p' "$work/out")
  if curl -sf "$url/health" >/dev/null; then break; fi
  kill -0 "$server" || { cat "$work/err"; exit 1; }
  sleep 0.2
done

curl -sf "$url/openapi.json" -o "$work/openapi.json"
"$venvs/openapi/bin/python" -m openapi_spec_validator "$work/openapi.json"
"$venvs/types/bin/python" "$here/openapi/check_types.py" "$url"
cd "$work"
# The embeddings are left out, since the 501 of a model that writes text is a failure to schemathesis whatever the document says, and the live view, whose stream has no end;
# what its own check of accepted data is for, the hooks do by the code of the error. How long an answer takes is the machine's affair.
SCHEMATHESIS_HOOKS="$here/openapi/hooks.py" "$venvs/openapi/bin/schemathesis" run "$url/openapi.json" \
  --exclude-path /v1/embeddings --exclude-path /martlet/live --checks all --exclude-checks positive_data_acceptance --phases coverage,fuzzing --max-examples "$examples" \
  --continue-on-failure --request-timeout 60 --max-response-time 60 --suppress-health-check all --warnings off --seed 7 --no-shrink
kill -0 "$server"
