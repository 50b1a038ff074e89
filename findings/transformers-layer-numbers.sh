#!/bin/sh
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
#
# transformers 5.24.0, the configuration of Gemma 4's text model.
#
# What differs from layer to layer stands in config.json under `per_layer_config`, an object whose members are layers' numbers. The numbers are
# padded with zeros to the digits of the greatest layer's number, so that layer 5 is "5" in a model of 10 layers and "05" in one of 11: who looks
# for str(5) finds nothing there, and a layer that is not listed is an ordinary one. A reader must take members by their value as numbers.
# And `global_head_dim`, by which such a configuration is made, is not written: the dims of global layers are nowhere else.
#
# Seen:
#   10 layers: {'5': {'head_dim': 512}, '9': {'head_dim': 512}}
#   11 layers: {'05': {'head_dim': 512}, '10': {'head_dim': 512}}
#   30 layers: {'05': {'head_dim': 512}, '11': {'head_dim': 512}, '17': {'head_dim': 512}, '23': {'head_dim': 512}, '29': {'head_dim': 512}}
#   global_head_dim is written: False
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --only-binary :all: transformers==5.24.0
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import json
import transformers

transformers.logging.set_verbosity_error()


def written(layers):
    config = transformers.Gemma4TextConfig(num_hidden_layers=layers, global_head_dim=512)
    config.save_pretrained(f"of-{layers}")
    with open(f"of-{layers}/config.json") as file:
        return json.load(file)


for layers, seen in [(10, ["5", "9"]), (11, ["05", "10"]), (30, ["05", "11", "17", "23", "29"])]:
    config = written(layers)
    print(f"{layers} layers: {config['per_layer_config']}")
    assert list(config["per_layer_config"]) == seen, f"{layers} layers: {list(config['per_layer_config'])}, where {seen} was seen"
    assert "global_head_dim" not in config
print("global_head_dim is written: False")
PYTHON
