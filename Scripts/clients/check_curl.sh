#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
# curl, as the documentation of every server has it.
set -uo pipefail
url=$1 model=$2 key=$3 failed=0
auth=(-H "Authorization: Bearer $key")
json=(-H "Content-Type: application/json")

law() {
  if [[ $2 == $3 ]]; then echo "    holds: $1"; else echo "    FAILED: $1: $2"; failed=1; fi
}

law "a reply" "$(curl -s "$url/v1/chat/completions" "${auth[@]}" "${json[@]}" \
  -d '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}')" '{"id": "chatcmpl-*"role": "assistant"*"usage"*'
law "a stream, to its mark of the end" "$(curl -sN "$url/v1/chat/completions" "${auth[@]}" "${json[@]}" \
  -d '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": true}' | tail -2 | head -1)" 'data: \[DONE\]'
law "curl -d without a type is told which header" "$(curl -s "$url/v1/completions" "${auth[@]}" -d '{"prompt": "x"}')" '*Content-Type: application/json*'
law "no key" "$(curl -s -o /dev/null -w '%{http_code}' "$url/v1/models")" 401
law "HEAD" "$(curl -sI -o /dev/null -w '%{http_code}' "${auth[@]}" "$url/v1/models")" 200
law "a model whose name has a slash" "$(curl -s "${auth[@]}" "$url/v1/models/$model")" "{\"id\": \"$model\"*"
law "chunks of a body" "$(curl -s "$url/v1/completions" "${auth[@]}" "${json[@]}" -H 'Transfer-Encoding: chunked' -d '{"prompt": "x", "max_tokens": 1}')" '{"id": "cmpl-*'
# Without an answer to Expect: 100-continue curl waits a second.
body=$(mktemp)
printf '{"prompt": "x", "max_tokens": 1, "metadata": {"a": "%01500000d"}}' 0 >"$body"
law "1.5 MB with Expect: 100-continue" "$(curl -s -o /dev/null -w '%{http_code}' --expect100-timeout 20 -m 15 -H 'Expect: 100-continue' "$url/v1/completions" "${auth[@]}" "${json[@]}" \
  --data-binary "@$body")" 200
rm "$body"
exit $failed
