# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""lm-eval's local-completions: a task of multiple choice with data of its own. Its log-likelihoods must be those of `martlet perplexity`, to the last
digit that this prints, whatever the batch."""

import json
import os
import struct
import subprocess
import tempfile

import lm_eval
from common import BASE, KEY, MODEL, Skip, expect, law, main
from lm_eval.tasks import TaskManager

os.environ["OPENAI_API_KEY"] = KEY
QUESTIONS = [
    ("The capital of France is", [" Paris", " London", " a banana"], 0), ("Two and two make", [" four", " seventeen", " blue"], 0),
    ("A cat is an", [" animal", " engine", " ocean"], 0), ("Water freezes at zero degrees", [" Fahrenheit in summer", " Celsius"], 1),
    ("Große Straßen heißen", [" Alleen", " Fische"], 0), ("The opposite of hot is", [" cold", " 冷", " 🐦"], 0),
]
folder = tempfile.mkdtemp()
with open(f"{folder}/data.jsonl", "w") as file:
    for question, choices, label in QUESTIONS:
        file.write(json.dumps({"question": question, "choices": choices, "label": label}) + "\n")
with open(f"{folder}/tiny.yaml", "w") as file:
    file.write(f"""task: tiny
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/data.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: label
target_delimiter: ""
metric_list:
  - metric: acc
""")


def evaluate(batch, **further):
    options = dict(
        model=MODEL, base_url=BASE + "/completions", tokenizer_backend="remote", auth_token=KEY, num_concurrent=1, max_retries=1, max_length=2048, **further)
    results = lm_eval.simple_evaluate(
        model="local-completions", model_args=options, tasks=["tiny"], batch_size=batch, task_manager=TaskManager(include_path=folder, include_defaults=False),
        log_samples=True, bootstrap_iters=0)
    samples = sorted(results["samples"]["tiny"], key=lambda sample: sample["doc_id"])
    return results["results"]["tiny"]["acc,none"], [[tuple(pair[0]) for pair in sample["resps"]] for sample in samples]


found = {}


@law
def _():
    """the task runs, and a model that has read English answers it better than chance"""
    accuracy, found["likelihoods"] = evaluate(1)
    expect(accuracy > 0.6, "accuracy:", accuracy)


@law
def _():
    """the log-likelihoods are the same in batches"""
    if "likelihoods" not in found:
        raise Skip("the task did not run")
    for size in (3, 16):
        expect(evaluate(size)[1] == found["likelihoods"], "batches of", size, "give other numbers")


@law
def _():
    """the log-likelihoods are those of the command line's scores"""
    if "likelihoods" not in found:
        raise Skip("the task did not run")
    for (question, choices, _), row in zip(QUESTIONS, found["likelihoods"]):
        part = score(question)
        for choice, pair in zip(choices, row):
            whole = score(question + choice)
            expect(whole[: len(part)] == part, "the question's tokens differ before", choice)
            # lm-eval sums what the tokens behind the question's have.
            expect(float(pair[0]) == sum(whole[len(part):]), repr(question + choice), "lm-eval:", pair[0], "martlet:", sum(whole[len(part):]))


def score(text):
    """The log-probabilities of a text's tokens behind its first, by the command line, which prints as many digits as a float has."""
    run = subprocess.run(
        [os.environ["MARTLET"], "perplexity", "--model", os.environ["MARTLET_MODEL"], "--whole", "--json"], input=text, capture_output=True, text=True, check=False)
    expect(run.returncode == 0, run.stderr[-500:])
    return [struct.unpack("f", struct.pack("f", value))[0] for value in json.loads(run.stdout)["logprobs"]]


main()
