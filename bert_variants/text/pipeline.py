"""The order of rows as a pure function: (store, seed, position) gives a batch; no state is kept.

An epoch (a *visit*) goes like this. The shards, in a random order, are dealt into windows of about
eight million tokens; each window is planned by the example (which rows, from which text); then
windows are visited in a random order, and the rows of a window in a random order. With
``copies=k`` the windows and their plans repeat after k epochs, as BERT's own k copies of its data
do, while the orders stay new in every epoch.

A batch is the next rows of that order, over the ends of windows and epochs alike, so nothing is
left over and every batch is full. Each process takes its contiguous share of the rows: what a
batch holds does not depend on how many processes there are.

An example of ``order="stream"`` is read in *lanes* instead, for models with memory: the rows of a
window are cut into as many stretches as a batch has rows, and place b of consecutive batches goes
through one stretch from its beginning to its end. A window of 7 rows in batches of 3::

    row of place    0  1  2       continues
    batch 0         0  3  5        0  0  0
    batch 1         1  4  6        1  1  1
    (left over)     2

The label ``continues`` is 1 where a row goes on from the one that stood at its place in the batch
before, and 0 at the beginning of a stretch or where the plan says so. A batch holds rows of one
window. In training the rows that fill no batch are left out of the visit, the last ones of some
stretches; which stretches those are changes with every epoch, so that none is lost for good.
Evaluation has them all. Windows of streams are larger where the batch is, so that a stretch has
about ``LANE_ROWS`` rows at least.

An example of ``order="batches"`` puts its rows into groups, and a batch holds rows of one group.
Here too a batch holds rows of one window, and what fills no batch is left out of the visit: other
rows each time.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np

from bert_variants import keys, registry
from bert_variants.config import ConfigError
from bert_variants.text.orders import blocks, from_lanes, lanes, without
from bert_variants.text.plan import Plan, Window
from bert_variants.text.prefetch import Prefetch
from bert_variants.text.rows import assemble, joined, padding
from bert_variants.text.store import Store, StoreError
from bert_variants.types import Batch

WINDOW_TOKENS = 1 << 23
LANE_ROWS = 32  # of a stretch: how far a memory reaches back through a window
_LOG = logging.getLogger(__name__)
_EPOCH, _SLOT = 40, 24  # bits below the epoch, and below the window within an index


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """Where in the endless order of rows to go on; the whole state of the data.

    Attributes:
        epoch: the visit, from 0.
        index: grows within the epoch, but is not a count of rows: the window's place in the
            epoch's order, times 2**24, plus the row's place in the window's order. So no other
            window needs to be planned to find a row.
    """

    epoch: int = 0
    index: int = 0

    def __int__(self) -> int:
        return self.epoch << _EPOCH | self.index

    @classmethod
    def of(cls, number: int) -> Position:
        """The inverse of ``int``."""
        return cls(number >> _EPOCH, number & ((1 << _EPOCH) - 1))


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A window that is ready: its text, its rows, and the order in which they come.

    The first ``full`` of them are those of training; see ``orders``.
    """

    window: Window
    plan: Plan
    order: np.ndarray
    full: int
    first_id: int


@dataclasses.dataclass(frozen=True)
class _Taken:
    """Some rows of a planned window in an epoch."""

    epoch: int
    planned: _Planned
    rows: np.ndarray


