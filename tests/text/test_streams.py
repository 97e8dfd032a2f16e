"""Documents as one stream, and the rows that are cut from it, against slow readings."""

from __future__ import annotations

import itertools

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import registry
from bert_variants.config import ConfigError
from bert_variants.text.examples.xlnet_stream import fitted
from bert_variants.text.plan import Plan, Window
from bert_variants.text.rows import assemble
from bert_variants.text.streams import Stream

VOCAB = corpora.VOCAB
SEP, CLS = VOCAB.sep, VOCAB.cls

documents = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=5), min_size=1, max_size=8)


def flat(window: Window) -> list[int]:
    """The stream, token by token."""
    tokens: list[int] = []
    for d in range(len(window.documents) - 1):
        begin, end = window.sentences[window.documents[d : d + 2]]
        tokens += [*window.tokens[begin:end].tolist(), SEP]
    return tokens


def planned(call: str, window: Window, length: int, seed: int = 0) -> Plan:
    return registry.lookup("example", call)(
        window, np.random.default_rng(seed), VOCAB, length=length
    )


def read(plan: Plan, window: Window) -> list[list[int]]:
    return [corpora.row_tokens(plan, row, window) for row in range(len(plan))]


# ---- places


def test_the_worked_stream():
    stream = Stream.of(corpora.window([[3], [1, 1]]))
    assert stream.documents.tolist() == [0, 4, 7]
    assert stream.sentences.tolist() == [0, 3, 4, 5, 6, 7]
    assert stream.end == 7
    assert stream.text_before(np.arange(8)).tolist() == [0, 1, 2, 3, 3, 4, 5, 5]
    for way, begin, starts in (
        (stream, 1, [1, -1 - SEP, 3]),
        (stream.mirrored(), 2, [3, -1 - SEP, 1]),
    ):
        start, size, which = way.cut(np.array([begin]), np.array([begin + 4]), SEP)
        assert start.tolist() == starts
        assert sorted(size.tolist()) == [1, 1, 2]
        assert which.tolist() == [0, 0, 0]


@pytest.mark.parametrize("backward", [False, True])
@given(made=documents, draw=st.data())
@settings(max_examples=60, deadline=None)
def test_stretches_are_those_of_the_stream(backward, made, draw):
    window = corpora.window(made)
    stream, tokens = Stream.of(window), flat(window)
    if backward:
        stream, tokens = stream.mirrored(), tokens[::-1]
    step = -1 if backward else 1
    assert stream.end == len(tokens)
    begin = draw.draw(st.lists(st.integers(0, len(tokens) - 1), min_size=1, max_size=6))
    end = [draw.draw(st.integers(b + 1, len(tokens))) for b in begin]
    start, size, which = stream.cut(np.array(begin), np.array(end), SEP)
    assert (np.diff(which) >= 0).all()
    for k, (b, e) in enumerate(zip(begin, end, strict=True)):
        found: list[int] = []
        for s, n in zip(start[which == k], size[which == k], strict=True):
            found += [-1 - s] if s < 0 else window.tokens[s : s + n][::step].tolist()
        assert found == tokens[b:e]
        text = stream.text_before(np.array([b, e]))
        assert text[1] - text[0] == sum(t != SEP for t in tokens[b:e])


# ---- stream


def test_worked_rows():
    window = corpora.window([[3], [2, 1]])
    rows = [[5, 6, 7, SEP], [8, 9, 10, SEP]]
    joined = planned("stream()", window, 4)
    assert read(joined, window) == rows
    assert joined.labels["continues"].tolist() == [0, 1]
    apart = planned("stream(documents='apart')", window, 4)
    assert read(apart, window) == rows
    assert apart.labels["continues"].tolist() == [0, 0]


@given(documents, st.integers(4, 20), st.data())
@settings(max_examples=80, deadline=None)
def test_rows_read_on_where_the_row_before_ended(made, length, draw):
    window = corpora.window(made)
    reuse = draw.draw(st.integers(0, length - 1))
    plan = planned(f"stream(reuse={reuse})", window, length)
    tokens, rows = flat(window), read(plan, window)
    step = length - reuse
    for i, row in enumerate(rows):
        assert row == tokens[i * step : i * step + length]
        assert plan.labels["continues"][i] == (i > 0)
    seen = len(rows) and (len(rows) - 1) * step + len(rows[-1])
    lost = [t for t in tokens[seen:] if t != SEP]
    assert sum(plan.dropped.values()) == len(lost) <= 1
    assert all(len(row) == length for row in rows[:-1])


