#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Runs the fast tests under the address sanitizer and, those with several threads, under the thread sanitizer:
# Scripts/check-sanitizers.sh [address|thread]…, both unless told. Each has a build of its own, .build-address and .build-thread.
#
# The thread sanitizer sees the worker pool as it is and is told nothing: the futex is only where a thread sleeps, and every order between two
# threads comes from an atomic with acquire and release, which it follows in Swift and in C. Only `Mutex` sleeps on a futex that it cannot
# see through, so the pool says that order once more with an atomic.
set -euo pipefail
cd "$(dirname "$0")/.."
export SWIFT_BACKTRACE=enable=no
# Tests that end a child on purpose leak in it.
export ASAN_OPTIONS=detect_leaks=0
sanitizers=("$@")
[ ${#sanitizers[@]} -gt 0 ] || sanitizers=(address thread)

# Not here: real models and the command line, which take minutes and run nothing that these do not.
declare -A tests=(
  [address]='MartletCoreTests|MartletCPUTests|MartletFormatsTests\.(BadFile|RoundTrip|JSON|Safetensors)|MartletTokenizersTests|MartletKVCacheTests|MartletAttentionTests|MartletModelsTests|MartletTests\.(Engine|Scheduler|ChatPrompt)Tests'
  [thread]='A worker pool|MartletKVCacheTests|MartletAttentionTests|MartletTests\.(Engine|Scheduler)Tests|MartletTests\.StressTests/few'
)

run() {  # run SANITIZER
  local log=".build-$1/log.txt"
  # The manifest then leaves out what is not tested here.
  export MARTLET_SANITIZED="$1"
  mkdir -p ".build-$1"
  # The linker's warnings about the sanitizer's own symbols are not ours.
  swift build -c release --build-tests --sanitize="$1" --scratch-path ".build-$1" > "$log" 2>&1 \
    || { grep -v 'Cannot export local symbol' "$log" | tail -40 >&2; echo "the build with --sanitize=$1 FAILED" >&2; return 1; }
  if ! swift test -c release --skip-build --sanitize="$1" --scratch-path ".build-$1" --filter "${tests[$1]}" > "$log" 2>&1 \
    || grep -Eq 'WARNING: ThreadSanitizer|ERROR: AddressSanitizer' "$log"; then
    grep -E '✘|Sanitizer|SUMMARY|^ +#' "$log" | head -80 >&2
    echo "the tests under the $1 sanitizer FAILED" >&2
    return 1
  fi
  grep -Eo 'Test run with [1-9][0-9]* tests.* passed' "$log" | sed "s/^/$1 sanitizer: /"
}

# Side by side: the long part of each build is one compiler after the other.
processes=()
for sanitizer in "${sanitizers[@]}"; do
  run "$sanitizer" &
  processes+=($!)
done
status=0
for process in "${processes[@]}"; do wait "$process" || status=1; done
exit $status
