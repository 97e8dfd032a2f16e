"""Everything that a run needs, built from its config: the place where the seams meet."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.text.pipeline import Pipeline, Position
from bert_variants.text.store import Store
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.train import checkpoint, evaluate, fixed, optim, pll, sharding, step
from bert_variants.train.processes import all_agree
from bert_variants.train.state import TrainState
from bert_variants.types import Batch, Corrupted, Leaf, Mean, Vocab


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run, ready to start.

    Attributes:
        experiment: its config.
        mesh: the devices.
        store, tokenizer, vocab: the prepared text and what made it.
        network: the model as pure functions.
        objectives: weighted.
        rows: the training rows, a pure function of the position.
        state_shardings, abstract_state: of the train state.
        init_state: makes the state of step 0 on the mesh.
        train_step: jitted ``(state, device batch) -> (state, metrics)``; the state is donated.
        probes: what the run is judged by.
        origin: reads what ``run.init_from`` names.
    """

    experiment: config.Experiment
    mesh: Mesh
    store: Store
    tokenizer: Tokenizer
    vocab: Vocab
    network: network.Network
    objectives: tuple[step.Weighted, ...]
    rows: Pipeline
    state_shardings: Any
    abstract_state: Any
    init_state: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Mean]]]
    probes: tuple[evaluate.Probe, ...]
    origin: Callable[[Path], checkpoint.Saved] = checkpoint.load

    def put_batch(self, batch: Batch) -> Batch:
        """This process's rows as a global batch on the mesh."""
        return sharding.put_batch(batch, self.mesh)

    def evaluate(
        self, params: Any, interrupted: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """All held-out results; ``held_out/loss`` is the weighted sum that the run minimises."""
        results = evaluate.evaluate(params, self.probes, interrupted)
        if results:
            results["held_out/loss"] = evaluate.weighted_loss(results, self.objectives)
        return results


def make(
    experiment: config.Experiment,
    store: Store,
    *,
    rows: int = 0,
    origin: Callable[[Path], checkpoint.Saved] = checkpoint.load,
) -> Setup:
    """Build everything that ``experiment`` names over the prepared text in ``store``.

    Args:
        experiment: of the run.
        store: its text.
        rows: of the model's table of words, where it has more than the tokenizer has tokens.
        origin: reads what ``run.init_from`` names; only runs, if nothing is said.

    Raises:
        ConfigError: parts that do not fit each other, the mesh, or the text.
    """
    config.check(experiment)
    mesh = sharding.make_mesh(experiment.mesh)
    sharding.check_batch(experiment, mesh)
    vocab = store.vocab
    net = network.build(experiment, rows or vocab.size)
    _check_length(experiment)
    _check_words(experiment, store)
    objectives = step.objectives_of(experiment)
    optimizer, schedule = optim.build(experiment.optim, experiment.run.steps)
    # an argument of the programs and not a constant in them: other seeds compile nothing anew
    root = np.asarray(jax.random.key_data(keys.root(experiment.run.seed)))
    init = _init(experiment, net, vocab, optimizer)
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(init, root)
    placed = sharding.shardings(shapes, mesh, net.rules)

    def train_step(
        state: TrainState, batch: Batch, root: Leaf
    ) -> tuple[TrainState, dict[str, Mean]]:
        made = step.make_train_step(
            net.apply,
            bind(experiment.corruption, vocab),
            objectives,
            optimizer,
            schedule,
            seed=jax.random.wrap_key_data(root),
            copies=experiment.data.copies,
            microbatches=experiment.run.microbatches,
        )
        return made(state, batch)

    initial = jax.jit(init, out_shardings=placed)
    jitted = jax.jit(train_step, donate_argnums=0, out_shardings=(placed, None))
    return Setup(
        experiment=experiment,
        mesh=mesh,
        store=store,
        tokenizer=store.tokenizer,
        vocab=vocab,
        network=net,
        objectives=objectives,
        rows=pipeline(experiment, store, "train"),
        state_shardings=placed,
        abstract_state=jax.tree.map(
            lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, placed
        ),
        init_state=on_mesh(mesh, lambda: initial(root)),
        train_step=on_mesh(mesh, lambda state, batch: jitted(state, batch, root)),
        probes=make_probes(experiment, store, net, objectives, mesh),
        origin=origin,
    )


def _init(
    experiment: config.Experiment,
    net: network.Network,
    vocab: Vocab,
    optimizer: optax.GradientTransformation,
) -> Callable[[Leaf], TrainState]:
    """The state of step 0, from the data of the root key."""
    rows = example_rows(experiment.data.length, registry.lookup("example", experiment.data.example))
    empty = functools.partial(memory, net, experiment.data.example, experiment.run.batch)

    def init(root: Leaf) -> TrainState:
        params = net.init(jax.random.wrap_key_data(root), rows)
        if experiment.run.output_bias == "unigram":
            params = with_unigram_bias(params, vocab)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.init(params),
            skipped=jnp.zeros((), jnp.int32),
            carry=empty(),
        )

    return init


