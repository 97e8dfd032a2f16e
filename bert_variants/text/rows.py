"""From a plan to arrays: the one place where rows become tokens, whatever built them.

No loop over rows: the pieces of all rows are laid out by repetition and running sums.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bert_variants.text.plan import Plan, Window
from bert_variants.types import Batch, Vocab

UNIT_START, UNIT_KIND = 0x80, 0x7F  # the bits of Window.units


class RowError(ValueError):
    """A planned row that does not fit, or that points outside its text."""


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """The pieces of the wanted rows, each row filled up to T by a piece of padding."""

    start: np.ndarray
    size: np.ndarray
    segment: np.ndarray
    pack: np.ndarray | None
    backward: np.ndarray | None
    valid: np.ndarray


def assemble(
    plan: Plan,
    rows: np.ndarray,
    window: Window,
    vocab: Vocab,
    length: int,
    *,
    first_id: int = 0,
    visit: int = 0,
) -> Batch:
    """The rows ``rows`` of ``plan`` as a Batch of numpy arrays; see ``types.Rows`` for the layout.

    Words and units are counted within the row from 0. One that goes on from a piece into the next,
    or whose beginning was cut off, counts as a new one there. Positions go on over the padding.

    Args:
        plan: rows of ``window``.
        rows: int64 [B], which rows, in which order.
        window: the text.
        vocab: special ids.
        length: T.
        first_id: added to the row numbers to make ``example_id_B`` (modulo 2**32).
        visit: ``visit_B``.

    Raises:
        RowError: a row longer than ``length``, or a piece outside the window.
    """
    pieces = _pieces(plan, rows, window, vocab, length)
    shape = (len(rows), length)
    cells = len(rows) * length
    begin = np.cumsum(pieces.size) - pieces.size  # where a piece begins among all cells
    text = (pieces.start >= 0) & (pieces.size > 0)
    special = np.where(text, 0, -1 - pieces.start).astype(np.int32)
    source = np.repeat(pieces.start - begin, pieces.size)
    source += np.arange(cells)
    back = None
    if pieces.backward is not None:
        back = np.repeat(pieces.backward, pieces.size)
        mirror = np.repeat(2 * pieces.start + pieces.size - 1, pieces.size)
        source = np.where(back, mirror - source, source)
    is_text = np.repeat(text, pieces.size)
    tokens = np.take(window.tokens, source, mode="clip").astype(np.int32)
    np.copyto(tokens, np.repeat(special, pieces.size), where=~is_text)
    # read backwards, a word begins where it ends: in front of what begins a word
    begins = source if back is None else source + back
    starts = np.take(window.word_starts, begins, mode="clip") & is_text
    starts[begin[text]] = True
    units, kinds = np.full(shape, -1, np.int32), None
    if window.units is not None:
        code = np.take(window.units, source, mode="clip")
        if back is not None:
            code = _from_the_end(code, np.take(window.units, begins, mode="clip"), back)
        units, kinds = _units(code, is_text, begin[text], shape)
    packs = None if pieces.pack is None else np.repeat(pieces.pack, pieces.size).reshape(shape)
    return Batch(
        tokens_BT=tokens.reshape(shape),
        segments_BT=np.repeat(pieces.segment, pieces.size).reshape(shape),
        positions_BT=_positions(packs, shape),
        valid_BT=np.repeat(pieces.valid, pieces.size).reshape(shape),
        maskable_BT=is_text.reshape(shape),
        words_BT=_numbered(starts, is_text, shape),
        units_BT=units,
        unit_kinds_BT=kinds,
        example_id_B=((rows + first_id) & 0xFFFFFFFF).astype(np.uint32),
        visit_B=np.full(len(rows), visit, np.uint32),
        packs_BT=packs,
        labels={k: v[rows].astype(np.int32) for k, v in plan.labels.items()},
    )


def padding(like: Batch, count: int, vocab: Vocab) -> Batch:
    """``count`` rows with nothing valid in them, shaped as the rows of ``like``."""
    shape = (count, like.tokens_BT.shape[1])
    zeros = np.zeros(shape, np.int32)
    return Batch(
        tokens_BT=np.full(shape, vocab.pad, np.int32),
        segments_BT=zeros,
        positions_BT=_positions(None, shape),
        valid_BT=np.zeros(shape, bool),
        maskable_BT=np.zeros(shape, bool),
        words_BT=np.full(shape, -1, np.int32),
        units_BT=np.full(shape, -1, np.int32),
        unit_kinds_BT=None if like.unit_kinds_BT is None else np.full(shape, -1, np.int8),
        example_id_B=np.zeros(count, np.uint32),
        visit_B=np.zeros(count, np.uint32),
        packs_BT=None if like.packs_BT is None else zeros,
        labels={k: np.zeros((count, *v.shape[1:]), v.dtype) for k, v in like.labels.items()},
    )


def joined(batches: list[Batch]) -> Batch:
    """The rows of several batches, one after another."""
    if len(batches) == 1:
        return batches[0]
    fields = {}
    for field in dataclasses.fields(Batch):
        values = [getattr(b, field.name) for b in batches]
        if isinstance(values[0], np.ndarray):
            fields[field.name] = np.concatenate(values)
    labels = {k: np.concatenate([b.labels[k] for b in batches]) for k in batches[0].labels}
    return Batch(**fields, labels=labels)


def _pieces(plan: Plan, rows: np.ndarray, window: Window, vocab: Vocab, length: int) -> _Pieces:
    first = plan.rows[rows]
    counts = plan.rows[rows + 1] - first + 1  # and one of padding
    ends = np.cumsum(counts)
    which = np.repeat(first - (ends - counts), counts) + np.arange(ends[-1])
    pads = ends - 1
    start = np.take(plan.start, which, mode="clip")
    size = np.take(plan.length, which, mode="clip").astype(np.int64)
    segment = np.take(plan.segment, which, mode="clip")
    start[pads], size[pads], segment[pads] = -1 - vocab.pad, 0, 0
    free = length - np.add.reduceat(size, ends - counts)
    if free.min() < 0:
        bad = int(free.argmin())
        raise RowError(
            f"row {rows[bad]} of the plan has {length - free[bad]} tokens, the rows of this batch "
            f"have {length}. The example that planned it ignores its 'length'."
        )
    if (start + size).max() > len(window.tokens):
        raise RowError(
            f"a piece of the plan ends at token {(start + size).max()}, the window has "
            f"{len(window.tokens)}. Plan and window do not belong together."
        )
    size[pads] = free
    valid = np.ones(len(size), bool)
    valid[pads] = False
    pack = None
    if plan.pack is not None:
        pack = np.take(plan.pack, which, mode="clip")
        pack[pads] = 0
    backward = None
    if plan.backward is not None:
        backward = np.repeat(plan.backward[rows], counts)
    return _Pieces(start, size, segment, pack, backward, valid)


def _numbered(starts: np.ndarray, inside: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Number the things that begin at ``starts`` within each row, from 0; -1 where not inside."""
    number = np.cumsum(starts, dtype=np.int32).reshape(shape)
    number -= (number[:, 0] - starts.reshape(shape)[:, 0] + 1)[:, None]
    np.copyto(number, -1, where=~inside.reshape(shape))
    return number


