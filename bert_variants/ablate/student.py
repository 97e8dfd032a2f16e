"""Student's t in numpy: tail probabilities, quantiles, and the seeds that a difference needs."""

from __future__ import annotations

import functools
import math

import numpy as np

MOST_SEEDS = 100_000  # beyond this a difference is, for any practical purpose, none


def two_sided(t: float, df: int) -> float:
    """P(\\|T\\| >= \\|t\\|) for Student's t with ``df`` degrees of freedom.

    The regularised incomplete beta function I_x(df/2, 1/2) at x = df / (df + t^2).
    """
    if df < 1:
        raise ValueError(f"df is {df}, expected at least 1.")
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t))


@functools.lru_cache(maxsize=4096)
def critical(alpha: float, df: int) -> float:
    """The c with P(\\|T\\| >= c) = alpha: 4.303 for 0.05 and 2 degrees of freedom."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, expected 0 < alpha < 1.")
    low, high = 0.0, 1.0
    while two_sided(high, df) > alpha:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if two_sided(middle, df) > alpha:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def power(effect: float, n: int, alpha: float) -> float:
    """The chance that n pairs show a difference of ``effect`` standard deviations.

    That of a two-sided t test on n differences at level ``alpha``, from the noncentral t::

        P(T' > c) = integral over s of  f(s) Phi(effect sqrt(n) - c s),   s = sqrt(chi2 / df)
    """
    df, c = n - 1, critical(alpha, n - 1)
    # s lies near 1, its standard deviation is about 1 / sqrt(2 df)
    width = 12 / math.sqrt(2 * df)
    s = np.linspace(max(0.0, 1 - width), 1 + width, 601)
    with np.errstate(divide="ignore"):
        log_s = np.log(s)
    log_density = (
        (1 - df / 2) * math.log(2)
        + (df / 2) * math.log(df)
        - math.lgamma(df / 2)
        + (np.where(s > 0, (df - 1) * log_s, -np.inf) if df > 1 else 0.0)
        - df * s * s / 2
    )
    shift = effect * math.sqrt(n)
    beyond = _normal(shift - c * s) + _normal(-shift - c * s)
    return float(np.trapezoid(np.exp(log_density) * beyond, s))


def seeds_needed(mean: float, sd: float, alpha: float, wanted: float = 0.8) -> int | None:
    """How many pairs a difference of this size would need to be shown with power ``wanted``.

    Args:
        mean: the difference.
        sd: standard deviation of the paired differences.
        alpha: of the two-sided test, corrected for how many there are.
        wanted: power.

    Returns:
        At least 2; None if there is no difference, no spread, or ``MOST_SEEDS`` are not enough.
    """
    if mean == 0 or sd == 0:
        return None
    effect = abs(mean) / sd
    low, high = 1, 2
    while power(effect, high, alpha) < wanted:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(effect, middle, alpha) < wanted:
            low = middle
        else:
            high = middle
    return high


def _normal(x: np.ndarray) -> np.ndarray:
    """The standard normal distribution function."""
    return np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in x.tolist()])


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), by its continued fraction (Lentz's method) on the side where it converges fast."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    found = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            found *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return found
