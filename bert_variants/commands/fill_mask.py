"""Guess the [MASK] in a sentence."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import tyro

from bert_variants import loaded
from bert_variants.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Options:
    """What to guess.

    Attributes:
        run: the run's directory.
        texts: sentences, each with one [MASK] or more.
        top: guesses a mask.
        json: print one JSON object a sentence.
    """

    run: Annotated[str, tyro.conf.Positional]
    texts: Annotated[tuple[str, ...], tyro.conf.Positional]
    top: int = 5
    json: bool = False


def main(options: Options) -> int:
    """Print the likeliest tokens with their probabilities."""
    if not options.texts:
        raise ConfigError('give a sentence: bert-variants fill-mask RUN "The [MASK] is returned."')
    model = loaded.load(options.run)
    for text in options.texts:
        try:
            guesses = model.fill_mask(text, options.top)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if options.json:
            found = [[dataclasses.asdict(g) for g in one] for one in guesses]
            print(json.dumps({"text": text, "guesses": found}, ensure_ascii=False))
        else:
            print(text)
            for one in guesses:
                print("  " + "   ".join(f"{g.token} {g.probability:.1%}" for g in one))
    return 0
