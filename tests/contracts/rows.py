"""Tiny inputs for every battery, derived from what an entry declares: a new file is covered.

``rows`` makes text as the host would; ``corrupted`` and ``outputs`` make what an objective reads,
from its traits; ``small`` shrinks a model's call-string by the names of its parameters.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants import keys, registry
from bert_variants.train.optim import path_name
from bert_variants.types import Batch, Corrupted, Outputs, Vocab

VOCAB = Vocab(
    size=96,
    pad=0,
    unk=1,
    cls=2,
    sep=3,
    mask=4,
    specials=(0, 1, 2, 3, 4),
    counts_V=np.arange(96, dtype=np.int64),
)
SMALL = {"layers": 2, "width": 32, "heads": 4, "ffn": 48, "positions": 64}
SIZES = {"T": 32, "D": 8, "V": VOCAB.size, "N": 2, "L": 2, "C": 2}


def rows(
    seed: int = 0,
    count: int = 8,
    length: int = 16,
    *,
    full: bool = False,
    empty: tuple[int, ...] = (),
    labels: dict[str, int] | None = None,
    first_id: int = 0,
    visit: int = 0,
    vocab: Vocab = VOCAB,
) -> Batch:
    """``[CLS] A [SEP] B [SEP] [PAD] ...`` with words of one to four tokens and some units.

    Args:
        seed: of the text.
        count, length: B and T.
        full: no padding; else lengths are uniform in 4 .. T.
        empty: rows that are padding from end to end.
        labels: name -> classes.
        first_id: id of the first row.
        visit: of all rows.
        vocab: whose specials are used.
    """
    rng = np.random.default_rng(seed)
    made = [_row(rng, length, full, i in empty, vocab) for i in range(count)]
    stacked = {k: np.stack([row[k] for row in made]) for k in made[0]}
    return Batch(
        **stacked,
        positions_BT=np.broadcast_to(np.arange(length, dtype=np.int32), (count, length)).copy(),
        example_id_B=np.arange(first_id, first_id + count, dtype=np.uint32),
        visit_B=np.full(count, visit, np.uint32),
        labels={
            name: rng.integers(0, classes, count).astype(np.int32)
            for name, classes in (labels or {}).items()
        },
    )


def _row(
    rng: np.random.Generator, length: int, full: bool, empty: bool, vocab: Vocab
) -> dict[str, np.ndarray]:
    n = 0 if empty else length if full else int(rng.integers(4, length + 1))
    tokens = np.full(length, vocab.pad, np.int32)
    maskable = np.zeros(length, bool)
    words, units, segments = (np.full(length, fill, np.int32) for fill in (-1, -1, 0))
    tokens[:n] = rng.integers(len(vocab.specials), vocab.size, n)
    maskable[:n] = True
    if n:
        middle = int(rng.integers(1, n - 1))
        for at, special in ((0, vocab.cls), (middle, vocab.sep), (n - 1, vocab.sep)):
            tokens[at], maskable[at] = special, False
        segments[middle + 1 : n] = 1
    word = unit = -1
    left = 0
    for t in np.flatnonzero(maskable):
        if left == 0 or not maskable[t - 1]:
            word, left = word + 1, int(rng.integers(1, 5))
            in_unit = rng.random() < 0.4
            unit += in_unit
        words[t], left = word, left - 1
        units[t] = unit if in_unit else -1
    return {
        "tokens_BT": tokens,
        "segments_BT": segments,
        "valid_BT": np.arange(length) < n,
        "maskable_BT": maskable,
        "words_BT": words,
        "units_BT": units,
        "unit_kinds_BT": np.where(units < 0, -1, units % 3).astype(np.int8),
    }


def take(tree: Any, index: Any) -> Any:
    """Some rows of a batch, of outputs, or of a corrupted batch (scores have layers in front)."""

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        if not np.ndim(leaf):
            return leaf
        in_front = any(getattr(p, "name", None) == "scores" for p in path)
        return leaf[:, index] if in_front else leaf[index]

    return jax.tree_util.tree_map_with_path(one, tree)


def joined(*parts: Any) -> Any:
    """The rows of several batches, one after another."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


# machine code for tiny arrays need not be fast; the compiler is what costs time here
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def corrupt(call: str, batch: Batch, *, seed: int = 0, step: int = 0, copies: int = 0) -> Corrupted:
    """Apply a corruption as the train step does."""
    return _corruption(call, copies)(keys.root(seed), batch, step)


@functools.cache
def _corruption(call: str, copies: int) -> Any:
    bound = registry.lookup("corruption", call)

    def run(key: jax.Array, batch: Batch, step: jax.Array) -> Corrupted:
        return bound(keys.corruption_keys(key, batch, step, copies), batch, VOCAB)

    return quickly(run)


