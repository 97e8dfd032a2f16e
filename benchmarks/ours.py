"""Our training step out of the real parts, over random rows; as a worker, one step a turn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from benchmarks import turns
from bert_variants import runtime

VOCAB = 30_522
PAD, UNK, CLS, SEP, MASK = 0, 100, 101, 102, 103


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is run.

    Attributes:
        size: of configs/bert.py, which every run has its optimizer and schedule of.
        batch, length: rows and tokens a row.
        precision, scan: see ``config.Run``.
        objectives, corruption: call-strings.
        model, example: call-strings; empty: BERT's of that size. The example tells which labels
            rows have and whether they come as streams, so whether a memory goes along.
        malloc: whether the allocator is tuned, as the command line does.
    """

    size: str = "mini"
    batch: int = 32
    length: int = 128
    precision: str = "auto"
    scan: str = "auto"
    objectives: str = "mlm"
    corruption: str = "tokens(rate=0.15)"
    model: str = ""
    example: str = ""
    malloc: bool = True


@dataclasses.dataclass(frozen=True)
class Parts:
    """What ``train.setup.make`` builds, without a corpus.

    Attributes:
        mesh: the devices.
        init: makes the state.
        train_step: jitted, donating the state.
        batch: on the mesh.
        shapes: of the state.
    """

    mesh: Any
    init: Callable[[], Any]
    train_step: Any
    batch: Any
    shapes: Any


def rows(batch: int, length: int, seed: int = 0) -> dict[str, Any]:
    """Full rows of random tokens as numpy arrays: [CLS] half [SEP] half [SEP]."""
    import numpy as np

    rng = np.random.default_rng(seed)
    tokens = rng.integers(1000, VOCAB, (batch, length)).astype(np.int32)
    middle = length // 2
    tokens[:, 0], tokens[:, middle], tokens[:, -1] = CLS, SEP, SEP
    maskable = np.ones((batch, length), bool)
    maskable[:, [0, middle, -1]] = False
    positions = np.tile(np.arange(length, dtype=np.int32), (batch, 1))
    return {
        "tokens": tokens,
        "segments": (positions > middle).astype(np.int32),
        "positions": positions,
        "maskable": maskable,
        "next_sentence": rng.integers(0, 2, batch).astype(np.int32),
    }


def make_batch(batch: int, length: int, labels: tuple[str, ...] = ("next_sentence",)) -> Any:
    """``rows`` as a Batch, with the labels of those names.

    Raises:
        KeyError: a label that no arm has had so far: say here what it is filled with.
    """
    import numpy as np

    from bert_variants.types import Batch

    made = rows(batch, length)
    known = {
        "next_sentence": made["next_sentence"],
        "is_next": made["next_sentence"],
        "continues": np.ones(batch, np.int32),  # so the memory fills and stays full
        "backward": (np.arange(batch) >= batch // 2).astype(np.int32),
    }
    return Batch(
        tokens_BT=made["tokens"],
        segments_BT=made["segments"],
        positions_BT=made["positions"],
        valid_BT=np.ones((batch, length), bool),
        maskable_BT=made["maskable"],
        words_BT=np.where(made["maskable"], made["positions"] // 2, -1).astype(np.int32),
        units_BT=np.full((batch, length), -1, np.int32),
        example_id_B=np.arange(batch, dtype=np.uint32),
        visit_B=np.zeros(batch, np.uint32),
        labels={name: known[name] for name in labels},
    )


def vocab() -> Any:
    """BERT's vocabulary, as the device side knows it; some corruptions draw by the counts."""
    import numpy as np

    from bert_variants.types import Vocab

    specials = (PAD, UNK, CLS, SEP, MASK)
    counts = np.ones(VOCAB, np.int64)
    return Vocab(VOCAB, PAD, UNK, CLS, SEP, MASK, specials=specials, counts_V=counts)


def experiment(spec: Spec) -> Any:
    """configs/bert.py at the spec's size with what the spec changes, and dynamic masks.

    Raises:
        ConfigError: parts that do not fit each other.
    """
    from bert_variants import config
    from bert_variants.configs import bert

    found = bert.get_config(spec.size)
    chosen = dataclasses.replace(
        found,
        objectives=spec.objectives,
        model=spec.model or found.model,
        corruption=spec.corruption,
        data=dataclasses.replace(
            found.data,
            length=spec.length,
            copies=0,
            example=spec.example or found.data.example,
        ),
        run=dataclasses.replace(
            found.run, batch=spec.batch, precision=spec.precision, scan=spec.scan
        ),
    )
    config.check(chosen)
    return chosen


def build(spec: Spec) -> Parts:
    """The step as ``train.setup.make`` puts it together."""
    import jax
    import jax.numpy as jnp

    from bert_variants import keys, registry
    from bert_variants.models import network
    from bert_variants.train import optim, setup, sharding, step
    from bert_variants.train.state import TrainState

    chosen = experiment(spec)
    net = network.build(chosen, VOCAB)
    optimizer, schedule = optim.build(chosen.optim, chosen.run.steps)
    mesh = sharding.make_mesh(chosen.mesh)
    example = registry.lookup("example", chosen.data.example)
    row = setup.example_rows(spec.length, example)

    def init() -> TrainState:
        params = net.init(keys.root(0), row)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            step=zero,
            params=params,
            opt_state=optimizer.init(params),
            skipped=zero,
            carry=setup.memory(net, chosen.data.example, spec.batch),
        )

    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(init)
    placed = sharding.shardings(shapes, mesh, net.rules)
    function = step.make_train_step(
        net.apply,
        setup.bind(spec.corruption, vocab()),
        step.objectives_of(chosen),
        optimizer,
        schedule,
        seed=0,
    )
    batch = make_batch(spec.batch, spec.length, example.traits["labels"])
    return Parts(
        mesh=mesh,
        init=setup.on_mesh(mesh, jax.jit(init, out_shardings=placed)),
        train_step=jax.jit(function, donate_argnums=0, out_shardings=(placed, None)),
        batch=sharding.put_batch(batch, mesh),
        shapes=shapes,
    )


def prepare(spec: Spec) -> tuple[Callable[[], Any], Parts, dict[str, Any]]:
    """A function that runs one step to its end, what it is made of, and facts about it."""
    import jax

    begun = time.perf_counter()
    parts = build(spec)
    with jax.set_mesh(parts.mesh):
        held = [parts.init()]  # the step donates it
        traced = time.perf_counter()
        lowered = parts.train_step.lower(held[0], parts.batch)
        lowered_at = time.perf_counter()
        compiled = lowered.compile()
    facts: dict[str, Any] = {
        "build_s": traced - begun,
        "trace_s": lowered_at - traced,
        "compile_s": time.perf_counter() - lowered_at,
    }
    memory = compiled.memory_analysis()
    if memory is not None:
        facts["temporaries_mb"] = round(memory.temp_size_in_bytes / 2**20)

    def step() -> None:
        held[0], metrics = compiled(held[0], parts.batch)
        jax.block_until_ready((held[0], metrics))

    return step, parts, facts


def worker(given: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """For ``turns.serve``."""
    spec = Spec(**given)
    if spec.malloc:
        runtime.tune()
    step, _, facts = prepare(spec)
    return step, facts


if __name__ == "__main__":
    turns.serve(worker)
