"""ERNIE's dialogues: a few turns, who speaks in each, and whether one of them was replaced.

Source: Sun et al. 2019 (arXiv 1904.09223), section 3.3 (the dialogue language model). It is not in
the released code, so what the paper leaves open is a choice of this file.
"""

from __future__ import annotations

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab

LONE = "dialogue of one turn"
REPLACED = "turn replaced by one of another dialogue"
CUT = "turns longer than the row"


@register("example", labels=("real",), reserved=("length",))
def dialogue(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    turns: int = 3,
    fakes: float = 0.5,
    first_role: int = 0,
) -> Plan:
    """Consecutive turns of one dialogue, some rows with a false one. Label 1: real; 0: fake.

    A document is a dialogue and its sentences are the turns: prepare it with the source
    ``dialogues``, which keeps a turn whole and knows its role (``Window.roles``). Without roles
    turns alternate, a query first. So rows are QRQ, QRR, QQR, ..., as the dialogue has them. A
    worked row of the roles Q R Q::

        tokens    [CLS] how old are you [SEP] eight [SEP] where is your home [SEP]
        segments    0    0   0   0   0    0     1     1     0    0  0    0     0

    A dialogue's turns are taken ``turns`` at a time; the last row is its last ``turns``, which may
    overlap the row before. One of two turns is a row of two; one of a single turn is left out and
    counted. With probability ``fakes`` one turn of the row, any of them, is replaced by a turn of
    another dialogue (uniform over those turns), and keeps the role of its place; a text of one
    dialogue has no fakes. Where turns are too long the longest loses tokens at its end, one by
    one (the last one of equals first). What was replaced or cut is counted.

    Args:
        window, rng, vocab, length: as every example.
        turns: of a row.
        fakes: share of the rows that are fake.
        first_role: the segment id of a query. The role takes the place of the segment; with 2,
            and ``segments=4`` in the model, roles and segments do not share embeddings.

    Raises:
        ConfigError: ``length`` below ``2 * turns + 1``, ``turns`` below 2, ``fakes`` not in 0 .. 1,
            or ``first_role`` below 0.
    """
    if turns < 2 or first_role < 0 or not 0 <= fakes <= 1:
        raise ConfigError(
            f"example dialogue: turns={turns}, fakes={fakes}, first_role={first_role}; expected "
            "turns >= 2, 0 <= fakes <= 1 and first_role >= 0."
        )
    if length < 2 * turns + 1:
        raise ConfigError(
            f"example dialogue: data.length is {length}, expected at least {2 * turns + 1} for "
            f"{turns} turns."
        )
    first, size, lone = _rows(window, turns)
    there = np.arange(turns) < size[:, None]  # [n, turns]
    said = np.where(there, first[:, None] + np.arange(turns), 0)
    roles = _roles(window)[said]
    fake, said, replaced = _replaced(window, rng, said, size, fakes)
    lengths = np.where(there, np.diff(window.sentences)[said], 0)
    kept = fitting(lengths, length - 1 - size)
    return _plan(
        (window.sentences[said], kept, roles + first_role, there),
        vocab,
        np.where(fake, 0, 1),
        {LONE: lone, REPLACED: replaced, CUT: int((lengths - kept).sum())},
    )


def fitting(lengths: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """What remains of each when the longest (the last of equals) loses one until all fit.

    Lengths 5 9 2 in 10 become 4 4 2, in 9 they become 4 3 2.

    Args:
        lengths: int64 [n, k].
        budget: int64 [n].
    """
    k = lengths.shape[1]
    ascending = np.sort(lengths, axis=1)
    shorter = np.cumsum(ascending, axis=1) - ascending  # sum of those in front
    left = budget[:, None] - shorter
    # If the j-th and all longer ones are cut alike, each keeps this; so it is for the first j
    # that is longer than that.
    level = left // (k - np.arange(k))
    over = ascending * (k - np.arange(k)) > left
    none = ~over.any(axis=1)
    j = over.argmax(axis=1)
    row = np.arange(len(lengths))
    most = np.where(none, ascending[:, -1], level[row, j])[:, None]
    spare = np.where(none, 0, left[row, j] - most[:, 0] * (k - j))[:, None]
    cut = lengths > most
    extra = cut & (np.cumsum(cut, axis=1) <= spare)
    return np.where(cut, most, lengths) + extra


def _rows(window: Window, turns: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The first turn of each row, how many turns it has, and tokens of dialogues of one turn."""
    begin, has = window.documents[:-1], np.diff(window.documents)
    ends = window.sentences[window.documents]
    lone = int(np.diff(ends)[has == 1].sum())
    rows = np.where(has > 1, -(-has // turns), 0)
    nth = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    size = np.repeat(np.minimum(has, turns), rows)
    first = np.minimum(nth * turns, np.repeat(has, rows) - size)
    return np.repeat(begin, rows) + first, size, lone


def _roles(window: Window) -> np.ndarray:
    """int32 [n_sentences]: who speaks."""
    if window.roles is not None:
        return window.roles.astype(np.int32)
    has = np.diff(window.documents)
    nth = np.arange(window.documents[-1]) - np.repeat(window.documents[:-1], has)
    return (nth % 2).astype(np.int32)


def _replaced(
    window: Window, rng: np.random.Generator, said: np.ndarray, size: np.ndarray, fakes: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Which rows are fake, what is said in all of them now, and tokens that were taken out."""
    count = int(window.documents[-1])
    row = np.arange(len(said))
    inside = np.searchsorted(window.documents, said[:, 0], side="right") - 1
    begin, end = window.documents[inside], window.documents[inside + 1]
    others = count - (end - begin)
    fake = (rng.random(len(said)) < fakes) & (others > 0)
    place = (rng.random(len(said)) * size).astype(np.int64)
    stranger = (rng.random(len(said)) * others).astype(np.int64)
    stranger += np.where(stranger >= begin, end - begin, 0)
    old = said[row, place]
    said = said.copy()
    said[row[fake], place[fake]] = stranger[fake]
    return fake, said, int(np.diff(window.sentences)[old[fake]].sum())


def _plan(
    turns: tuple[np.ndarray, ...], vocab: Vocab, real: np.ndarray, dropped: dict[str, int]
) -> Plan:
    """[CLS], then each turn that is there with its [SEP]. All arrays are [n, turns]."""
    begin, kept, roles, there = turns
    n, most = there.shape
    start = np.full((n, 1 + 2 * most), -1 - vocab.sep, np.int64)
    length = np.ones((n, 1 + 2 * most), np.int32)
    start[:, 0], start[:, 1::2], length[:, 1::2] = -1 - vocab.cls, begin, kept
    segment = np.concatenate([roles[:, :1] * 0, np.repeat(roles, 2, axis=1)], axis=1)
    used = np.concatenate([np.ones((n, 1), bool), np.repeat(there, 2, axis=1)], axis=1)
    return Plan(
        rows=np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int64),
        start=start[used],
        length=length[used],
        segment=segment[used].astype(np.int32),
        labels={"real": real.astype(np.int32)},
        dropped=dropped,
    )
