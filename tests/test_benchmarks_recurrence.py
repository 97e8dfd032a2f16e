"""The benchmark of evaluation with a memory, at toy size: what it counts, and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import nats, reading, recurrence, turns
from bert_variants import config, keys, registry
from bert_variants.config import ConfigError
from bert_variants.loaded import Loaded
from bert_variants.models import network
from bert_variants.text.prepare import prepare

TOY = reading.Size(layers=2, width=16, heads=2, ffn=24, vocab=40, batch=2)
ENWIK8_12 = reading.Size(layers=12, width=512, heads=8, ffn=2048, batch=10)
ENWIK8_24 = reading.Size(layers=24, width=1024, heads=8, ffn=3072, batch=10)


# ------------------------------------------------------------- counting


@pytest.mark.parametrize(
    ("size", "memory", "segment", "ratios"),
    [
        (ENWIK8_12, 1, 1 / 4, (399, 909, 1427, 1949)),
        (ENWIK8_24, 1, 1, (517, 1024, 1463, 1867)),
    ],
    ids=["12 layers", "24 layers"],
)
def test_multiplications_explain_the_published_ratios(size, memory, segment, ratios):
    """Published: 363, 773, 1409, 1874 times at these attention lengths of the window."""
    for length, expected in zip((800, 1800, 2800, 3800), ratios, strict=True):
        read = int(length * segment)
        window, _ = recurrence.macs(size, length, read)
        _, segments = recurrence.macs(size, int(length * memory) + read, read)
        assert round(window / segments) == expected


def test_short_segments_saturate():
    found = []
    for length in (800, 1800, 2800, 3800):
        window, segments = recurrence.macs(ENWIK8_24, length, 128)
        found.append(round(window / segments))
    assert found == [322, 435, 522, 601]


def test_slopes():
    lengths = [64, 128, 256]
    assert recurrence.slope(lengths, [32, 64, 128]) == pytest.approx(0.5)
    assert recurrence.loglog_slope(lengths, [32, 64, 128]) == pytest.approx(1)
    assert recurrence.loglog_slope(lengths, [7, 28, 112]) == pytest.approx(2)


def line(split, length, ratio):
    return {"split": split, "A": length, "ratio": ratio, "by MACs": length / 2}


@pytest.mark.parametrize(
    ("ratios", "linear", "above"),
    [((40, 80, 160), True, True), ((40, 41, 42), False, False), ((10, 20, 40), True, False)],
)
def test_expectations_can_be_missed(ratios, linear, above):
    lines = [
        line(split, length, ratio)
        for split in recurrence.SPLITS
        for length, ratio in zip((64, 128, 256), ratios, strict=True)
    ]
    first, second = recurrence.fits(lines)
    assert (first["linear"], first["above A/4"], second["linear"]) == (linear, above, linear)
    assert "above A/4" not in second
    said = " ".join(recurrence.verdicts(first))
    assert ("MISSED" in said) == (not (linear and above))
    assert "met" in said or not (linear or above)


# ------------------------------------------------------------- the test that comes first


@pytest.mark.slow
def test_segments_are_one_pass_and_kept_keys_change_nothing():
    found = reading.check(TOY, 16, 4)
    assert found.keys() == {"segments", "cached"}
    assert all(worst <= 1e-5 for worst in found.values())


def test_a_memory_that_forgets_is_refused(monkeypatch):
    """Half as long a memory loses what one pass sees."""
    whole = reading.transformer_xl
    monkeypatch.setattr(reading, "transformer_xl", lambda size, memory: whole(size, memory // 2))
    with pytest.raises(reading.NotEquivalent, match="segments: differ by"):
        reading.check(TOY, 16, 4)


def test_wrong_keys_are_refused(monkeypatch):
    real = reading.kept

    def shuffled(*args):
        found = real(*args)
        return found | {"key": [k[:, ::-1] for k in found["key"]]}

    monkeypatch.setattr(reading, "kept", shuffled)
    with pytest.raises(reading.NotEquivalent, match="cached: differ by"):
        reading.check(TOY, 16, 4)


def test_a_benchmark_that_is_not_equivalent_times_nothing(monkeypatch):
    def refuses(*_):
        raise reading.NotEquivalent("segments: differ")

    monkeypatch.setattr(reading, "check", refuses)
    monkeypatch.setattr(recurrence, "measure", lambda *_: pytest.fail("was timed"))
    with pytest.raises(reading.NotEquivalent):
        recurrence.main(["--lengths", "16", "--layers", "1", "--width", "16", "--heads", "2"])


# ------------------------------------------------------------- what is timed


def test_a_window_is_a_chunk_whose_last_state_counts():
    """The same network and text: the logits behind the last token are those of the whole row."""
    last = reading.vanilla(TOY, 12, last=True)()
    every = reading.vanilla(TOY, 12, last=False)()
    assert last.shape == (2, 1, 40)
    assert every.shape == (2, 12, 40)
    np.testing.assert_allclose(last[:, 0], every[:, -1], atol=1e-6)


def test_vanilla_reads_nothing_to_the_right():
    module = reading.Vanilla(TOY, 8, last=False)
    tokens = jnp.asarray(TOY.text(8))
    params = jax.jit(module.init)(jax.random.key(0), tokens)
    apply = jax.jit(module.apply)
    plain, changed = (apply(params, x) for x in (tokens, tokens.at[:, 5].set(7)))
    differs = np.abs(plain - changed).max((0, 2)) > 0
    np.testing.assert_array_equal(np.flatnonzero(differs), [5, 6, 7])


def test_segments_go_on():
    """Each call reads the memory that the one before left: another memory, other logits."""
    job = reading.segments(TOY, 4, 8)
    first, second = job(), job()
    assert first.shape == (2, 4, 40)
    assert float(jnp.abs(first - second).max()) > 0


def test_turns_within_a_process():
    calls = {"quick": 0, "quicker": 0}

    def job(name):
        def run():
            calls[name] += 1

        return run

    found = turns.in_turn({name: job(name) for name in calls}, 2, 1e-9)
    assert {name: len(taken) for name, taken in found.items()} == {"quick": 2, "quicker": 2}
    assert calls == {"quick": 5, "quicker": 5}  # two to warm up, one to see how long, two turns
    assert turns.medians([])["steps"] == 0


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path, capsys):
    options = ["--lengths", "16", "32", "--layers", "1", "--width", "16", "--heads", "2"]
    options += ["--vocab", "24", "--rounds", "2", "--least", "0.001", "--patience", "0"]
    picture = tmp_path / "deep" / "a.svg"
    stored = tmp_path / "deep" / "a.json"
    result = recurrence.main([*options, "--plot", str(picture), "--json", str(stored)])
    assert json.loads(stored.read_text()) == result
    assert [(line["A"], line["S"], line["M"]) for line in result["lines"]] == [
        (16, 8, 8),
        (32, 16, 16),
        (16, 2, 14),
        (32, 4, 28),
    ]
    assert all(line[arm] > 0 for line in result["lines"] for arm in recurrence.ARMS)
    assert "attention length" in picture.read_text()
    printed = capsys.readouterr().out
    assert "the same network" in printed
    assert "log-log slope" in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lengths", "20"], "multiples of 8"),
        (["--plot", "a.pdf"], "ends in .png or .svg"),
        (["--losses-only"], "needs --run"),
    ],
)
def test_wrong_options(options, said, capsys):
    with pytest.raises(SystemExit):
        recurrence.main(options)
    assert said in capsys.readouterr().err


# ------------------------------------------------------------- nats


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """An untrained model, with larger weights so that what it reads makes a difference."""
    data = config.Data(
        source="synthetic(documents=60)",
        tokenizer="wordpiece(size=300)",
        held_out=0.5,
        dir=str(tmp_path_factory.mktemp("data")),
        workers=1,
    )
    sizes = {"layers": 2, "width": 16, "heads": 2, "ffn": 24, "memory": 8, "reuse": 7}
    experiment = config.Experiment(
        data=data,
        model=registry.write("transformer_xl", sizes),
        corruption="causal()",
        objectives="mlm",
    )
    tokenizer = prepare(data).tokenizer
    net = network.build(experiment, tokenizer.vocab.size)
    params = jax.jit(net.init)(keys.root(0), reading.rows(np.ones((1, 4)), last=False))
    params = jax.tree.map(lambda w: 4 * w if w.ndim > 1 else w, params)
    loaded = Loaded(experiment, net, params, tokenizer, 0)
    text = nats.held_out(experiment, 128)
    return nats.Judged(loaded, text, 32, 64)


def test_held_out_text_is_consecutive_and_as_long_as_asked(judged):
    experiment = judged.loaded.config
    assert judged.text_T.shape == (128,)
    assert (judged.text_T == judged.loaded.tokenizer.vocab.sep).any()
    np.testing.assert_array_equal(nats.held_out(experiment, 100), judged.text_T[:100])
    with pytest.raises(ConfigError, match=r"held-out text has \d+ tokens, 10000000 are needed"):
        nats.held_out(experiment, 10_000_000)


@pytest.mark.slow
def test_ways_of_reading_lose_what_the_model_says(judged):
    """What each of them has to give, one prediction at a time from what it may see."""
    net = judged.network(0)
    run = jax.jit(lambda rows: net.apply(judged.loaded.params, rows).token_logits_BPV[0])

    def logits(tokens):
        return np.asarray(run(reading.rows(tokens[None], last=False)), np.float64)

    def loss(of_next, token):
        return np.log(np.exp(of_next - of_next.max()).sum()) + of_next.max() - of_next[token]

    text, end = judged.text_T, judged.first + judged.count
    places = range(judged.first, end)
    windows = np.mean([loss(logits(text[t - 8 : t])[-1], text[t]) for t in places])
    assert nats.by_windows(judged, 8) == pytest.approx(windows, rel=1e-5)
    rows = text.reshape(-1, 8)
    chunks = np.mean([loss(logits(rows[(t - 1) // 8])[(t - 1) % 8], text[t]) for t in places])
    assert nats.by_segments(judged, 8, 0) == pytest.approx(chunks, rel=1e-5)
    whole = logits(text[:end])
    everything = np.mean([loss(whole[t - 1], text[t]) for t in places])
    assert nats.by_segments(judged, 8, 128) == pytest.approx(everything, rel=1e-5)
    assert len({round(x, 4) for x in (windows, chunks, everything)}) == 3


def test_a_run_of_another_model_is_refused(judged, monkeypatch):
    other = config.set_field(judged.loaded.config, "model", "bert()")
    loaded = dataclasses.replace(judged.loaded, config=other)
    monkeypatch.setattr(nats, "load", lambda _: loaded)
    with pytest.raises(ConfigError, match="the model of runs/x is 'bert', expected"):
        nats.judged("runs/x", 8, 64)
