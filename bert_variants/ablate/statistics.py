"""What can be concluded from arms that were trained with the same few seeds.

Arms are paired by seed: the seed decides the initial parameters, the order of rows and the masks,
so its luck is shared and cancels in the difference to the baseline. Everything is about these
differences d_1 .. d_n, one a seed.

**Which interval.** With 3 to 5 differences no resampling can give 95 %. The percentile bootstrap
of 3 values covers the truth in about seven of ten cases; the studentised one (bootstrap-t) has
resamples without any spread, so its bound is infinite; a test by flipping signs cannot go below
p = 2 / 2^n. What holds at any n is Student's t interval, mean ± t * sd / sqrt(n), exact where
differences are normal: the studentised bootstrap whose resamples are drawn from the fitted normal
distribution. It is what verdicts are made from. Beside it stands the symmetric bootstrap-t, from
exact enumeration where that is possible, with no bound where it has none: where the two agree,
normality did not matter. Where an arm has the baseline's distribution the difference is symmetric,
whatever that is; for strongly skewed differences (exponential ones) t covers 86 to 90 % at 3 to 10
seeds. ``tests/ablate/test_statistics.py`` measures the coverage of all three.

**Many arms.** m arms are compared with the baseline, so each interval is also given at level
1 - 0.05 / m (Bonferroni): all m hold together in 95 % of experiments, whatever the dependence
between arms, which share the baseline's luck. Holm's adjusted p stands beside it. A verdict needs
the corrected interval to exclude 0.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from bert_variants.ablate import student

ALPHA = 0.05
RESAMPLES = 9_999
ENUMERATED = 6  # up to so many values all n^n resamples are counted

Verdict = Literal["better", "worse", "not shown", "not judged"]
Values = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Interval:
    """Bounds; infinite where nothing can be said."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside."""
        return not self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An arm beside the baseline, on one measure.

    Attributes:
        arm: its name.
        values: seed -> result, of the seeds that have one.
        mean, sd: of the values; sd is NaN for a single one.
        pairs: seeds for which arm and baseline both have a result.
        differences: of each pair, arm minus baseline.
        difference: their mean; NaN without a pair.
        spread: standard deviation of the differences; NaN with fewer than two pairs.
        interval: 95 %, of this difference alone.
        corrected: holds for all arms of the measure together.
        p: two-sided, of this difference alone.
        p_holm: adjusted for all arms of the measure.
        level: that ``corrected`` is made at: 0.05 over the number of arms.
        verdict: ``better`` or ``worse`` only if ``corrected`` excludes 0 and nothing is missing.
        reason: of a verdict ``not judged``.
    """

    arm: str
    values: Mapping[int, float]
    mean: float
    sd: float
    pairs: tuple[int, ...]
    differences: tuple[float, ...]
    difference: float
    spread: float
    interval: Interval
    corrected: Interval
    p: float
    p_holm: float
    level: float
    verdict: Verdict
    reason: str

    @property
    def bootstrap(self) -> Interval:
        """95 %, symmetric bootstrap-t."""
        return bootstrap_interval(self.differences)

    @property
    def seeds_needed(self) -> int | None:
        """For a power of 80 % at the corrected level, if the difference is what was seen.

        None: there is no difference or no spread, or no number is enough.
        """
        if len(self.pairs) < 2:
            return None
        return student.seeds_needed(self.difference, self.spread, self.level)


NOTHING = Interval(-math.inf, math.inf)


def t_interval(differences: Values, alpha: float = ALPHA) -> Interval:
    """Student's t interval of the mean; unbounded with fewer than two values."""
    n = len(differences)
    if n < 2:
        return NOTHING
    values = np.asarray(differences, np.float64)
    half = student.critical(alpha, n - 1) * values.std(ddof=1) / math.sqrt(n)
    return Interval(float(values.mean() - half), float(values.mean() + half))