def memory(net: network.Network, example: str, rows: int) -> Any:
    """The empty memory of a batch of so many rows; None for a model that has none.

    None too where the rows of ``example`` come in random order: a row then goes on from nothing,
    and a model with memory is trained and judged without it (XLNet's own ablation).
    """
    streams = registry.lookup("example", example).traits["order"] == "stream"
    return net.carry(rows) if streams else None


def pipeline(experiment: config.Experiment, store: Store, split: str) -> Pipeline:
    """The rows of a split as the run sees them; this process's share of each batch."""
    return Pipeline(
        store,
        split,
        example=experiment.data.example,
        length=experiment.data.length,
        batch=experiment.run.batch,
        seed=experiment.run.seed,
        copies=experiment.data.copies,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def make_probes(
    experiment: config.Experiment,
    store: Store,
    net: network.Network,
    objectives: tuple[step.Weighted, ...],
    mesh: Mesh,
) -> tuple[evaluate.Probe, ...]:
    """The run's own objectives on its own rows, then each fixed probe on common rows."""
    vocab, evals = store.vocab, experiment.evals

    def probe(
        name: str, corruption: fixed.Bound, example: str, judged: tuple[step.Weighted, ...]
    ) -> evaluate.Probe:
        a_step = step.make_eval_step(net.apply, corruption, judged, seed=fixed.SEED)
        # the rows of ``pll`` come several times in a row, which is nothing to go on from
        remembers = name != pll.NAME
        empty = functools.partial(memory, net, example, evals.batch) if remembers else lambda: None
        kept = sharding.batch_shardings(jax.eval_shape(empty), mesh)
        a_step = jax.jit(a_step, donate_argnums=2, out_shardings=(None, kept))
        first = empty if kept is None else jax.jit(empty, out_shardings=kept)
        rows = fixed.rows_of(experiment, store, example, jax.process_index(), jax.process_count())

        def batches() -> Iterator[Batch]:
            return (sharding.put_batch(b, mesh) for b in fixed.batches(evals, name, rows))

        return evaluate.Probe(name, on_mesh(mesh, a_step), batches, on_mesh(mesh, first))

    own = bind(experiment.corruption, vocab)
    found = [probe("held_out", own, experiment.data.example, objectives)]
    if "token_logits_BPV" in dict(config.wanted_outputs(experiment)):
        mlm = step.Weighted("mlm", 1.0, registry.lookup("objective", "mlm"))
        judged = (mlm, evaluate.unigram(vocab))
        found += [
            probe(name, corruption, evals.example, judged)
            for name, corruption in fixed.corruptions(evals, vocab).items()
        ]
    return tuple(found)


def bind(corruption: str, vocab: Vocab) -> Callable[[Leaf, Batch], Corrupted]:
    """``(keys_B, batch) -> Corrupted`` for a corruption's call-string."""
    call = registry.lookup("corruption", corruption)
    return lambda keys_B, batch: call(keys_B, batch, vocab)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` called with ``mesh`` set, so that models may say where activations lie."""

    @functools.wraps(function)
    def called(*args: Any) -> Any:
        with jax.set_mesh(mesh):
            return function(*args)

    return called


def example_rows(length: int, example: registry.Call) -> Batch:
    """One row of zeros with every array that rows of this kind have, to make parameters from."""
    ids = jnp.zeros((1, length), jnp.int32)
    truth = jnp.ones((1, length), bool)
    return Batch(
        tokens_BT=ids,
        segments_BT=ids,
        positions_BT=ids,
        valid_BT=truth,
        maskable_BT=truth,
        words_BT=ids,
        units_BT=ids,
        unit_kinds_BT=ids.astype(jnp.int8),
        example_id_B=jnp.zeros(1, jnp.uint32),
        visit_B=jnp.zeros(1, jnp.uint32),
        labels={name: jnp.zeros(1, jnp.int32) for name in example.traits["labels"]},
    )


def with_unigram_bias(params: Any, vocab: Vocab) -> Any:
    """``params`` with the log of the corpus's unigram probabilities as the bias of every head that
    predicts tokens.

    Raises:
        ConfigError: the model has no such head.
    """
    found = [name for name in ("tokens", "spans") if name in params.get("heads", ())]
    if not found:
        raise config.ConfigError(
            "run.output_bias is 'unigram', but no objective trains a token head: set 'zeros'."
        )
    bias = -evaluate.unigram_nats(vocab)
    biased = {name: {**params["heads"][name], "bias": bias} for name in found}
    return {**params, "heads": {**params["heads"], **biased}}


def first_rows(ready: Setup, epoch: int = 0) -> Corrupted:
    """This process's first batch of an epoch after its corruption, as numpy arrays."""
    experiment = ready.experiment
    batch, _ = ready.rows.batch(Position(epoch, 0))
    root = keys.root(experiment.run.seed)
    row_keys = keys.corruption_keys(root, batch, 0, experiment.data.copies)
    made = bind(experiment.corruption, ready.vocab)(row_keys, batch)
    return jax.tree.map(np.asarray, made)


def check_predicts(rows: Corrupted, experiment: config.Experiment) -> None:
    """Refuse text in which the corruption finds nothing to predict. All processes call it together.

    Args:
        rows: this process's first ones.
        experiment: of the run.

    Raises:
        ConfigError: an objective reads predicted positions, and no row of any process has one.
    """
    predicts = any(name.endswith("_BPV") for name, _ in config.wanted_outputs(experiment))
    if not all_agree(predicts and not np.any(rows.weights_BP > 0)):
        return
    count, length = rows.tokens_BT.shape
    raise config.ConfigError(
        f"corruption '{experiment.corruption}' chose no token in the first {count} rows of "
        f"{length} tokens, of which {int(np.sum(rows.maskable_BT))} may be chosen: no row holds "
        "what it looks for, or its budget is too small for it. Look with `bert-variants show`, and "
        "take longer rows, another rate, or another corruption."
    )


def _check_words(experiment: config.Experiment, store: Store) -> None:
    """Refuse whole words where every token of the text is one."""
    train = store.split("train")
    whole = _whole_words(registry.lookup("corruption", experiment.corruption))
    if whole and train.words == train.tokens:
        raise config.ConfigError(
            f"corruption '{whole[0]}' chooses whole words, but each of the {train.tokens:,} tokens "
            f"of this text is a word by itself: {experiment.data.tokenizer} cuts none, or words "
            "are not written apart. It would be the same as tokens(): take that, a smaller "
            "vocabulary, or, for Chinese, --data.units 'chinese_words()' and whole_units()."
        )


def _whole_words(call: registry.Call) -> list[registry.Call]:
    """The corruptions within this one, or itself, that choose whole words."""
    within = [found for inner in call.inner() for found in _whole_words(inner)]
    return [call, *within] if call.entry.traits["whole_words"] else within


def _check_length(experiment: config.Experiment) -> None:
    call = registry.lookup("model", experiment.model)
    positions = call.argument("positions")
    if experiment.data.length > positions:
        raise config.ConfigError(
            f"data.length is {experiment.data.length}, but {experiment.model} has {positions} "
            f"positions. Take a shorter length or --model.positions {experiment.data.length}."
        )
