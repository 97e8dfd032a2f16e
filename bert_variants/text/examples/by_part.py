"""Rows of several corpora in one run: by weight, and each corpus in rows of its own kind.

ERNIE 1.0 mixes an encyclopedia, news and a forum, and makes dialogues of the last alone
(Sun et al. 2019, arXiv 1904.09223, sections 3.3 and 4.1).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from bert_variants import registry
from bert_variants.config import ConfigError
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab

_HERE = "example by_part or alternating"  # where something does not fit
REPEATED = "row taken more than once"
BEYOND = "row of a part beyond its weight"


def in_random_order(call: registry.Call) -> None:
    """Refuse streams: rows drawn by weight from several parts go on from nothing."""
    for inner in call.inner():
        if inner.traits["order"] != "random":
            raise registry.RegistryError(
                f"example '{call.name}' mixes rows, but those of '{inner}' have an order of their "
                "own. Take an example whose rows stand for themselves."
            )


@registry.register("example", reserved=("length",), calls=("examples",), check=in_random_order)
def by_part(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    examples: Sequence[str] = ("single()",),
    weights: Sequence[float] = (),
) -> Plan:
    """Each part of a mix in the rows of an example of its own, drawn by weight.

    The text is prepared from the source ``mix(parts=(...))``; part k is its k-th source, in the
    order given there. So an encyclopedia and dialogues are
    ``by_part(examples=("nsp_pairs()", "dialogue()"), weights=(5.0, 1.0))``.

    Parts never meet in a row: a random segment is from the same part. A label that an example
    does not give is -1 in its rows, and objectives leave such rows out; so every batch has rows
    of all kinds, and each objective is a mean over its own. A weight in front of an objective
    makes up for how rare its rows are; ``alternating`` takes turns between batches of one kind.

    Without weights every row is there once. With them there are as many rows as without, and
    part k has the share ``weights[k] / sum(weights)`` of them: some of its rows in a visit, drawn
    anew each time, or some more than once, with different masks. Both are counted. A part of
    which a window has no row leaves its share to the others.

    Args:
        window, rng, vocab, length: as every example.
        examples: call-strings, one for each part or one for all.
        weights: one for each part, not negative; empty: all rows once.

    Raises:
        ConfigError: numbers of examples, weights and parts that do not fit, a text that is no mix,
            or what the examples refuse.
    """
    plan = mixed(window, rng, vocab, length, examples, weights)
    return dataclasses.replace(plan, groups=None)


def mixed(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    length: int,
    examples: Sequence[str],
    weights: Sequence[float],
) -> Plan:
    """The rows of ``by_part``, each with its part as its group."""
    examples = (examples,) if isinstance(examples, str) else examples
    which = _parts(window, examples, weights)
    count = max(len(examples), len(weights), int(which.max()) + 1)
    calls = [registry.lookup("example", examples[k % len(examples)]) for k in range(count)]
    plans = []
    for k, call in enumerate(calls):
        chosen = np.flatnonzero(which == k)
        if not len(chosen):
            continue
        text, moved = _only(window, chosen)
        try:
            plan = call(text, rng, vocab, length=length)
        except ConfigError as error:
            raise ConfigError(f"{_HERE}, part {k}: {error}") from None
        plans.append((k, _put_back(plan, text, moved, call)))
    labels = sorted({label for call in calls for label in call.traits["labels"]})
    whole = _chained([plan for _, plan in plans], [k for k, _ in plans], labels)
    if not weights:
        return whole
    counts, shares = np.zeros(count, np.int64), np.asarray(weights, np.float64)
    for k, plan in plans:
        counts[k] = len(plan)
    return _drawn(whole, counts, wanted(counts, shares), rng)


def wanted(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows of each part: together as many as there are, in proportion to the weights.

    10 and 30 rows at weights 1 and 1 become 20 and 20. Parts without rows or weight do not count.
    """
    shares = np.where(counts > 0, weights, 0.0)
    total = int(counts[shares > 0].sum())
    if not total:
        return np.zeros_like(counts)
    exact = total * shares / shares.sum()
    rows = np.floor(exact).astype(np.int64)
    rest = np.argsort(rows - exact, kind="stable")[: total - rows.sum()]
    rows[rest] += 1
    return rows


def _parts(window: Window, examples: Sequence[str], weights: Sequence[float]) -> np.ndarray:
    """int [n_documents]: the part of each document, checked."""
    if weights and (min(weights) < 0 or sum(weights) <= 0):
        raise ConfigError(f"{_HERE}: weights is {weights}, expected x >= 0, not all 0.")
    if weights and len(examples) not in (1, len(weights)):
        raise ConfigError(
            f"{_HERE}: {len(examples)} examples and {len(weights)} weights; expected one "
            "of each for every part (or one example for all)."
        )
    told = max(len(examples), len(weights))
    if window.parts is None:
        if told > 1:
            raise ConfigError(
                f"{_HERE}: {len(examples)} examples and {len(weights)} weights, but the "
                "text has one source. Make data.source (and data.held_out_source, if it is set) a "
                "mix(parts=(...)) of as many."
            )
        return np.zeros(len(window.documents) - 1, np.uint8)
    most = int(window.parts.max())
    if most >= told and (told > 1 or weights):
        raise ConfigError(
            f"{_HERE}: the text has a part {most} (the first is 0), but there are "
            f"{len(examples)} examples and {len(weights)} weights. Give one of each for every part."
        )
    return window.parts


