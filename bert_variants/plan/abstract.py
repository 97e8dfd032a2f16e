"""An experiment as shapes: everything that a step works on, without an array."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.train import optim, setup, step
from bert_variants.train.state import TrainState
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@dataclasses.dataclass(frozen=True)
class Abstract:
    """Shapes and functions of an experiment; arrays are ``jax.ShapeDtypeStruct``.

    Attributes:
        experiment: as given.
        vocab_size: V.
        backend: that ``auto`` was decided for; None: this machine's.
        net: the network.
        objectives: weighted.
        batch: the global batch.
        rows: the same after corruption, with the memory that a recurrent model is given.
        state: parameters, optimizer state, and that memory.
    """

    experiment: config.Experiment
    vocab_size: int
    backend: str | None
    net: network.Network
    objectives: tuple[step.Weighted, ...]
    batch: Batch
    rows: Corrupted
    state: TrainState

    @property
    def predictions(self) -> int:
        """P."""
        return self.rows.at_BP.shape[1]

    def apply(self, params: Any, rows: Corrupted) -> Any:
        """The forward pass as in training, with some key."""
        return self.net.apply(params, rows, train=True, key=keys.root(0))

    def loss(self, params: Any, rows: Corrupted) -> Leaf:
        """A scalar with the same gradient computation as the training loss."""
        outputs = self.apply(params, rows)
        return sum(o.weight * o.objective(outputs, rows).loss.total for o in self.objectives)

    def step(self, state: TrainState, batch: Batch) -> Any:
        """The training step itself."""
        run = self.experiment.run
        optimizer, schedule = optim.build(self.experiment.optim, run.steps)
        make = step.make_train_step(
            self.net.apply,
            _bound(self.experiment, self.vocab_size),
            self.objectives,
            optimizer,
            schedule,
            seed=run.seed,
            copies=self.experiment.data.copies,
            microbatches=run.microbatches,
        )
        return make(state, batch)

    def with_run(self, **changes: Any) -> Abstract:
        """The same with fields of ``run`` changed."""
        run = dataclasses.replace(self.experiment.run, **changes)
        return of(
            dataclasses.replace(self.experiment, run=run), self.vocab_size, backend=self.backend
        )


def of(
    experiment: config.Experiment, vocab_size: int = 0, *, backend: str | None = None
) -> Abstract:
    """The shapes of an experiment.

    Args:
        experiment: any; its text need not exist.
        vocab_size: V; 0: what the tokenizer's call-string says.
        backend: cpu, gpu or tpu, for what the config leaves to ``auto``; None: this machine's.

    Raises:
        ConfigError: parts that do not fit each other, or a vocabulary of unknown size.
    """
    config.check(experiment)
    vocab_size = vocab_size or vocabulary(experiment)
    net = network.build(experiment, vocab_size, backend=backend)
    objectives = step.objectives_of(experiment)
    example = registry.lookup("example", experiment.data.example)
    row = setup.example_rows(experiment.data.length, example)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((experiment.run.batch, *leaf.shape[1:]), leaf.dtype), row
    )

    def corrupt(batch: Batch) -> Corrupted:
        row_keys = keys.corruption_keys(keys.root(0), batch, 0, experiment.data.copies)
        return _bound(experiment, vocab_size)(row_keys, batch)

    def state() -> TrainState:
        params = net.init(keys.root(0), row)
        optimizer, _ = optim.build(experiment.optim, experiment.run.steps)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            step=zero,
            params=params,
            opt_state=optimizer.init(params),
            skipped=zero,
            carry=setup.memory(net, experiment.data.example, experiment.run.batch),
        )

    made = jax.eval_shape(state)

    return Abstract(
        experiment=experiment,
        vocab_size=vocab_size,
        backend=backend,
        net=net,
        objectives=objectives,
        batch=batch,
        rows=jax.eval_shape(corrupt, batch).replace(carry=made.carry),
        state=made,
    )


def vocabulary(experiment: config.Experiment) -> int:
    """V as the tokenizer's call-string says it.

    Raises:
        ConfigError: it does not say; a loaded vocabulary is as large as its file.
    """
    call = registry.lookup("tokenizer", experiment.data.tokenizer)
    size = call.argument("size") if "size" in call.entry.parameters else None
    loaded = not call().needs_text and "size" not in call.kwargs
    if not isinstance(size, int) or size <= 0 or loaded:
        raise config.ConfigError(
            f"data.tokenizer is {experiment.data.tokenizer!r}, which does not say how large its "
            "vocabulary is. Give --vocab, such as --vocab 30522."
        )
    return size


def _bound(experiment: config.Experiment, vocab_size: int) -> Any:
    vocab = Vocab(
        vocab_size,
        pad=0,
        unk=1,
        cls=2,
        sep=3,
        mask=4,
        specials=(0, 1, 2, 3, 4),
        counts_V=np.ones(vocab_size, np.int64),  # some corruptions draw by them; any will do
    )
    return setup.bind(experiment.corruption, vocab)