def bootstrap_interval(differences: Values, alpha: float = ALPHA) -> Interval:
    """Symmetric bootstrap-t: mean ± q * se, q the 1 - alpha quantile of \\|mean* - mean\\| / se*.

    A resample without spread counts as infinite, so the interval may be unbounded: always with 3
    values, where 3 of 27 resamples repeat one of them.
    """
    n = len(differences)
    if n < 2:
        return NOTHING
    values = np.asarray(differences, np.float64)
    mean, se = values.mean(), values.std(ddof=1) / math.sqrt(n)
    drawn = values[_resamples(n)]
    # a resample of one value repeated has no spread, whatever rounding says of it
    flat = (drawn == drawn[:, :1]).all(axis=1)
    spread = drawn.std(axis=1, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(flat, np.inf, np.abs(drawn.mean(axis=1) - mean) / spread)
    q = np.sort(ratio)[min(len(ratio) - 1, math.ceil((1 - alpha) * len(ratio)) - 1)]
    if not math.isfinite(q):
        return NOTHING
    return Interval(float(mean - q * se), float(mean + q * se))


def percentile_interval(differences: Values, alpha: float = ALPHA) -> Interval:
    """The percentile bootstrap. Not used: it is here so that its coverage can be measured."""
    n = len(differences)
    if n < 2:
        return NOTHING
    means = np.asarray(differences, np.float64)[_resamples(n)].mean(axis=1)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return Interval(float(low), float(high))


@functools.lru_cache(maxsize=8)
def _resamples(n: int) -> np.ndarray:
    """Indices [R, n]: every resample where that is feasible, else 9,999 with a fixed seed."""
    if n <= ENUMERATED:
        return np.array(list(itertools.product(range(n), repeat=n)))
    return np.random.default_rng(n).integers(0, n, (RESAMPLES, n))


def p_value(differences: Values) -> float:
    """Of a two-sided t test that the mean difference is 0; 1 where it cannot be made."""
    n = len(differences)
    if n < 2:
        return 1.0
    values = np.asarray(differences, np.float64)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd == 0:
        return 1.0 if mean == 0 else 0.0
    return student.two_sided(mean / (sd / math.sqrt(n)), n - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: 0.01, 0.04, 0.03 -> 0.03, 0.06, 0.06."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def compare(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    seeds: Sequence[int],
    *,
    lower_is_better: bool,
    failed: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Comparison]:
    """Every arm beside the baseline; the baseline itself has no difference.

    Args:
        values: arm -> seed -> result. Every arm of the grid, also one without any result: all of
            them count for the correction, so that a failure cannot make the others significant.
        baseline: one of the arms.
        seeds: of the grid; an arm that lacks one of them is not judged.
        lower_is_better: of the measure.
        failed: arm -> seeds whose cell failed.
    """
    failed = failed or {}
    arms = [arm for arm in values if arm != baseline]
    pairs = {
        arm: tuple(s for s in seeds if s in values[arm] and s in values[baseline]) for arm in arms
    }
    differences = {arm: [values[arm][s] - values[baseline][s] for s in pairs[arm]] for arm in arms}
    p = {arm: p_value(differences[arm]) for arm in arms}
    adjusted = dict(zip(arms, holm([p[arm] for arm in arms]), strict=True))
    found = {}
    for arm in values:
        mean, sd = _mean_sd(list(values[arm].values()))
        if arm == baseline:
            found[arm] = _alone(arm, values[arm], mean, sd)
            continue
        d = differences[arm]
        level = ALPHA / len(arms)
        difference, spread = _mean_sd(d)
        corrected = t_interval(d, level)
        reason = _why_not(arm, baseline, seeds, pairs[arm], failed, difference, spread)
        found[arm] = Comparison(
            arm=arm,
            values=values[arm],
            mean=mean,
            sd=sd,
            pairs=pairs[arm],
            differences=tuple(d),
            difference=difference,
            spread=spread,
            interval=t_interval(d),
            corrected=corrected,
            p=p[arm],
            p_holm=adjusted[arm],
            level=level,
            verdict=_verdict(difference, corrected, lower_is_better, reason),
            reason=reason,
        )
    return found


def _alone(arm: str, values: Mapping[int, float], mean: float, sd: float) -> Comparison:
    nan = math.nan
    return Comparison(
        arm=arm,
        values=values,
        mean=mean,
        sd=sd,
        pairs=(),
        differences=(),
        difference=nan,
        spread=nan,
        interval=NOTHING,
        corrected=NOTHING,
        p=nan,
        p_holm=nan,
        level=nan,
        verdict="not judged",
        reason="the baseline",
    )


def _mean_sd(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), sd


def _why_not(
    arm: str,
    baseline: str,
    seeds: Sequence[int],
    pairs: Sequence[int],
    failed: Mapping[str, Sequence[int]],
    difference: float,
    spread: float,
) -> str:
    """Why an arm is not judged; empty if it is."""
    for name, who in ((arm, ""), (baseline, "the baseline ")):
        if failed.get(name):
            return f"{who}failed in {len(failed[name])} of {len(seeds)} seeds"
    if len(pairs) < len(seeds):
        return f"{len(pairs)} of {len(seeds)} seeds are there"
    if len(pairs) < 2:
        return "a single seed has no spread"
    if spread == 0 and difference != 0:
        return "the difference is the same for every seed: not what chance would do"
    return ""


def _verdict(difference: float, corrected: Interval, lower_is_better: bool, reason: str) -> Verdict:
    if reason:
        return "not judged"
    if not corrected.excludes(0.0):
        return "not shown"
    return "better" if (difference < 0) == lower_is_better else "worse"
