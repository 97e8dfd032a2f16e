"""Tiny models that have an original TensorFlow code, for the tests of their checkpoints."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from convert import both_ways
from convert import tensorflow_published as published

from bert_variants import config, loaded, registry
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.tokenizers.wordpiece import WordPiece
from bert_variants.train import leaves

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c", "the", "."]
COMMON = {"V": 13, "S": 3, "P": 9, "D": 12, "F": 10}
# name -> our model, objectives, the published list, its sizes
CASES = {
    "bert": (
        "bert(layers=2, width=12, heads=3, ffn=10, positions=9, segments=3)",
        "mlm + nsp",
        published.BERT,
        {},
    ),
    "albert": (
        "albert(layers=5, width=12, heads=2, ffn=10, positions=9, segments=3, embedding=5, "
        "groups=2, activation='relu')",
        "mlm + sop",
        published.ALBERT,
        {"E": 5},
    ),
    "electra": (
        "electra(layers=2, width=12, heads=4, ffn=10, positions=9, segments=3, embedding=7, "
        "generator_width=6)",
        "mlm + 50*replaced_token",
        published.ELECTRA,
        {"E": 7, "G": 6, "I": 24},
    ),
    "xlnet": (
        "xlnet(layers=2, width=12, heads=3, ffn=10, memory=4)",
        "mlm",
        published.XLNET,
        {"L": 2, "N": 3, "H": 4},
    ),
}


def experiment_of(name: str) -> config.Experiment:
    model, objectives, _, _ = CASES[name]
    return config.Experiment(model=model, objectives=objectives)


def small_pieces() -> Tokenizer:
    """A small SentencePiece model."""
    recipe = registry.lookup("tokenizer", "sentencepiece(size=60, normalization='xlnet')")()
    return recipe.build(["the cat sat on the mat", "a dog and a cat ran", "no mat is a dog"] * 20)


def model_of(name: str, pieces: Tokenizer, **changes: str) -> loaded.Loaded:
    """A model with random parameters and a tokenizer."""
    tokenizer = pieces if name == "xlnet" else WordPiece(TOKENS, lowercase=True, strip_accents=None)
    experiment = dataclasses.replace(experiment_of(name), **changes)
    rows = tokenizer.vocab.size + 3
    params = both_ways.random_params(experiment, rows, 5)
    tree = leaves.nested({path: jnp.asarray(array) for path, array in params.items()})
    return loaded.of(experiment, tree, tokenizer, 1234)


def flat(made: loaded.Loaded) -> dict[str, np.ndarray]:
    return {path: np.asarray(array) for path, array in leaves.flatten(made.params)[0].items()}