def _units(
    code: np.ndarray, is_text: np.ndarray, text_begin: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The number of each token's unit, and of its kind; -1 for none."""
    kind = np.where(is_text, code & UNIT_KIND, 0).astype(np.int8) - np.int8(1)
    inside = kind >= 0
    starts = (code >= UNIT_START) & inside
    starts[text_begin] = inside[text_begin]
    return _numbered(starts, inside, shape), kind.reshape(shape)


def _from_the_end(code: np.ndarray, behind: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The codes of units where they are read backwards: one begins in front of another or of none.

    Args:
        code: of each token, as ``Window.units``.
        behind: of the token behind it in the text.
        back: bool, which tokens are read backwards.
    """
    last = (behind >= UNIT_START) | ((behind & UNIT_KIND) == 0)
    turned = (code & UNIT_KIND) | np.where(last, UNIT_START, 0).astype(code.dtype)
    return np.where(back, turned, code)


def _positions(packs: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """0 .. T-1, beginning again with each pack; padding goes on counting."""
    column = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    if packs is None:
        return column.copy()
    new = np.zeros(shape, bool)
    new[:, 1:] = (packs[:, 1:] != packs[:, :-1]) & (packs[:, 1:] > 0)
    return column - np.maximum.accumulate(np.where(new, column, 0), axis=1)