@given(documents, st.integers(4, 20), st.data())
@settings(max_examples=80, deadline=None)
def test_documents_that_stay_apart_begin_their_own_streams(made, length, draw):
    window = corpora.window(made)
    reuse = draw.draw(st.integers(0, length - 1))
    plan = planned(f"stream(reuse={reuse}, documents='apart')", window, length)
    starts = np.append(np.flatnonzero(plan.labels["continues"] == 0), len(plan))
    whole: list[list[int]] = []
    for first, last in itertools.pairwise(starts.tolist()):
        rows = read(plan, window)[first:last]
        whole.append(rows[0] + [t for row in rows[1:] for t in row[reuse:]])
    expected, lost = [], 0
    for d in range(len(window.documents) - 1):
        begin, end = window.sentences[window.documents[d : d + 2]]
        document = [*window.tokens[begin:end].tolist(), SEP]
        found = next((w for w in whole if w and w[0] == document[0]), [])
        assert document[: len(found)] == found
        lost += sum(t != SEP for t in document[len(found) :])
        expected += [found] if found else []
    assert whole == expected
    assert sum(plan.dropped.values()) == lost


@pytest.mark.parametrize("reuse", [-1, 8, 9])
def test_reuse_within_the_row(reuse):
    with pytest.raises(ConfigError, match=rf"reuse is {reuse}, expected 0 <= reuse"):
        planned(f"stream(reuse={reuse})", corpora.window([[30]]), 8)


# ---- xlnet_stream


def windows_of(plan: Plan, window: Window, length: int, reuse: int, backward: int = 0):
    """For each row of a direction: where A ends, B, where its first text is, ``is_next``."""
    tokens = flat(window)[:: -1 if backward else 1]
    chosen = np.flatnonzero(plan.labels["backward"] == backward)
    batch = assemble(plan, chosen, window, VOCAB, length)
    assert batch.valid_BT.all()
    for i, (row, segments) in enumerate(zip(batch.tokens_BT, batch.segments_BT, strict=True)):
        first, second = (segments == 0).sum() - 1, length - 2
        a, b = first - reuse, second - first - 1
        assert segments.tolist() == [0] * (first + 1) + [1] * (b + 1) + [2]
        assert row[[first, second, second + 1]].tolist() == [SEP, SEP, CLS]
        assert a >= 1
        assert b >= 1
        assert a + b == length - reuse - 3
        begin = i * reuse
        assert row[:first].tolist() == tokens[begin : begin + reuse + a]
        read_b = row[first + 1 : second].tolist()
        at = next(n for n in range(len(read_b) + 1) if n == len(read_b) or read_b[n] != SEP)
        yield begin + reuse + a, read_b, at, int(batch.labels["is_next"][i])


def numbered(documents: list[list[int]]) -> Window:
    """A window in which no two tokens are the same."""
    window = corpora.window(documents)
    tokens = np.arange(5, 5 + len(window.tokens)).astype(np.uint32)
    return Window(window.documents, window.sentences, tokens, window.word_starts)


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize(("length", "reuse"), [(8, 3), (9, 4), (12, 4), (32, 16), (64, 20)])
def test_rows_are_raw_a_sep_b_sep_cls(length, reuse, backward):
    window = numbered(corpora.random_documents(3, count=30))
    plan = planned(f"xlnet_stream(reuse={reuse}, directions='both')", window, length)
    tokens, stream = flat(window), Stream.of(window)
    if backward:
        tokens, stream = tokens[::-1], stream.mirrored()
    place = {t: i for i, t in enumerate(tokens) if t != SEP}
    borders = set(stream.sentences.tolist())
    count = (len(tokens) - length + 3) // reuse + 1
    assert plan.labels["backward"].tolist() == [0] * count + [1] * count
    assert plan.labels["continues"].tolist() == 2 * ([0] + [1] * (count - 1))
    kinds = set()
    for a_end, b, at, is_next in windows_of(plan, window, length, reuse, backward):
        kinds.add(is_next)
        if at == len(b):
            continue  # nothing but a separator
        begin = place[b[at]] - at
        assert b == tokens[begin : begin + len(b)]
        assert begin in borders
        if is_next:
            assert begin >= a_end
            assert begin - a_end < length - reuse - 3
    assert kinds == {0, 1}


