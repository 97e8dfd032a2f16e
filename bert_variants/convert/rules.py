"""Names and layouts of two sides as one table, read in both directions.

A table says for every parameter of ours where it stands on the other side, and what is done to it
on the way. Names of ours are paths such as ``encoder/layers/ffn/wide/kernel``; theirs are names of
tensors in a file. Parameters of ours whose rule has ``{layer}`` in their name are stacks: axis 0
counts the layers, and layer i stands under the name with i in it::

    Rule("encoder/layers/ffn/wide/kernel",                      ours     [L, D, F]
         "encoder.layer.{layer}.intermediate.dense.weight",     theirs   L times [F, D]
         TRANSPOSED)

``matching`` applies a table to what is there, in both directions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bert_variants.convert.tensors import Tensors

Shape = tuple[int, ...]
LAYER = "{layer}"


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to one layer's array, or to the arrays of several parameters, on the way.

    Attributes:
        name: for messages.
        shape: their shape from ours (one argument for each parameter of ours).
        out: their array from ours (likewise).
        back: ours from theirs: an array, or a tuple where a rule has several parameters of ours.
    """

    name: str
    shape: Callable[..., Shape]
    out: Callable[..., np.ndarray]
    back: Callable[[np.ndarray], Any]


SAME = Change("as it is", lambda s: s, lambda x: x, lambda x: x)
TRANSPOSED = Change("transposed", lambda s: s[::-1], np.transpose, np.transpose)


def reshaped(ours: Shape, theirs: Shape) -> Change:
    """The same numbers in another shape, row by row: (D, N * H) as (D, N, H)."""
    return Change(
        f"as {list(theirs)}",
        lambda s: theirs if s == ours else s,
        lambda x: x.reshape(theirs),
        lambda x: x.reshape(ours),
    )


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where a parameter of ours stands on the other side.

    Attributes:
        ours: its path; or several paths, where one tensor of theirs holds several of ours.
        theirs: the tensor's name; with ``{layer}``, one for each layer of a stack.
        change: from one to the other.
        also: other names that the same numbers may have in a file: an older spelling, or the copy
            that a tied head keeps. Read where the first is not there, and compared where it is;
            never written.
        spare: why their tensor may be left where our model has no such parameter ("nothing reads
            the pooled vector"). Empty: then it is an error.
        copies: further names under which theirs keeps the same numbers: a parameter that all layers
            of ours share, of which each of theirs has one. Read and compared as ``also``, and
            written.
        unread: further names under which theirs keeps numbers that it never reads. Read where no
            other is there, never compared, and written.
        blank: the shape of the zeros that are written where our model has no such parameter, but
            the class that reads them has; then ``spare`` says why they do not matter.
    """

    ours: str | tuple[str, ...]
    theirs: str
    change: Change = SAME
    also: tuple[str, ...] = ()
    spare: str = ""
    copies: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    blank: Shape | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    @property
    def stacked(self) -> bool:
        return LAYER in self.theirs

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs, *self.also, *self.copies, *self.unread)

    def numbers(self, shapes: Mapping[str, Shape]) -> tuple[int | None, ...]:
        """The layers of the stack; (None,) where it is none."""
        return tuple(range(shapes[self.paths[0]][0])) if self.stacked else (None,)

    def their_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """The shape of each tensor of theirs."""
        return self.change.shape(
            *(shapes[p][1:] if self.stacked else shapes[p] for p in self.paths)
        )


@dataclasses.dataclass(frozen=True)
class Constant:
    """A tensor of theirs that ours has no parameter for, and that does nothing at one value.

    It is written as that, and read only if it is that: a table of one segment, of zeros, where ours
    has no table; a layer between two equal widths, the identity, where ours has no layer.

    Attributes:
        theirs: its name.
        shape: its shape.
        otherwise: what to do where it is something else.
        identity: whether it is the identity matrix; else it is zero.
        harmless: why it may be something else all the same: then it is left. Empty: it may not.
    """

    theirs: str
    shape: Shape
    otherwise: str
    identity: bool = False
    harmless: str = ""

    def value(self) -> np.ndarray:
        """float32."""
        made = np.eye(*self.shape) if self.identity else np.zeros(self.shape)
        return made.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Table:
    """All rules of a model.

    Attributes:
        rules: each parameter of ours is in exactly one; a rule may be of a part that this model
            has not.
        ignored: (regular expression, reason) on names of theirs that are knowingly not read.
        constants: see there.
        prefix: what the names of the network without heads begin with; a file of the network alone
            may leave it out ("bert." of ``bert.embeddings...``).
    """

    rules: tuple[Rule, ...]
    ignored: tuple[tuple[str, str], ...] = ()
    constants: tuple[Constant, ...] = ()
    prefix: str = ""

    def without_prefix(self) -> Table:
        """The same for a file whose names leave the prefix out."""

        def short(name: str) -> str:
            return name.removeprefix(self.prefix)

        rules = tuple(
            dataclasses.replace(
                r,
                theirs=short(r.theirs),
                also=tuple(short(a) for a in r.also),
                copies=tuple(short(c) for c in r.copies),
                unread=tuple(short(u) for u in r.unread),
            )
            for r in self.rules
        )
        constants = tuple(dataclasses.replace(c, theirs=short(c.theirs)) for c in self.constants)
        return dataclasses.replace(self, rules=rules, constants=constants, prefix="")

    def fitting(self, found: Tensors) -> Table:
        """Itself, or ``without_prefix`` where no name in ``found`` begins with the prefix."""
        named = not self.prefix or any(name.startswith(self.prefix) for name in found)
        return self if named else self.without_prefix()

    def named(self, found: Tensors, path: str) -> bool:
        """Whether any tensor of a parameter of ours is there (of a stack: of its first layer)."""
        table = self.fitting(found)
        rules = [rule for rule in table.rules if path in rule.paths]
        return any(name.replace(LAYER, "0") in found for rule in rules for name in rule.names)