class Pipeline:
    """Batches of a split. Safe to use from several threads.

    Raises:
        StoreError: the split is empty.
        ConfigError: a batch that the processes cannot share equally, or an example of streams that
            does not say which rows go on.
        RegistryError: an unknown example.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        *,
        example: str,
        length: int,
        batch: int,
        seed: int,
        copies: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        window_tokens: int = 0,
    ) -> None:
        """
        Args:
            store, split: the text.
            example: the call-string of the row builder.
            length: T.
            batch: rows of the global batch.
            seed: everything random comes from it.
            copies: see ``config.Data``.
            process_index, process_count: whose share of each batch this is.
            window_tokens: text that is planned together, about; 0: ``WINDOW_TOKENS``, or more for
                streams, see above.
        """
        if batch % process_count or not 0 <= process_index < process_count:
            raise ConfigError(
                f"a batch of {batch} rows cannot be shared by {process_count} processes equally "
                f"(this is process {process_index}). Make it a multiple of them."
            )
        self.store, self.length, self.batch_rows = store, length, batch
        self._split, self._seed, self._copies = split, seed, copies
        self._example = registry.lookup("example", example)
        self._stream = self._example.traits["order"] == "stream"
        self._whole = self._example.traits["order"] != "random"  # batches of one window
        if self._stream and "continues" not in self._example.traits["labels"]:
            raise ConfigError(
                f"example {example} makes streams, but has no label 'continues' that says where "
                "one begins."
            )
        least = LANE_ROWS * batch * length if self._stream else 0
        window_tokens = window_tokens or max(WINDOW_TOKENS, least)
        self._vocab = store.vocab
        share = batch // process_count
        self._share = process_index * share, (process_index + 1) * share
        found = store.split(split)
        self.tokens, self._shards = found.tokens, len(found.shards)
        self.windows = min(self._shards, max(1, round(found.tokens / window_tokens)))
        if self.windows > 1 << (_EPOCH - _SLOT):
            raise ConfigError(
                f"{found.tokens} tokens are {self.windows} windows of {window_tokens}, at most "
                f"{1 << (_EPOCH - _SLOT)} are possible. Make window_tokens larger."
            )
        self._plans: dict[tuple[int, int], Future[_Planned]] = {}
        self._lock = threading.Lock()

    def batch(self, position: Position) -> tuple[Batch, Position]:
        """This process's share of the global batch at a position, and the position after it.

        Raises:
            StoreError: damaged data, or a corpus of which the example makes no row at all (of
                streams: no batch).
            ConfigError: a position of other data, or (streams, groups) of batches of another size.
        """
        row = position.index & ((1 << _SLOT) - 1)
        if self._whole and row % self.batch_rows:
            raise ConfigError(
                f"{position} is in the middle of a batch of {self.batch_rows} rows: it comes from "
                "batches of another size, which hold other rows."
            )
        taken, after = self._take(position, self.batch_rows)
        return self._assembled(taken), after

    def advance(self, position: Position, rows: int) -> Position:
        """The position ``rows`` rows further on."""
        return self._take(position, rows)[1]

    def fixed(self, rows: int) -> Iterator[Batch]:
        """The first ``rows`` rows of epoch 0, or all if it has fewer, in batches: for evaluation.

        Rows of streams come in their lanes, window after window.

        All batches have the same shape: the last one (of streams and groups: of a window, which
        of groups is the one where they may meet) is filled up with
        rows in which nothing is valid (``valid_BT`` False everywhere; labels 0), so what has no
        token must weigh nothing.
        """
        position = Position()
        while rows > 0 and position.epoch == 0:
            taken, after = self._take(position, min(rows, self.batch_rows), over=False)
            if not taken:  # the windows that were left have no row
                return
            yield self._assembled(taken)
            rows -= sum(len(some.rows) for some in taken)
            position = after

    def plan(self, epoch: int, slot: int) -> Plan:
        """The rows of the window that comes ``slot``-th in an epoch: for counts and for looking."""
        return self._planned(epoch, slot).plan

    def plan_ahead(self, position: Position) -> None:
        """Plan the window after the one at ``position``, if that has not been done."""
        epoch, slot = position.epoch, (position.index >> _SLOT) + 1
        key = epoch + slot // self.windows, slot % self.windows
        if key not in self._plans:
            self._planned(*key)

    def _take(
        self, position: Position, rows: int, *, over: bool = True
    ) -> tuple[list[_Taken], Position]:
        """The next ``rows`` rows and the position after them.

        With ``over`` as in training: on into later epochs. Else for evaluation: also the rows that
        fill no batch, and of streams and groups the rows of one window at a time.
        """
        taken: list[_Taken] = []
        epoch, slot = position.epoch, position.index >> _SLOT
        row = position.index & ((1 << _SLOT) - 1)
        barren = 0
        while rows > 0:
            planned = self._planned(epoch, slot)
            end = planned.full if over else len(planned.order)
            if row > end:
                raise ConfigError(
                    f"{position} is beyond the {end} rows of its window: it comes "
                    "from other data, another example or another length."
                )
            some = planned.order[row : min(row + rows, end)]
            if len(some):
                taken.append(_Taken(epoch, planned, some))
            rows, row = rows - len(some), row + len(some)
            if row < end:
                break
            barren = 0 if end else barren + 1
            if barren >= self.windows:
                raise StoreError(self._no_rows(planned))
            slot, row = slot + 1, 0
            if slot == self.windows:
                epoch, slot = epoch + 1, 0
                if not over:
                    break
            if self._whole and not over and taken:
                break
        return taken, Position(epoch, slot << _SLOT | row)

    def _no_rows(self, planned: _Planned) -> str:
        if len(planned.order):
            return (
                f"a window of the split '{self._split}' of {self.store.folder} has "
                f"{len(planned.order)} rows of {self._example}, which fill no batch of "
                f"{self.batch_rows}. Take a smaller run.batch, shorter rows, or more text."
            )
        dropped = planned.plan.dropped
        reasons = ", ".join(f"{n} tokens: {why}" for why, n in dropped.items() if n)
        return (
            f"example {self._example} makes no row of length {self.length} from the split "
            f"'{self._split}' of {self.store.folder} ({reasons or 'it dropped nothing'})."
        )

    def _assembled(self, taken: list[_Taken]) -> Batch:
        """This process's share of the rows taken, filled up where they are too few."""
        parts, first = [], 0
        for some in taken:
            low, high = (min(max(x - first, 0), len(some.rows)) for x in self._share)
            first += len(some.rows)
            if low < high:
                parts.append(self._rows(some, low, high))
        missing = self._share[1] - self._share[0] - sum(len(p.visit_B) for p in parts)
        if missing:
            like = parts[0] if parts else self._rows(taken[0], 0, 1)
            parts.append(padding(like, missing, self._vocab))
        return joined(parts)

    def _rows(self, some: _Taken, low: int, high: int) -> Batch:
        return assemble(
            some.planned.plan,
            some.rows[low:high],
            some.planned.window,
            self._vocab,
            self.length,
            first_id=some.planned.first_id,
            visit=some.epoch,
        )

    def _planned(self, epoch: int, slot: int) -> _Planned:
        """The window at a place of the order; the last two that were asked for are kept."""
        if slot >= self.windows:
            raise ConfigError(
                f"window {slot} of an epoch of {self.windows}: the position comes from other data."
            )
        key = epoch, slot
        with self._lock:
            future = self._plans.pop(key, None)
            mine = future is None
            future = future or Future()
            self._plans[key] = future  # as the newest
            for old in list(self._plans)[:-2]:
                del self._plans[old]
        if mine:
            try:
                future.set_result(self._make_plan(epoch, slot))
            except BaseException as error:
                with self._lock:
                    self._plans.pop(key, None)
                future.set_exception(error)
        return future.result()

    def _make_plan(self, epoch: int, slot: int) -> _Planned:
        visit = epoch % self._copies if self._copies else epoch
        number = int(keys.host_rng(self._seed, "order", epoch).permutation(self.windows)[slot])
        shuffled = keys.host_rng(self._seed, "windows", visit).permutation(self._shards)
        shards = np.array_split(shuffled, self.windows)[number]
        window = self.store.window(self._split, shards.tolist())
        rng = keys.host_rng(self._seed, "plan", visit, number)
        plan = self._example(window, rng, self._vocab, length=self.length)
        if len(plan) >= 1 << _SLOT:
            raise ConfigError(
                f"{len(plan)} rows in one window, at most {(1 << _SLOT) - 1} are possible. Make "
                "window_tokens smaller."
            )
        # Windows share the 32 bits of identities evenly, so that none needs to know the others.
        first_id = number * ((1 << 32) // self.windows)
        if self._stream:
            order, full = lanes(len(plan), self.batch_rows, epoch)
            plan = from_lanes(plan, order, self.batch_rows)
            return _Planned(window, without(plan, order[full:]), order, full, first_id)
        if self._whole:
            if plan.groups is None:
                raise ConfigError(
                    f"example {self._example} puts rows of one group into a batch, but its plan "
                    "does not say which group a row is of."
                )
            rng = keys.host_rng(self._seed, "rows", epoch, number)
            order, full, small = blocks(plan.groups, self.batch_rows, rng)
            for group, rows in small.items() if self._split == "train" else ():
                _LOG.warning(
                    f"group {group} of {self._example} has {rows} rows in a window, fewer than the "
                    f"{self.batch_rows} of a batch: this visit trains none of them."
                )
            return _Planned(window, without(plan, order[full:]), order, full, first_id)
        order = keys.host_rng(self._seed, "rows", epoch, number).permutation(len(plan))
        return _Planned(window, plan, order, len(order), first_id)


def prefetch(pipeline: Pipeline, position: Position, depth: int = 2) -> Prefetch:
    """Batches from a position on, with the position after each, made in the background::

        with prefetch(rows, position) as batches:
            for batch, position in batches: ...

    ``depth`` batches are kept ready, and the next window is planned while this one is read. An
    exception in the background is raised here, with its type, at the batch that it belongs to.
    """
    return Prefetch(pipeline.batch, position, depth, ahead=pipeline.plan_ahead)