def test_one_direction_is_the_first_half_of_both():
    window = corpora.window(corpora.random_documents(3, count=30))
    one, both = (
        planned(f"xlnet_stream(directions='{d}')", window, 32) for d in ("forward", "both")
    )
    assert one.backward is None
    assert read(one, window) == read(both, window)[: len(one)]
    assert both.backward.tolist() == [False] * len(one) + [True] * len(one)


def test_half_of_the_row_is_reused():
    """512 tokens: 256 raw ones, and 253 of A and B."""
    window = corpora.window(corpora.random_documents(1, count=200))
    plan = planned("xlnet_stream()", window, 512)
    least = planned("xlnet_stream()", window, 8)  # 3 raw ones, A, B and the three specials
    assert len(least) == (len(flat(window)) - 2) // 3
    batch = assemble(plan, np.arange(2), window, VOCAB, 512)
    np.testing.assert_array_equal(batch.tokens_BT[1, :256], flat(window)[256:512])
    assert ((batch.segments_BT == 0).sum(1) - 1 + (batch.segments_BT == 1).sum(1) - 1 == 509).all()


def test_the_two_kinds_are_equal_shares_and_places_are_uniform():
    """Sentences of 5 in a budget of 29: A ends behind any of those within it."""
    count = 20_000
    window = Window(
        documents=np.array([0, count]),
        sentences=np.arange(count + 1) * 5,
        tokens=np.arange(5, 5 + 5 * count).astype(np.uint32),
        word_starts=np.ones(5 * count, bool),
    )
    plan = planned("xlnet_stream(reuse=10)", window, 42)
    assert len(plan) > 9_000
    is_next = plan.labels["is_next"]
    assert abs(is_next.mean() - 0.5) < 4 * 0.5 / len(plan) ** 0.5
    begins = plan.start[plan.rows[:-1]]
    second = plan.rows[:-1] + np.add.reduceat(plan.segment == 0, plan.rows[:-1], dtype=np.int64)
    b_begin = plan.start[second]
    ends = (b_begin - begins - 10)[is_next == 1]  # where A ended before it was cut
    values, counts = np.unique(ends, return_counts=True)
    assert values.tolist() == [5, 10, 15, 20, 25]
    expected = len(ends) / 5
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-square, 4 degrees, 0.001
    elsewhere = b_begin[is_next == 0] / (5 * count)
    np.testing.assert_allclose(
        np.quantile(elsewhere, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03
    )


def test_without_a_sentence_end_within_reach_b_is_from_elsewhere():
    window = numbered([[200], [200]])
    plan = planned("xlnet_stream(reuse=8)", window, 24)
    inside = plan.labels["is_next"][: (200 - 24) // 8]
    assert (inside == 0).all()


@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 30))
@settings(max_examples=300, deadline=None)
def test_pairs_are_fitted_token_by_token(a, b, budget):
    slow_a, slow_b = a, b
    while slow_a + slow_b > budget:
        if slow_a > slow_b:
            slow_a -= 1
        else:
            slow_b -= 1
    found = fitted(np.array([a]), np.array([b]), budget)
    assert (int(found[0][0]), int(found[1][0])) == (slow_a, slow_b)


@pytest.mark.parametrize(("length", "reuse"), [(16, 1), (16, 12), (16, -4)])
def test_reuse_leaves_room_for_a_and_b(length, reuse):
    with pytest.raises(ConfigError, match=rf"reuse is {reuse}, expected 0 or 3 \.\. 11"):
        planned(f"xlnet_stream(reuse={reuse})", corpora.window([[90]]), length)


def test_a_text_that_is_too_short_is_left_out_and_counted():
    plan = planned("xlnet_stream()", corpora.window([[9], [9]]), 32)
    assert len(plan) == 0
    assert plan.dropped == {"end of the text that fills no row": 18}
