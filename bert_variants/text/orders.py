"""In which order the rows of a window come, where it is not just any: in lanes, or in groups."""

from __future__ import annotations

import dataclasses

import numpy as np

from bert_variants.text.plan import Plan

LEFT_OVER = "row that fills no batch (in training, this visit)"


def lanes(rows: int, batch: int, epoch: int) -> tuple[np.ndarray, int]:
    """The order of a window's rows for models with memory.

    Args:
        rows: of the window.
        batch: rows of a batch.
        epoch: stretches move on by so many places, and with them what is left over.

    Returns:
        int64 [rows]: entry ``t * batch + b`` is the t-th row of the stretch at place b; those
        that fill no batch come last, at the first places. And how many come before those.
    """
    long, left = divmod(rows, batch)
    place = (np.arange(batch) + epoch) % batch  # of each stretch
    size = long + (place < left)
    first = np.empty(batch, np.int64)
    first[place] = np.cumsum(size) - size
    full = (first + np.arange(long)[:, None]).ravel()
    return np.concatenate([full, first[:left] + long]), long * batch


def blocks(
    groups: np.ndarray, batch: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, dict[int, int]]:
    """The order of a window's rows where a batch holds rows of one group.

    Args:
        groups: int [rows], of each row.
        batch: rows of a batch.
        rng: decides the order of rows and of batches, and which rows are left over.

    Returns:
        int64 [rows], batch after batch, behind them those that fill none; how many come before
        those; and group -> rows of each group that is smaller than a batch.
    """
    order = rng.permutation(len(groups))
    full, left, small = [np.zeros((0, batch), np.int64)], [], {}
    for group in np.unique(groups):
        rows = order[groups[order] == group]
        count = len(rows) // batch * batch
        full.append(rows[:count].reshape(-1, batch))
        left.append(rows[count:])
        if not count:
            small[int(group)] = len(rows)
    whole = np.concatenate(full)
    whole = whole[rng.permutation(len(whole))]
    return np.concatenate([whole.ravel(), *left]), whole.size, small


def from_lanes(plan: Plan, order: np.ndarray, batch: int) -> Plan:
    """The plan with its rows in lanes: a stretch begins anew."""
    continues = plan.labels["continues"].copy()
    continues[order[:batch]] = 0
    return dataclasses.replace(plan, labels={**plan.labels, "continues": continues})


def without(plan: Plan, left_over: np.ndarray) -> Plan:
    """The plan with the tokens of rows that training leaves out counted as dropped."""
    text = np.where(plan.start >= 0, plan.length, 0)
    before = np.concatenate([[0], np.cumsum(text)])[plan.rows]
    lost = int((before[left_over + 1] - before[left_over]).sum())
    return dataclasses.replace(plan, dropped={**plan.dropped, LEFT_OVER: lost})
