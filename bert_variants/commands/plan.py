"""Parameters, FLOPs, memory, checkpoint size, steps and tokens of a config, without training."""

from __future__ import annotations

import dataclasses
import json

import jax

from bert_variants import config
from bert_variants.plan import summary


@dataclasses.dataclass(frozen=True)
class Options:
    """For which machine.

    Attributes:
        devices: how many; 0: those of this machine.
        vocab: V; 0: what the tokenizer's call-string says.
        json: print one JSON object.
    """

    devices: int = 0
    vocab: int = 0
    json: bool = False


def main(experiment: config.Experiment, options: Options) -> int:
    """Print the plan."""
    devices = options.devices or jax.device_count()
    found = summary.summary(experiment, devices, options.vocab)
    print(json.dumps(found) if options.json else summary.render(found))
    return 0
