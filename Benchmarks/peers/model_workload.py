# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Requests that come at the same time, as `martlet bench model` writes them: 8x128+64 is 8 requests with prompts of 128 tokens and answers of 64."""

import dataclasses
import re

# Ids of tokens are random numbers below this, which every model's vocabulary has.
IDS = 32000


@dataclasses.dataclass(frozen=True)
class ModelWorkload:
    text: str
    requests: int
    prompted: int
    generated: int

    @property
    def tokens(self):
        """What a speed counts: a prompt's tokens where only one is generated, else those that are generated."""
        return self.requests * (self.prompted if self.generated == 1 else self.generated)

    def prompt(self, numbers):
        """Random token ids."""
        return [numbers.randrange(IDS) for _ in range(self.prompted)]


def parse(text):
    """Raises ValueError where the text is no workload."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)\+([1-9]\d*)", text)
    if not found:
        raise ValueError(f"{text} is no workload; one looks like 1x512+1 or 8x128+64")
    return ModelWorkload(text, *map(int, found.groups()))
