"""Corruptions one after another in one run, as ERNIE 1.0's basic, phrase and entity stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from bert_variants import registry
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Leaf, Rows, Vocab

# What a field of Corrupted holds where a part of the schedule does not give it.
_NOTHING = {"left_BP": -1, "right_BP": -1, "offset_BP": 0, "moved_BT": False}
_SLOTS = ("at_BP", "targets_BP", "weights_BP", "left_BP", "right_BP", "offset_BP")
_ADDED = {f.name for f in dataclasses.fields(Corrupted)} - {
    f.name for f in dataclasses.fields(Rows)
}


def _check(call: Call) -> None:
    parts, until = call.argument("parts"), call.argument("until")
    steps = isinstance(until, (list, tuple)) and all(type(step) is int for step in until)
    if not steps or list(until) != sorted({0, *until})[1:]:
        raise RegistryError(
            f"corruption '{call}': until is {until!r}, expected ascending numbers of steps above 0."
        )
    if isinstance(parts, str) or len(until) != len(parts) - 1:
        raise RegistryError(
            f"corruption '{call}': {len(until)} numbers of steps in until, expected one fewer than "
            "there are parts: the last part has no end."
        )


@register("corruption", calls=("parts",), check=_check)
def stages(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    parts: Sequence[str] = ("tokens()", "whole_words()"),
    until: Sequence[int] = (10_000,),
) -> Corrupted:
    """The first of ``parts`` for the steps below ``until[0]``, the second below ``until[1]``, ...

    The last part has no end, and it is the one that evaluation uses. Steps are absolute numbers,
    those of ``run.steps``. ERNIE 1.0's paper has three stages and publishes no lengths (arXiv
    1904.09223, section 3.2)::

        stages(parts=("units(chance=0.0)", "units(kinds=(1,))", "units(kinds=(0,))"),
               until=(300_000, 600_000))

    Every part has the P of the largest one. It gives what all parts give; a field that only some
    give holds "none" in the steps of the others (-1; False for ``moved_BT``).

    Args:
        keys_B: typed keys, one a row; a part gets them as they are.
        batch: the rows; ``batch.step`` chooses the part.
        vocab: of the tokenizer.
        parts: call-strings of corruptions.
        until: the step at which the next part takes over, one fewer than there are parts.

    Raises:
        RegistryError: an unknown part, or steps that do not ascend or do not fit the parts.
    """
    calls = [registry.lookup("corruption", part) for part in parts]
    return by_step(calls, until, keys_B, batch, vocab)


def by_step(
    calls: Sequence[Call], until: Sequence[int], keys_B: Leaf, batch: Batch, vocab: Vocab
) -> Corrupted:
    """The corruption whose turn it is at ``batch.step``; the last one where there is no step.

    Raises:
        RegistryError: a field that not all give and that has no value for "none".
    """

    def apply(call: Call) -> Callable[[Leaf, Batch], Corrupted]:
        return lambda keys_B, batch: call(keys_B, batch, vocab)

    shapes = [jax.eval_shape(apply(call), keys_B, batch) for call in calls]
    most = max(shape.at_BP.shape[1] for shape in shapes)
    wanted = {}
    for name in sorted(_ADDED):
        found = [getattr(s, name) for s in shapes if getattr(s, name) is not None]
        if found and len(found) < len(shapes) and name not in _NOTHING:
            raise RegistryError(
                f"{name} is given by some of {', '.join(map(str, calls))} and not by the others; "
                "nothing can stand for it there."
            )
        if found:
            wanted[name] = found[0]

    def branch(call: Call) -> Callable[[], Corrupted]:
        return lambda: _fitted(apply(call)(keys_B, batch), wanted, most)

    if batch.step is None:
        return branch(calls[-1])()
    turn = jnp.sum(batch.step >= jnp.asarray(until, jnp.int32), dtype=jnp.int32)
    return jax.lax.switch(turn, [branch(call) for call in calls])


def _fitted(rows: Corrupted, wanted: dict[str, Leaf], most: int) -> Corrupted:
    """``rows`` with P slots and every wanted field."""
    missing = most - rows.at_BP.shape[1]
    changed = {}
    for name, like in wanted.items():
        value = getattr(rows, name)
        if value is None:
            shape = (like.shape[0], most) if name in _SLOTS else like.shape
            changed[name] = jnp.full(shape, _NOTHING[name], like.dtype)
        elif name in _SLOTS:
            nothing = _NOTHING[name] if name in _NOTHING else 0
            changed[name] = jnp.pad(value, ((0, 0), (0, missing)), constant_values=nothing)
    return rows.replace(**changed)
