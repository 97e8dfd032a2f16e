"""The real train step over a tiny BERT, with the gradient in place of the optimizer's state."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from contracts import rows as data

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.train import sharding, step
from bert_variants.train.state import TrainState

LENGTH = 16
# axes divide every size, so that nothing falls back to being copied
MODEL = "bert(layers=2, width=32, heads=8, ffn=64, positions=16)"
SMALL = "bert(layers=1, width=16, heads=2, ffn=16, positions=16)"
SLEEPY = SMALL.replace(")", ", dropout=0.0, attention_dropout=0.0)")


def keep_gradient() -> optax.GradientTransformation:
    """Updates of 0; the state is the last gradient. Adam would divide its rounding error away."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del state, params
        return jax.tree.map(jnp.zeros_like, grads), grads

    return optax.GradientTransformation(lambda p: jax.tree.map(jnp.zeros_like, p), update)


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """A step on a mesh: ``run(batch)`` gives the new state and the metrics as numpy arrays."""

    mesh: Any
    state: TrainState
    jitted: Callable[..., Any]
    compiled: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def run(self, batch: Any, state: TrainState | None = None) -> tuple[TrainState, dict]:
        placed = sharding.put_batch(batch, self.mesh)
        return self._for(placed)(self.state if state is None else state, placed)

    def _for(self, placed: Any) -> Any:
        """The step compiled once for such a batch; jit would do it again to show its text."""
        kind = jax.tree.structure(placed)
        if kind not in self.compiled:
            with jax.set_mesh(self.mesh):
                lowered = self.jitted.lower(self.state, placed)
            # the partitioner's work is the same; machine code for tiny arrays need not be fast
            self.compiled[kind] = lowered.compile({"xla_backend_optimization_level": 0})
        return self.compiled[kind]

    def results(self, batch: Any) -> tuple[Any, dict[str, np.ndarray]]:
        """The gradient, and the metrics divided."""
        state, metrics = self.run(batch)
        as_numpy = jax.tree.map(np.asarray, (state.opt_state, metrics))
        return as_numpy[0], {k: np.asarray(v.value()) for k, v in as_numpy[1].items()}

    def hlo(self, batch: Any) -> str:
        return self._for(sharding.put_batch(batch, self.mesh)).as_text()


@functools.cache
def trainer(
    shape: tuple[int, int, int] = (1, 1, 1),
    *,
    model: str = MODEL,
    objectives: str = "mlm + nsp",
    corruption: str = "tokens(rate=0.3)",
    microbatches: int = 1,
    scan: str = "on",
    wrap: Callable[[Any], Any] = lambda apply: apply,
    optimizer: Callable[[], optax.GradientTransformation] = keep_gradient,
    carry: int = 0,
) -> Trainer:
    """A trainer on a mesh of (data, fsdp, tensor), on as many devices as that takes."""
    experiment = config.Experiment(
        model=model,
        objectives=objectives,
        corruption=corruption,
        run=config.Run(scan=scan, precision="float32"),
    )
    net = network.build(experiment, data.VOCAB.size)
    mesh = sharding.make_mesh(config.Mesh(*shape), jax.devices()[: int(np.prod(shape))])
    made = optimizer()
    call = registry.lookup("corruption", corruption)
    run = step.make_train_step(
        wrap(net.apply),
        lambda row_keys, batch: call(row_keys, batch, data.VOCAB),
        step.objectives_of(experiment),
        made,
        lambda step: jnp.float32(1.0),
        seed=3,
        microbatches=microbatches,
    )

    rows = data.rows(0, 1, LENGTH)
    params = data.random_params(jax.eval_shape(net.init, keys.root(0), rows))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=made.init(params),
        skipped=jnp.zeros((), jnp.int32),
        carry=jnp.zeros((carry, 4)) if carry else None,
    )
    placed = sharding.shardings(state, mesh, net.rules)
    state = jax.device_put(state, placed)
    return Trainer(mesh, state, jax.jit(run, out_shardings=(placed, None)))


def batch(seed: int = 0, count: int = 16, **options: Any) -> Any:
    """Rows with the labels of NSP; lengths differ, so masked tokens are unequally spread."""
    return data.rows(seed, count, LENGTH, labels={"next_sentence": 2}, **options)