def labels_of(objective: registry.Entry | registry.Call) -> dict[str, int]:
    """The labels that an objective needs, with their classes: those of the heads that it reads."""
    classes = max([2, *objective.traits["reads"].values()])
    return {
        need.removeprefix("labels."): classes
        for need in objective.traits["needs"]
        if need.startswith("labels.")
    }


def corruption_for(needs: tuple[str, ...]) -> str:
    """A registered corruption that gives the fields of Corrupted that ``needs`` names."""
    wanted = {need for need in needs if "." not in need}
    for name in ("tokens", *registry.names("corruption")):
        if wanted <= set(registry.lookup("corruption", name).traits["gives"]):
            return name
    raise LookupError(f"no registered corruption gives {sorted(wanted)}")


def corrupted(
    objective: registry.Call, *, seed: int = 0, count: int = 6, empty: tuple[int, ...] = ()
) -> Corrupted:
    """Corrupted rows, at most 8, with everything that an objective needs, as numpy arrays."""
    batch = rows(seed, 8, SIZES["T"], empty=empty, labels=labels_of(objective))
    call = corruption_for(objective.traits["needs"])
    if "rate" in registry.entry("corruption", call).parameters:
        call = registry.edit(call, rate=0.3)  # so that short rows have something of everything
    made = corrupt(call, batch)
    made = take(jax.tree.map(np.asarray, made), slice(0, count))
    teacher = [n.removeprefix("teacher.") for n in objective.traits["needs"] if "teacher." in n]
    if teacher:
        slots = made.at_BP.shape[1]
        made = made.replace(teacher=outputs(dict.fromkeys(teacher, 0), count, slots, seed=99))
    return made


def outputs(reads: dict[str, int], count: int, slots: int, *, seed: int = 0) -> Outputs:
    """Random outputs of the names in ``reads``; shapes follow from the names' letters."""
    rng = np.random.default_rng(seed)
    sizes = SIZES | {"B": count, "P": slots}

    def normal(letters: str, **changed: int) -> np.ndarray:
        shape = [(sizes | changed)[letter] for letter in letters]
        return rng.standard_normal(shape).astype(np.float32)

    made: dict[str, Any] = {}
    for name, classes in sorted(reads.items()):
        if name == "layers":
            made[name] = tuple(normal("BTD") for _ in range(sizes["L"] + 1))
        elif name == "scores":
            made[name] = normal("LBNTT")
        elif name == "replaced_BT":
            made[name] = normal("BT") > 0
        else:
            made[name] = normal(name.rsplit("_", 1)[1], C=classes or sizes["C"])
    return Outputs(**made)


def small(name: str, **changed: Any) -> str:
    """The call-string of a tiny model: its sizes by the names that they have everywhere."""
    parameters = registry.entry("model", name).parameters
    sizes = {k: v for k, v in (SMALL | changed).items() if k in parameters}
    return registry.write(name, sizes)


def random_params(shapes: Any, spread: float = 0.1) -> Any:
    """Every entry random, by its path: at their start biases are 0, scales 1, and hide a lot."""

    def one(path: tuple[Any, ...], like: Any) -> jax.Array:
        name = path_name(path)
        noise = keys.host_rng(0, name).standard_normal(like.shape) * spread
        return jnp.asarray(noise + (1.0 if name.endswith("scale") else 0.0), like.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Path -> array."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def assert_equal(left: Any, right: Any) -> None:
    """Bitwise."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for path, value in leaves(left).items():
        np.testing.assert_array_equal(value, leaves(right)[path], err_msg=path)


def assert_near(left: Any, right: Any, relative: float = 1e-5) -> None:
    """Each array near the other one, as measured against its largest entry.

    An array whose entries are all below 1e-3 of the largest of the tree is measured against that:
    such are gradients that are 0 but for rounding.
    """
    assert jax.tree.structure(left) == jax.tree.structure(right)
    others = leaves(right)
    floor = 1e-3 * max(float(np.abs(x).max(initial=0)) for x in others.values())
    for path, value in leaves(left).items():
        other = others[path]
        assert np.isfinite(value).all(), path
        if value.dtype == bool:
            np.testing.assert_array_equal(value, other, err_msg=path)
            continue
        size = max(float(np.abs(other).max(initial=0)), floor, 1e-30)
        worst = float(np.abs(value - other).max(initial=0)) / size
        assert worst <= relative, f"{path}: {worst:.2e} of the largest entry, at most {relative}"


def fields(value: Any) -> dict[str, Any]:
    """The fields of a pytree that are present."""
    named = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {k: v for k, v in named.items() if jax.tree.leaves(v)}


def on_device(tree: Any) -> Any:
    """As jax arrays on the default device."""
    return jax.tree.map(jnp.asarray, tree)
