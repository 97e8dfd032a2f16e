"""Intervals, corrections and verdicts on simulated results whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bert_variants.ablate import statistics, student

SEEDS = {3: (0, 1, 2), 5: tuple(range(5)), 10: tuple(range(10))}


def differences(n: int, mean: float = 0.0, times: int = 1000) -> np.ndarray:
    """``times`` experiments of n paired differences around ``mean``, with the sd 1."""
    return np.random.default_rng(n).normal(mean, 1.0, (times, n))


@pytest.mark.parametrize(
    ("alpha", "df", "expected"),  # any table of Student's t
    [(0.05, 1, 12.706), (0.05, 2, 4.303), (0.05, 4, 2.776), (0.05, 9, 2.262), (0.01, 10, 3.169)],
)
def test_critical_values(alpha, df, expected):
    assert student.critical(alpha, df) == pytest.approx(expected, abs=5e-4)
    assert student.two_sided(student.critical(alpha, df), df) == pytest.approx(alpha, rel=1e-9)


def test_one_and_two_degrees_of_freedom_are_closed_forms():
    for t in (0.1, 1.0, 3.0, 100.0):
        assert student.two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t))
        assert student.two_sided(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_critical_refuses_what_is_no_level():
    with pytest.raises(ValueError, match="alpha is 0"):
        student.critical(0.0, 3)
    with pytest.raises(ValueError, match="df is 0"):
        student.two_sided(1.0, 0)


@pytest.mark.parametrize(
    ("effect", "seeds"),  # G*Power: paired t test, two-sided, level 0.05, power 0.8
    [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)],
)
def test_seeds_needed(effect, seeds):
    assert student.seeds_needed(effect, 1.0, 0.05) == seeds
    assert student.seeds_needed(-3 * effect, 3.0, 0.05) == seeds


def test_power_is_what_simulation_finds():
    n, effect = 5, 1.2
    found = [statistics.p_value(d) < 0.05 for d in differences(n, effect, 4000)]
    assert student.power(effect, n, 0.05) == pytest.approx(np.mean(found), abs=0.025)
    assert student.power(0.0, n, 0.05) == pytest.approx(0.05, abs=1e-4)


def test_no_difference_needs_no_seeds():
    assert student.seeds_needed(0.0, 1.0, 0.05) is None
    assert student.seeds_needed(1e-9, 1.0, 0.05) is None


@pytest.mark.parametrize("n", SEEDS)
def test_t_interval_covers(n):
    """93 to 97 % of 1,000 experiments, whatever the difference."""
    intervals = [statistics.t_interval(d) for d in differences(n, mean=0.7)]
    covered = np.mean([not i.excludes(0.7) for i in intervals])
    assert 0.93 <= covered <= 0.97
    assert all(math.isfinite(i.high - i.low) for i in intervals)


@pytest.mark.parametrize(("n", "least"), [(5, 0.93), (10, 0.93)])
def test_bootstrap_t_covers_from_five_seeds_on(n, least):
    covered = [
        not statistics.bootstrap_interval(d).excludes(0.0) for d in differences(n, times=400)
    ]
    assert np.mean(covered) >= least - 0.02  # of 400: the standard error is 0.01


def test_why_three_seeds_are_not_resampled():
    """The percentile bootstrap misses the truth in three of ten cases; bootstrap-t has no bound."""
    some = differences(3)
    percentile = [not statistics.percentile_interval(d).excludes(0.0) for d in some]
    assert np.mean(percentile) < 0.8
    assert all(math.isinf(statistics.bootstrap_interval(d).high) for d in some[:20])


def test_bootstrap_and_t_agree_with_many_seeds():
    d = np.random.default_rng(0).normal(0.3, 1, 60)
    t, b = statistics.t_interval(d), statistics.bootstrap_interval(d)
    assert (b.low, b.high) == pytest.approx((t.low, t.high), abs=0.05)


def test_holm():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([]) == []


def experiments(
    rng: np.random.Generator, n: int, arms: int, effects: dict[int, float]
) -> dict[str, dict[int, float]]:
    """Results as training gives them: luck that a seed's arms share, and luck of each run."""
    shared = rng.normal(0, 1.0, n)
    values = {"base": {s: shared[s] + rng.normal(0, 0.3) for s in range(n)}}
    for arm in range(arms):
        effect = effects.get(arm, 0.0)
        values[f"arm{arm}"] = {s: shared[s] + effect + rng.normal(0, 0.3) for s in range(n)}
    return values


