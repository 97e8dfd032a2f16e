"""A model of transformers into ours and back, for the live comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contracts import rows as data

from bert_variants import config
from bert_variants.convert import directory
from bert_variants.convert.family import shapes_of
from bert_variants.models import network
from bert_variants.ops.attention import HIDDEN
from bert_variants.train import leaves, step
from bert_variants.types import Corrupted, Outputs, Vocab

Params = Mapping[str, np.ndarray]


def randomised(model: Any, seed: int) -> Any:
    """A model of transformers whose every parameter is random, LayerNorms and biases too."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape) * 0.2
            scale = "norm" in name.lower() and name.endswith("weight")
            weight.copy_(noise + 1 if scale else noise)
    return model.eval()


def random_params(experiment: config.Experiment, vocab: int, seed: int) -> dict[str, np.ndarray]:
    """Parameters of ours, all of them random."""
    rng = np.random.default_rng(seed)
    made = {}
    for path, shape in shapes_of(experiment, vocab).items():
        noise = np.float32(rng.standard_normal(shape) * 0.2)
        made[path] = noise + np.float32(1) if path.endswith("norm/scale") else noise
    return made


def read(folder: Path) -> tuple[directory.Model, dict[str, np.ndarray]]:
    """What a directory is to us, and its parameters."""
    found = directory.look(folder)
    return found, dict(found.arrays())


def write(
    folder: Path, experiment: config.Experiment, params: Params, vocab: int
) -> directory.Written:
    """Our parameters as a directory of transformers."""
    ids = Vocab(size=vocab, pad=0, unk=1, cls=2, sep=3, mask=4)
    return directory.write(folder, experiment, params, ids)


def loaded(kind: Any, folder: Path) -> Any:
    """A class of transformers from a directory, with no key missing and none unexpected."""
    model, told = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(told[what] for what in told if what != "error_msgs"), told
    return model.eval()


def run(experiment: config.Experiment, params: Params, vocab: int, batch: Corrupted) -> Outputs:
    """Our outputs in float32, with layers and scores."""
    exact = dataclasses.replace(experiment.run, precision="float32")
    experiment = dataclasses.replace(experiment, run=exact)
    net = network.build(experiment, vocab, wanted=(("layers", 0), ("scores", 0)))
    tree = leaves.nested({path: jnp.asarray(array) for path, array in params.items()})
    return data.quickly(net.apply)(tree, jax.tree.map(jnp.asarray, batch))


def text(seed: int, vocab: int, segments: int, length: int = 11, count: int = 3) -> Corrupted:
    """Rows with padding; every token of a row that has several is to be predicted."""
    rng = np.random.default_rng(seed)
    valid = np.arange(length) < np.array([length, length - 4, 1])[:count, None]
    ids = np.where(valid, rng.integers(1, vocab, (count, length)), 0).astype(np.int32)
    kinds = rng.integers(0, max(1, segments), (count, length)) * valid
    at = np.broadcast_to(np.arange(length, dtype=np.int32), (count, length)).copy()
    plain = data.rows(0, count, length, empty=tuple(range(count)))
    return Corrupted.of(
        plain.replace(tokens_BT=ids, segments_BT=kinds.astype(np.int32), valid_BT=valid),
        inputs_BT=ids,
        at_BP=at,
        targets_BP=rng.integers(0, vocab, at.shape).astype(np.int32),
        weights_BP=np.float32(valid & (valid.sum(axis=1) > 1)[:, None]),
    )


def loss(outputs: Outputs, batch: Corrupted) -> float:
    """Our loss for masked tokens, in nats."""
    (mlm,) = step.objectives_of(config.Experiment(objectives="mlm"))
    return float(mlm.objective(outputs, jax.tree.map(jnp.asarray, batch)).loss.value())


def labels(batch: Corrupted) -> np.ndarray:
    """What transformers takes as labels: -100 where nothing is predicted."""
    return np.where(batch.weights_BP > 0, batch.targets_BP, -100)


def attention(outputs: Outputs, valid_BT: np.ndarray) -> np.ndarray:
    """What each token reads of each, softmax of our scores: [L, B, N, T, T]."""
    hidden = jnp.where(jnp.asarray(valid_BT)[None, :, None, None, :], 0.0, HIDDEN)
    return np.asarray(
        jax.nn.softmax(outputs.scores + jnp.broadcast_to(hidden, outputs.scores.shape))
    )


def same(found: Params, expected: Params) -> None:
    """Bit for bit."""
    assert set(found) == set(expected)
    for path, array in expected.items():
        assert np.asarray(found[path]).dtype == np.float32
        assert np.asarray(found[path]).tobytes() == np.asarray(array).tobytes(), path
