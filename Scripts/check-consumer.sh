#!/usr/bin/env bash
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# Meets the package as others do: a package of somebody else's depends on it by version, builds, and generates text:
# Scripts/check-consumer.sh MODELS, the folder of model files. The version is a tag in a clone of what is committed here. (SwiftPM refuses
# unsafe flags in a package that is depended on by version, which no build of our own would show.)
set -euo pipefail
cd "$(dirname "$0")/.."
models=$(realpath -m "$1")
root=$PWD

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git clone -q --no-local . "$folder/martlet"
git -C "$folder/martlet" -c user.name=consumer -c user.email=consumer@localhost tag -f -m 0.1.0 0.1.0
if [ -n "$(git status --porcelain)" ]; then echo "what is not committed is not in the consumer's version"; fi

# The README's manifest, whose two words are filled in, and its program.
mkdir -p "$folder/consumer/Sources/answer"
readme_block() { awk -v first="$1" '/^```/ { inside = 0 } index($0, first) == 1 { inside = 1 } inside' README.md; }
readme_block "import Martlet" > "$folder/consumer/Sources/answer/main.swift"
readme_block "// swift-tools-version" \
  | sed "s|REPOSITORY|file://$folder/martlet|; s|VERSION|0.1.0|" > "$folder/consumer/Package.swift"
grep -q "file://$folder/martlet.*0\.1\.0" "$folder/consumer/Package.swift" \
  || { echo "the README has no manifest with REPOSITORY and VERSION to fill in" >&2; exit 1; }

cd "$folder/consumer"
# A consumer sets nothing of ours. Dependencies are resolved and everything is planned by version, where SwiftPM would refuse; what is compiled
# then is the first module only, because the rest has been, by path.
env -u MARTLET_WARNINGS_AS_ERRORS swift build -c release --target MartletCore 2>&1 | tail -3
grep -A6 '"identity" : "martlet"' Package.resolved | grep -q '"version" : "0.1.0"' \
  || { echo "the consumer did not take version 0.1.0" >&2; cat Package.resolved >&2; exit 1; }
# The same program, with the package where it lies, in the examples' build folder.
sed -i "s|.package(url: \"file://$folder/martlet\", [^)]*)|.package(name: \"martlet\", path: \"$root\")|" Package.swift
grep -q "path: \"$root\"" Package.swift || { echo "the manifest's dependency was not replaced by a path" >&2; exit 1; }
rm -f "$root"/.build-examples/*.yaml "$root"/.build-examples/*/release/description.json
swift build -c release --scratch-path "$root/.build-examples" 2>&1 | tail -3
ln -s "$models" models
"$root/.build-examples/release/answer" | tee output.txt
grep -q '^ Paris' output.txt || { echo "the consumer's text is not what the model says" >&2; exit 1; }
