#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
# Real clients against a server that this starts: each in a virtual environment of its own, since they do not fit one, at the versions below.
#
#   Scripts/check-clients.sh MARTLET [MODEL [ENVIRONMENTS [CLIENT…]]]
#
# MODEL defaults to smollm2-135m. ENVIRONMENTS is a folder that keeps the virtual environments for the next time (default: one that is removed).
# A CLIENT is a name of the table below (default: all of them). Ends with a table, and with 1 if a client fails; one that cannot be installed, or
# that looks only at what the server does not have, is listed with the reason and fails nothing.
set -uo pipefail
martlet=$(realpath "$1") model=${2:-smollm2-135m} environments=${3:-} here=$(dirname "$(realpath "$0")")
shift $(($# < 3 ? $# : 3))
[ ! -e "$model" ] || model=$(realpath "$model")

# name, packages, script
clients=(
  "curl|-|check_curl.sh"
  "openai|openai==3.57.0|check_openai.py"
  "anthropic|anthropic==2.14.0|check_anthropic.py"
  "pydantic-ai|pydantic-ai-slim[openai]==2.68.0|check_pydantic_ai.py"
  "langchain|langchain-openai==1.7.4|check_langchain.py"
  "litellm|litellm==1.110.2|check_litellm.py"
  "llama-index|llama-index-llms-openai==0.8.3|check_llama_index.py"
  "lm-eval|lm-eval[api]==0.4.13|check_lm_eval.py"
  "guidellm|guidellm==0.8.1|check_guidellm.py"
)

scratch=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null; wait "${server:-}" 2>/dev/null; rm -rf "$scratch"' EXIT
environments=${environments:-$scratch/environments}
mkdir -p "$environments"
environments=$(realpath "$environments")
export MARTLET=$martlet MARTLET_MODEL=$model PYTHONWARNINGS=ignore PYTHONDONTWRITEBYTECODE=1
# No client may tell anybody that it runs, or look for anything.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 HF_HOME=$scratch/hf
unset OPENAI_API_KEY OPENAI_BASE_URL ANTHROPIC_API_KEY ANTHROPIC_BASE_URL
name=org/served key=key-of-the-check

"$martlet" serve "$model" --port 0 --context 2048 --alias "$name" --api-key "$key" >"$scratch/port" 2>"$scratch/server.log" &
server=$!
url=
for _ in $(seq 600); do
  port=$(sed -n 's/^{"port": \([0-9]*\)}$/\1/p' "$scratch/port")
  if [ -n "$port" ] && curl -sf "http://127.0.0.1:$port/health" >/dev/null; then url=http://127.0.0.1:$port; break; fi
  kill -0 $server 2>/dev/null || break
  sleep 0.1
done
[ -n "$url" ] || { cat "$scratch/server.log"; echo "martlet serve did not start" >&2; exit 1; }

# Makes the virtual environment of a client. By uv, since pip looks for minutes for versions that go together. Wheels only, for a source
# build may take minutes or a compiler that is not there; but a few packages of plain Python have none.
install() {
  local folder=$environments/$1 uv=$environments/uv
  [ ! -e "$folder/ok" ] || return 0
  [ -e "$uv/bin/uv" ] || { python3 -m venv "$uv" && "$uv/bin/pip" install -q --only-binary :all: uv==0.13.9; } || return 1
  python3 -m venv "$folder" \
    && UV_CACHE_DIR=$environments/cache UV_LINK_MODE=copy timeout 900 nice "$uv/bin/uv" pip install -q --python "$folder/bin/python" \
      --only-binary :all: --no-binary sqlitedict --no-binary rouge-score --no-binary word2number "$2" >"$folder/log" 2>&1 \
    && touch "$folder/ok"
}

table=() failed=0
for client in "${clients[@]}"; do
  IFS='|' read -r label package script <<<"$client"
  [ $# = 0 ] || [[ " $* " == *" $label "* ]] || continue
  echo "$label ${package#-}"
  since=$SECONDS
  if [ "$package" != - ] && ! install "$label" "$package"; then
    table+=("$(printf '%-12s %-34s not here: %s' "$label" "$package" "$(grep -m1 -i error "$environments/$label/log" 2>/dev/null || echo "cannot be installed")")")
    continue
  fi
  case $script in
    *.sh) timeout 300 bash "$here/clients/$script" "$url" "$name" "$key" ;;
    *) timeout 600 "$environments/$label/bin/python" "$here/clients/$script" "$url" "$name" "$key" ;;
  esac 2>&1 | tee "$scratch/output"
  case ${PIPESTATUS[0]} in
    0) word="passed, $(grep -c '^    holds: ' "$scratch/output") laws" ;;
    77) word="skipped: $(sed -n 's/^    SKIPPED: .*: //p' "$scratch/output" | head -1)" ;;
    124) word="FAILED: ran out of time" failed=1 ;;
    *) word="FAILED" failed=1 ;;
  esac
  skipped=$(grep -c '^    SKIPPED: ' "$scratch/output")
  [ "$skipped" = 0 ] || [[ $word == skipped* ]] || word+=", $skipped skipped"
  table+=("$(printf '%-12s %-34s %s, %d s' "$label" "${package#-}" "$word" $((SECONDS - since)))")
  kill -0 $server 2>/dev/null || { echo "the server ended:"; tail -5 "$scratch/server.log"; failed=1; break; }
done
if grep -q ' error ' "$scratch/server.log"; then
  echo "FAILED: the server's log has errors:"
  grep ' error ' "$scratch/server.log" | head
  failed=1
fi
printf '\n'
[ ${#table[@]} != 0 ] || { echo "no client has that name" >&2; exit 1; }
printf '%s\n' "${table[@]}"
exit $failed
