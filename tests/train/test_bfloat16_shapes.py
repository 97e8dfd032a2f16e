"""A training step with bfloat16 products on a CPU runs at whatever shape it is given.

XLA's CPU backend has bfloat16 kernels for some products only and finds out at run time, so each of
these compiles, runs and is compared with float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.train import optim, sharding, state, step
from bert_variants.types import Batch, Vocab

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(8))
def test_odd_shapes(seed):
    rng = np.random.default_rng(seed)
    heads, head = int(rng.integers(1, 6)), int(rng.choice([4, 12, 16, 32, 33, 64]))
    vocab = Vocab(int(rng.integers(40, 3000)), 0, 1, 2, 3, 4, (0, 1, 2, 3, 4))
    rows, length = int(rng.integers(1, 12)), int(rng.integers(8, 140))
    micro = int(rng.choice([n for n in (1, 2, 3) if rows % n == 0]))
    model = f"bert(layers={rng.integers(1, 4)}, width={heads * head}, heads={heads})"
    loss = {
        precision: first_losses(
            config.Experiment(
                model=model,
                objectives=("mlm + nsp", "mlm", "nsp")[seed % 3],
                run=config.Run(
                    batch=rows,
                    microbatches=micro,
                    precision=precision,
                    scan=("on", "off")[seed % 2],
                    remat=seed % 4 == 3,
                ),
                optim=config.Optim(warmup=0, lr=1e-2),
            ),
            batch_of(np.random.default_rng(seed), rows, length, vocab),
            vocab,
        )
        for precision in ("float32", "bfloat16_dots")
    }
    np.testing.assert_allclose(loss["bfloat16_dots"], loss["float32"], rtol=0.05, atol=0.05)


def batch_of(rng: np.random.Generator, rows: int, length: int, vocab: Vocab) -> Batch:
    tokens = rng.integers(5, vocab.size, (rows, length)).astype(np.int32)
    valid = np.arange(length) < rng.integers(4, length + 1, (rows, 1))
    tokens[:, 0], tokens[~valid] = vocab.cls, vocab.pad
    maskable = valid & (np.arange(length) > 0)
    column = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    return Batch(
        tokens_BT=tokens,
        segments_BT=np.zeros((rows, length), np.int32),
        positions_BT=column,
        valid_BT=valid,
        maskable_BT=maskable,
        words_BT=np.where(maskable, column - 1, -1).astype(np.int32),
        units_BT=np.full((rows, length), -1, np.int32),
        example_id_B=np.arange(rows, dtype=np.uint32),
        visit_B=np.zeros(rows, np.uint32),
        labels={"next_sentence": rng.integers(0, 2, rows).astype(np.int32)},
    )


def first_losses(experiment: config.Experiment, batch: Batch, vocab: Vocab) -> list[float]:
    """The losses of two steps: the second has been through the gradients of the first."""
    net = network.build(experiment, vocab.size)
    optimizer, schedule = optim.build(experiment.optim, experiment.run.steps)
    corrupt = registry.lookup("corruption", experiment.corruption)
    objectives = step.objectives_of(experiment)
    mesh = sharding.make_mesh(config.Mesh(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        params = net.init(keys.root(0), batch)
        zero = jnp.zeros((), jnp.int32)
        now = state.TrainState(
            step=zero, params=params, opt_state=optimizer.init(params), skipped=zero
        )
        a_step = jax.jit(
            step.make_train_step(
                net.apply,
                lambda keys_B, rows: corrupt(keys_B, rows, vocab),
                objectives,
                optimizer,
                schedule,
                seed=0,
                microbatches=experiment.run.microbatches,
            )
        )
        losses = []
        for _ in range(2):
            now, metrics = a_step(now, batch)
            assert int(now.skipped) == 0
            losses.append(sum(float(metrics[f"{o.name}/loss"].value()) for o in objectives))
    return losses
