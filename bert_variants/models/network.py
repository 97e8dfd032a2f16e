"""A model as two pure functions: the only face of linen that the rest of the project sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from bert_variants import config, keys, registry
from bert_variants.ops import precision as precisions
from bert_variants.types import Batch, Corrupted, Leaf, Outputs


@dataclasses.dataclass(frozen=True)
class Network:
    """``init(key, batch) -> params`` and ``apply(params, batch, ...) -> Outputs``.

    Attributes:
        module: the linen module, for ``module.apply({"params": params}, batch)``.
        rules: (regular expression on a parameter's path, PartitionSpec); each parameter is
            matched by exactly one.
        recurrent: whether the model has a memory that goes from batch to batch; see ``carry``.
    """

    module: Any
    rules: Sequence[tuple[str, Any]]
    recurrent: bool = False

    def init(self, key: jax.Array, batch: Batch | Corrupted) -> Any:
        """Parameters, a nested dict of float32 arrays."""
        streams = {"params": keys.derive(key, "params"), "sample": keys.derive(key, "sample")}
        return self.module.init(streams, batch, train=False)["params"]

    def apply(
        self, params: Any, batch: Batch | Corrupted, *, train: bool = False, key: Leaf = None
    ) -> Outputs:
        """Outputs for a batch. With ``train`` a key is needed, for dropout and sampling."""
        streams = {}
        if key is not None:
            streams = {name: keys.derive(key, name) for name in ("dropout", "sample")}
        return self.module.apply({"params": params}, batch, train=train, rngs=streams)

    def carry(self, rows: int) -> Any:
        """The empty memory of so many rows: arrays of zeros with leading B; None for a model that
        has none.

        It is ``batch.carry`` of the first batch, and ``Outputs.carry`` is that of the next. A row
        whose label ``continues`` is 0 finds its memory empty whatever is handed in; with
        ``batch.carry`` None nothing is remembered.
        """
        return self.module.carry(rows) if self.recurrent else None


def build(
    experiment: config.Experiment,
    vocab_size: int,
    *,
    wanted: Sequence[tuple[str, int]] = (),
    backend: str | None = None,
) -> Network:
    """The network of an experiment.

    Args:
        experiment: its model, objectives and run.
        vocab_size: V.
        wanted: outputs beyond those that the objectives ask for, such as ``("layers", 0)``.
        backend: cpu, gpu or tpu, for what the config leaves to ``auto``; None: the default one.
    """
    call = registry.lookup("model", experiment.model)
    module = call(
        vocab_size=vocab_size,
        wanted=tuple(sorted({*config.wanted_outputs(experiment), *wanted})),
        precision=precisions.resolve(experiment.run.precision, backend),
        unroll=turns(experiment, backend),
        remat=experiment.run.remat,
    )
    return Network(module, call.traits["rules"], call.traits["recurrent"])


def turns(experiment: config.Experiment, backend: str | None = None) -> int:
    """How many layers one turn of the layer loop compiles: 1, or all of them."""
    layers = registry.lookup("model", experiment.model).argument("layers")
    if experiment.run.scan == "auto":
        shallow_cpu = (backend or jax.default_backend()) == "cpu" and layers <= 12
        return layers if shallow_cpu else 1
    return 1 if experiment.run.scan == "on" else layers
