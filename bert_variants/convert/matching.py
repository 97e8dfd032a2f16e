"""A table of names applied: to what a file holds, and to our parameters on their way out.

``match`` compares a table with what is there and lists everything that does not fit;
``Plan.arrays`` then reads tensor by tensor; ``export`` is the way back.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.rules import LAYER, Constant, Rule, Shape, Table
from bert_variants.convert.tensors import DTYPES, Stored, Tensors, in_memory

FLOATS = ("float32", "bfloat16", "float16")  # what weights are stored as


@dataclasses.dataclass(frozen=True)
class Take:
    """A rule in use: for each layer (or once) the tensor that is read, and copies of it."""

    rule: Rule
    sources: tuple[Stored, ...]
    copies: tuple[tuple[Stored, ...], ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is read from where.

    Attributes:
        takes: the rules in use.
        shapes: of our parameters.
        left: tensor of theirs -> why it is not read.
    """

    takes: tuple[Take, ...]
    shapes: Mapping[str, Shape]
    left: Mapping[str, str]

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Our parameters one after the other, float32, each read when it is asked for.

        The largest come first: whoever keeps all of them and needs each twice for a moment, to copy
        it to a device, has the least of them by then.

        Raises:
            ConvertError: a copy that is not equal to its original; whatever a file says when it is
                read.
        """
        for take in sorted(self.takes, key=self._size, reverse=True):
            yield from self._read(take)

    def _size(self, take: Take) -> int:
        return sum(math.prod(self.shapes[path]) for path in take.rule.paths)

    def _read(self, take: Take) -> Iterator[tuple[str, np.ndarray]]:
        rule = take.rule
        if not rule.stacked and len(rule.paths) == 1:
            yield rule.paths[0], self._one(take, 0)[0]
            return
        made = {path: aligned(self.shapes[path]) for path in rule.paths}
        for number in range(len(take.sources)):
            for path, array in zip(rule.paths, self._one(take, number), strict=True):
                made[path][number if rule.stacked else ...] = array
        yield from made.items()

    def _one(self, take: Take, number: int) -> tuple[np.ndarray, ...]:
        """Ours of one tensor of theirs."""
        array = take.sources[number].load()
        for copy in take.copies[number]:
            if not np.array_equal(array, copy.load(), equal_nan=True):
                raise ConvertError(
                    f"{copy.name} in {copy.where} should be a copy of {take.sources[number].name}, "
                    "but holds other numbers. A head with a table of its own is read where "
                    "config.json says so (tie_word_embeddings: false)."
                )
        back = take.rule.change.back(array)
        several = back if isinstance(back, tuple) else (back,)
        return tuple(np.ascontiguousarray(x, np.float32) for x in several)


def aligned(shape: Shape) -> np.ndarray:
    """An empty float32 array that jax can take on a CPU without copying it: it begins at a multiple
    of 64 bytes."""
    room = np.empty(math.prod(shape) + 16, np.float32)
    first = -room.ctypes.data % 64 // 4
    return room[first : first + math.prod(shape)].reshape(shape)


def match(table: Table, shapes: Mapping[str, Shape], found: Tensors, where: str) -> Plan:
    """Compare what is there with what our model needs.

    Args:
        table: of the family, for this model.
        shapes: our path -> shape.
        found: their tensors.
        where: for the message.

    Raises:
        ConvertError: lists all that is missing, unexpected, of another shape or type, and all
            parameters of ours that have no rule or several.
    """
    table = table.fitting(found)
    problems = uncovered(table, shapes)
    used: set[str] = set()
    left: dict[str, str] = {}
    takes = []
    for rule in table.rules:
        inside = [path for path in rule.paths if path in shapes]
        if not inside:
            left |= {n: rule.spare for n in _all_layers(rule, found) if rule.spare}
        elif len(inside) == len(rule.paths):
            takes.append(_take(rule, shapes, found, used, problems))
    for constant in table.constants:
        if constant.theirs not in found:
            continue
        if constant.harmless:
            left[constant.theirs] = constant.harmless
        else:
            used.add(constant.theirs)
            problems += _another(constant, found[constant.theirs])
    for name in sorted(set(found) - used - set(left)):
        reasons = [why for pattern, why in table.ignored if re.search(pattern, name)]
        if reasons:
            left[name] = reasons[0]
        else:
            stored = found[name]
            problems.append(
                f"{name} {list(stored.shape)} is unexpected: this model has no parameter for it."
            )
    check(f"{where} does not fit the model that its config.json describes", problems)
    return Plan(tuple(takes), shapes, left)


def uncovered(table: Table, shapes: Mapping[str, Shape]) -> list[str]:
    """Parameters of ours that have no rule or several, and rules of which only a part is there."""
    problems = []
    for path in shapes:
        count = sum(rule.paths.count(path) for rule in table.rules)
        if count != 1:
            problems.append(f"{path} of ours has {count} rules in this form, expected one.")
    for rule in table.rules:
        lacks = [path for path in rule.paths if path not in shapes]
        if 0 < len(lacks) < len(rule.paths):
            problems.append(f"{rule.theirs} holds {', '.join(lacks)} too, which ours has not.")
    return problems


def _all_layers(rule: Rule, found: Tensors) -> list[str]:
    """The tensors that a rule names, whatever the number of layers."""
    if not rule.stacked:
        return [name for name in rule.names if name in found]
    patterns = [re.escape(n).replace(re.escape(LAYER), r"\d+") for n in rule.names]
    return [name for name in found if any(re.fullmatch(p, name) for p in patterns)]


def _take(
    rule: Rule,
    shapes: Mapping[str, Shape],
    found: Tensors,
    used: set[str],
    problems: list[str],
) -> Take:
    expected = rule.their_shape(shapes)
    sources, copies = [], []
    for number in rule.numbers(shapes):
        names = [name.replace(LAYER, str(number)) for name in rule.names]
        there = [found[name] for name in names if name in found]
        if not there:
            problems.append(f"{names[0]} {list(expected)} is missing.")
        for stored in there:
            used.add(stored.name)
            if stored.shape != expected:
                problems.append(
                    f"{stored.name} has shape {list(stored.shape)}, expected {list(expected)}."
                )
            if stored.dtype not in FLOATS:
                problems.append(
                    f"{stored.name} is of type {stored.dtype}, expected one of {', '.join(FLOATS)}."
                )
        sources += there[:1]
        unread = {name.replace(LAYER, str(number)) for name in rule.unread}
        copies.append(tuple(stored for stored in there[1:] if stored.name not in unread))
    return Take(rule, tuple(sources), tuple(copies))


def _another(constant: Constant, stored: Stored) -> list[str]:
    """What is wrong with a tensor that must have a certain value."""
    if stored.shape != constant.shape:
        return [f"{stored.name} has shape {list(stored.shape)}, expected {list(constant.shape)}."]
    if np.array_equal(stored.load().astype(np.float32), constant.value()):
        return []
    what = "the identity" if constant.identity else "zero"
    return [f"{stored.name} is not {what}, and ours has no parameter for it. {constant.otherwise}"]


def export(table: Table, params: Mapping[str, Any], dtype: str = "float32") -> dict[str, Stored]:
    """Our parameters as tensors of theirs, each made when it is loaded.

    Args:
        table: of the family, for this model.
        params: our path -> array. Rules of which nothing is here are passed over.
        dtype: float32, bfloat16 or float16.

    Raises:
        ConvertError: parameters without a rule; a type that is none of these. When a tensor is
            loaded: numbers too large for the type.
    """
    if dtype not in FLOATS:
        raise ConvertError(f"dtype is {dtype!r}, expected one of {', '.join(FLOATS)}.")
    shapes = {path: tuple(array.shape) for path, array in params.items()}
    check("these parameters have no place in this form", uncovered(table, shapes))
    made = {}
    for rule in table.rules:
        if rule.paths[0] not in params:
            if rule.blank is not None:
                zeros = np.zeros(rule.blank, np.float32)
                made[rule.theirs] = in_memory(rule.theirs, zeros).cast(dtype)
            continue
        for number in rule.numbers(shapes):
            for theirs in (rule.theirs, *rule.copies, *rule.unread):
                name = theirs.replace(LAYER, str(number))
                made[name] = _outgoing(rule, params, shapes, number, name, dtype)
    for constant in table.constants:
        made[constant.theirs] = in_memory(constant.theirs, constant.value()).cast(dtype)
    return made


def _outgoing(
    rule: Rule,
    params: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    number: int | None,
    name: str,
    dtype: str,
) -> Stored:
    def load() -> np.ndarray:
        arrays = [params[path] for path in rule.paths]
        ours = [np.asarray(x if number is None else x[number]) for x in arrays]
        return np.ascontiguousarray(rule.change.out(*ours))

    source = " and ".join(rule.paths)
    whole = Stored(name, rule.their_shape(shapes), "float32", "our parameters", load)
    if dtype == "float32":
        return whole

    def narrow() -> np.ndarray:
        wide = whole.load()
        with np.errstate(over="ignore"):
            cast = wide.astype(DTYPES[dtype])
        if np.isfinite(wide).all() and not np.isfinite(cast.astype(np.float32)).all():
            raise ConvertError(
                f"{source} holds numbers up to {np.abs(wide).max():g}, which {dtype} cannot hold. "
                "Take bfloat16 or float32."
            )
        return cast

    return Stored(name, whole.shape, dtype, "our parameters", narrow)