@pytest.mark.parametrize("n", SEEDS)
def test_a_planted_null_is_not_declared(n):
    """Six arms that do nothing: in at most 5 % of experiments any of them gets a verdict."""
    rng, times = np.random.default_rng(n), 600
    wrong = 0
    for _ in range(times):
        found = statistics.compare(
            experiments(rng, n, 6, {}), "base", SEEDS[n], lower_is_better=True
        )
        wrong += any(c.verdict in ("better", "worse") for c in found.values())
    assert wrong / times <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)
    # it can fail: without a correction it would be about three times as many
    assert wrong / times < 0.1


def test_corrected_intervals_hold_together():
    rng, n, times = np.random.default_rng(4), 5, 500
    effects = {0: 0.5, 1: -0.2}
    truth = [effects.get(arm, 0.0) for arm in range(4)]
    held = 0
    for _ in range(times):
        found = statistics.compare(
            experiments(rng, n, 4, effects), "base", SEEDS[n], lower_is_better=True
        )
        arms = [found[f"arm{i}"] for i in range(4)]
        held += all(not c.corrected.excludes(t) for c, t in zip(arms, truth, strict=True))
    assert held / times >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / times)


def test_a_planted_effect_is_found_and_the_right_way_round():
    rng, n = np.random.default_rng(1), 5
    better = worse = 0
    for _ in range(200):
        found = statistics.compare(
            experiments(rng, n, 3, {0: -3.0, 1: 3.0}), "base", SEEDS[n], lower_is_better=True
        )
        better += found["arm0"].verdict == "better"
        worse += found["arm1"].verdict == "worse"
        assert found["arm0"].verdict != "worse"
    assert better > 190
    assert worse > 190


def test_pairing_cancels_the_luck_of_the_seed():
    """Unpaired, this effect drowns in what seeds differ by."""
    rng = np.random.default_rng(2)
    values = experiments(rng, 5, 1, {0: -1.5})
    found = statistics.compare(values, "base", SEEDS[5], lower_is_better=True)["arm0"]
    assert found.spread < 0.8 * found.sd
    assert found.difference == pytest.approx(-1.5, abs=0.6)


def test_higher_may_be_better():
    values = {"base": {0: 0.1, 1: 0.11, 2: 0.1}, "up": {0: 0.5, 1: 0.52, 2: 0.51}}
    for lower, verdict in ((True, "worse"), (False, "better")):
        found = statistics.compare(values, "base", (0, 1, 2), lower_is_better=lower)
        assert found["up"].verdict == verdict


BASE = {0: 1.0, 1: 1.1, 2: 0.9}
FAR = {0: 0.1, 1: 0.21, 2: 0.02}


@pytest.mark.parametrize(
    ("arm", "failed", "reason"),
    [
        ({0: 0.1, 1: 0.21}, {}, "2 of 3 seeds are there"),
        ({}, {}, "0 of 3 seeds are there"),
        ({0: 0.1, 1: 0.21}, {"arm": [2]}, "failed in 1 of 3 seeds"),
        (FAR, {"base": [2]}, "the baseline failed in 1 of 3 seeds"),
        ({s: v + 0.5 for s, v in BASE.items()}, {}, "the same for every seed"),
    ],
)
def test_no_verdict_where_something_is_missing(arm, failed, reason):
    values = {"base": BASE, "arm": arm}
    found = statistics.compare(values, "base", (0, 1, 2), lower_is_better=True, failed=failed)
    if "same" in reason:  # exactly the same, beyond rounding
        values["base"] = {0: 1.0, 1: 2.0, 2: 4.0}
        values["arm"] = {0: 1.5, 1: 2.5, 2: 4.5}
        found = statistics.compare(values, "base", (0, 1, 2), lower_is_better=True)
    assert found["arm"].verdict == "not judged"
    assert reason in found["arm"].reason


def test_an_arm_without_results_still_counts_for_the_correction():
    few = statistics.compare({"base": BASE, "arm": FAR}, "base", (0, 1, 2), lower_is_better=True)
    many = statistics.compare(
        {"base": BASE, "arm": FAR, "dead": {}, "gone": {}}, "base", (0, 1, 2), lower_is_better=True
    )
    width = [c["arm"].corrected.high - c["arm"].corrected.low for c in (few, many)]
    assert width[1] > 1.5 * width[0]
    assert many["arm"].interval == few["arm"].interval


def test_a_single_seed_is_never_judged():
    values = {"base": {0: 1.0}, "arm": {0: 0.1}}
    found = statistics.compare(values, "base", (0,), lower_is_better=True)["arm"]
    assert (found.verdict, found.p) == ("not judged", 1.0)
    assert math.isinf(found.corrected.high)


def test_equal_arms_are_not_a_difference():
    found = statistics.compare({"base": BASE, "arm": BASE}, "base", (0, 1, 2), lower_is_better=True)
    assert found["arm"].verdict == "not shown"
    assert found["arm"].seeds_needed is None
