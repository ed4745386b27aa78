"""Power of a paired comparison: what difference a sample can show, and how many examples a difference needs.

All of it is Student's paired t-test, two-sided, with the noncentral t distribution; the permutation test has the same
power on hundreds of examples. It assumes that examples are independent and the mean difference about normal.
"""

from __future__ import annotations

import math
from functools import lru_cache

POWER, LEVEL = 0.8, 0.05
"""What tables and reports mean by a difference that would have been found: in 80% of comparisons, at 5% two-sided."""


def achieved_power(difference: float, sd: float, n: int, alpha: float = LEVEL) -> float:
    """The probability that a test at level `alpha` finds a true difference.

    Args:
        difference: of the means.
        sd: standard deviation of a single example's difference.
        n: number of examples.
        alpha: of a two-sided test.

    Returns:
        `alpha` itself where there is no difference; 0 below 2 examples, of which nothing follows.

    Raises:
        ValueError: `sd` is negative, or `alpha` is not between 0 and 1.
    """
    _check(sd, alpha)
    if n < 2:
        return 0.0
    if sd == 0:
        return alpha if difference == 0 else 1.0
    return _power(abs(difference) / sd * math.sqrt(n), n - 1, alpha)


def detectable_difference(sd: float, n: int, power: float = POWER, alpha: float = LEVEL) -> float:
    """The smallest true difference that a test at level `alpha` finds with probability `power`.

    Args:
        sd: standard deviation of a single example's difference.
        n: number of examples.
        power: wanted.
        alpha: of a two-sided test.

    Returns:
        In units of the metric; infinite below 2 examples.

    Raises:
        ValueError: `sd` is negative, or not `alpha` < `power` < 1.
    """
    _check(sd, alpha, power)
    if n < 2:
        return math.inf
    if sd == 0:
        return 0.0
    return detectable_errors(n - 1, power, alpha) * sd / math.sqrt(n)


@lru_cache(maxsize=1024)
def detectable_errors(freedom: float, power: float = POWER, alpha: float = LEVEL) -> float:
    """The true difference that is found with probability `power`, in standard errors of the difference.

    Args:
        freedom: degrees of freedom of the standard error.
        power: wanted.
        alpha: of a two-sided test.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    most = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
    while _power(most, freedom, alpha) < power:  # with few degrees of freedom t is far from normal
        most *= 2
    return float(brentq(lambda shift: _power(shift, freedom, alpha) - power, 0.0, most, xtol=1e-10))


def examples_needed(difference: float, sd: float, power: float = POWER, alpha: float = LEVEL) -> int:
    """How many examples a test at level `alpha` needs to find a true difference with probability `power`.

    Raises:
        ValueError: there is no difference to find, or as in `detectable_difference`.
    """
    _check(sd, alpha, power)
    if difference == 0 or not math.isfinite(difference):
        raise ValueError(f"a difference of {difference} cannot be found with any number of examples")
    least, most = 1, 2
    while achieved_power(difference, sd, most, alpha) < power:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        if achieved_power(difference, sd, middle, alpha) < power:
            least = middle
        else:
            most = middle
    return most


def _power(shift: float, freedom: float, alpha: float) -> float:
    """The probability that a t test finds a true difference of `shift` standard errors."""
    from scipy.stats import nct, t

    limit = float(t.ppf(1 - alpha / 2, freedom))
    other_side = float(nct.cdf(-limit, freedom, shift))
    if math.isnan(other_side):  # scipy's answer in places where it is below 1e-15
        other_side = 0.0
    return min(1.0, float(nct.sf(limit, freedom, shift)) + other_side)


def _check(sd: float, alpha: float, power: float | None = None) -> None:
    if not sd >= 0:
        raise ValueError(f"a standard deviation is not negative: {sd}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")
    if power is not None and not alpha < power < 1:
        raise ValueError(f"a power between alpha ({alpha}) and 1 is needed, not {power}")