def _only(window: Window, documents: np.ndarray) -> tuple[Window, np.ndarray]:
    """The window of some documents, and how far in front each of them stood before."""
    if len(documents) == len(window.documents) - 1:
        return window, np.zeros(len(documents), np.int64)
    first, behind = window.documents[documents], window.documents[documents + 1]
    sentence = _runs(first, behind - first)
    begin, end = window.sentences[first], window.sentences[behind]
    token = _runs(begin, end - begin)
    borders = np.concatenate([[0], np.cumsum(np.diff(window.sentences)[sentence])])
    offsets = np.concatenate([[0], np.cumsum(behind - first)])
    return Window(
        documents=offsets,
        sentences=borders,
        tokens=window.tokens[token],
        word_starts=window.word_starts[token],
        units=None if window.units is None else window.units[token],
        parts=None if window.parts is None else window.parts[documents],
        roles=None if window.roles is None else window.roles[sentence],
    ), begin - borders[offsets[:-1]]


def _runs(begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """begin .. begin + size - 1 for each, one after another."""
    return np.repeat(begins - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())


def _put_back(plan: Plan, text: Window, moved: np.ndarray, call: registry.Call) -> Plan:
    """The plan with its pieces where they stand in the whole window."""
    borders = text.sentences[text.documents]
    document = np.searchsorted(borders, np.maximum(plan.start, 0), side="right") - 1
    is_text = plan.start >= 0
    if (is_text & (plan.start + plan.length > borders[document + 1])).any():
        raise ConfigError(
            f"{_HERE}: '{call}' takes text over the end of a document in one piece, so "
            "its documents cannot be told apart."
        )
    return dataclasses.replace(plan, start=plan.start + np.where(is_text, moved[document], 0))


def _chained(plans: Sequence[Plan], parts: Sequence[int], labels: Sequence[str]) -> Plan:
    """The rows of several plans of one window; those of one part are a group."""
    pieces = np.concatenate([np.diff(p.rows) for p in plans])
    dropped, altered = Counter[str](), Counter[str]()
    for plan in plans:
        dropped.update(plan.dropped)
        altered.update(plan.altered)
    pack = None
    if any(p.pack is not None for p in plans):
        ones = (np.ones(len(p.start), np.int32) if p.pack is None else p.pack for p in plans)
        pack = np.concatenate(list(ones))
    return Plan(
        rows=np.concatenate([[0], np.cumsum(pieces)]).astype(np.int64),
        start=np.concatenate([p.start for p in plans]),
        length=np.concatenate([p.length for p in plans]),
        segment=np.concatenate([p.segment for p in plans]),
        pack=pack,
        groups=np.repeat(np.asarray(parts, np.int32), [len(p) for p in plans]),
        labels={
            name: np.concatenate(
                [
                    p.labels[name] if name in p.labels else np.full(len(p), -1, np.int32)
                    for p in plans
                ]
            )
            for name in labels
        },
        dropped=dict(dropped),
        altered=dict(altered),
    )


def _drawn(plan: Plan, counts: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> Plan:
    """``rows[k]`` rows of the ``counts[k]`` of part k, each as often as any other or once more."""
    taken = []
    for first, has, wants in zip(np.cumsum(counts) - counts, counts, rows, strict=True):
        if wants:
            more = np.sort(rng.permutation(has)[: wants % has])
            taken.append(first + np.concatenate([np.tile(np.arange(has), wants // has), more]))
    chosen = np.concatenate(taken) if taken else np.zeros(0, np.int64)
    left_out = np.ones(len(plan), bool)
    left_out[chosen] = False
    text = np.where(plan.start >= 0, plan.length, 0)
    lost = int(text[np.repeat(left_out, np.diff(plan.rows))].sum())
    size = np.diff(plan.rows)[chosen]
    piece = _runs(plan.rows[chosen], size)
    return dataclasses.replace(
        plan,
        rows=np.concatenate([[0], np.cumsum(size)]).astype(np.int64),
        start=plan.start[piece],
        length=plan.length[piece],
        segment=plan.segment[piece],
        pack=None if plan.pack is None else plan.pack[piece],
        groups=plan.groups[chosen],
        labels={name: label[chosen] for name, label in plan.labels.items()},
        dropped={**plan.dropped, BEYOND: lost},
        altered={**plan.altered, REPEATED: int(np.maximum(rows - counts, 0).sum())},
    )
