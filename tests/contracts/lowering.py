"""A config's train step, traced and partitioned at full size without one byte of it allocated."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contracts import rows as data
from jax.sharding import AbstractMesh, AxisType

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.train import optim, sharding, step
from bert_variants.train.state import TrainState
from bert_variants.types import Vocab

# of published size and odd, as BERT's
VOCAB = dataclasses.replace(data.VOCAB, size=30_522, counts_V=np.ones(30_522, np.int64))


@dataclasses.dataclass(frozen=True)
class Lowered:
    """The state's shapes and shardings, and the lowered step's text."""

    state: Any
    placed: Any
    text: str


def abstract_mesh(data_ways: int, fsdp: int, tensor: int) -> AbstractMesh:
    """A mesh of devices that need not exist."""
    sizes = (data_ways, fsdp, tensor)
    return AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def lower(
    experiment: config.Experiment, mesh: AbstractMesh, vocab: Vocab = VOCAB, platform: str = "tpu"
) -> Lowered:
    """Lower the train step of ``experiment`` for ``platform`` on ``mesh``."""
    net = network.build(experiment, vocab.size, backend=platform)
    objectives = step.objectives_of(experiment)
    optimizer, schedule = optim.build(experiment.optim, experiment.run.steps)
    call = registry.lookup("corruption", experiment.corruption)
    run = step.make_train_step(
        net.apply,
        lambda row_keys, batch: call(row_keys, batch, vocab),
        objectives,
        optimizer,
        schedule,
        seed=0,
        copies=experiment.data.copies,
        microbatches=experiment.run.microbatches,
    )
    rows = batch_shapes(experiment)

    def init() -> TrainState:
        params = net.init(keys.root(0), jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), rows))
        zero = jnp.zeros((), jnp.int32)
        return TrainState(step=zero, params=params, opt_state=optimizer.init(params), skipped=zero)

    with jax.sharding.use_abstract_mesh(mesh):
        state = jax.eval_shape(init)
        placed = sharding.shardings(state, mesh, net.rules)
        jitted = jax.jit(
            run,
            in_shardings=(placed, sharding.batch_shardings(rows, mesh)),
            out_shardings=(placed, None),
        )
        lowered = jitted.trace(state, rows).lower(lowering_platforms=(platform,))
    return Lowered(state, placed, lowered.as_text())


def batch_shapes(experiment: config.Experiment) -> Any:
    """A global batch of the experiment, shapes alone."""
    labels = registry.lookup("example", experiment.data.example).traits["labels"]
    rows = data.rows(0, 1, experiment.data.length, labels=dict.fromkeys(labels, 2))
    count = experiment.run.batch
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *np.shape(x)[1:]), x.dtype), rows)
