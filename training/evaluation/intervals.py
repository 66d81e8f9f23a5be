"""Confidence intervals of proportions and of their paired differences: plain arithmetic."""

from __future__ import annotations

import math

Z = 1.959964  # of the standard normal distribution: 95 % lie within


def wilson_interval(successes: int, n: int, z: float = Z) -> tuple[float, float]:
    """Compute the score interval of the proportion successes / n (Wilson 1927), as (low, high).

    It holds near 0 and 1, where p +- z standard deviations does not: (0, 10) -> (0.0, 0.2775).

    Args:
        z: quantile of the standard normal distribution; the default gives 95 %.
    """
    p, zz = successes / n, z * z / n
    centre = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_interval(
    both: int, only_first: int, only_second: int, neither: int, z: float = Z
) -> tuple[float, float]:
    """Compute the interval (low, high) of p1 - p2, two proportions counted on the same images.

    Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650): the Wilson intervals of the two,
    put together with a continuity-corrected correlation. Like Wilson's it stays within -1 to 1 and
    has a width where the two never disagree.

    Args:
        both, only_first, only_second, neither: how many images each of the two got right.
        z: quantile of the standard normal distribution; the default gives 95 %.

    Raises:
        ValueError: the four counts are 0.
    """
    n = both + only_first + only_second + neither
    if n < 1:
        raise ValueError("no image was scored by both")
    first, second = both + only_first, both + only_second
    p1, p2 = first / n, second / n
    (low1, high1), (low2, high2) = wilson_interval(first, n, z), wilson_interval(second, n, z)
    phi = _correlation(both, only_first, only_second, neither)
    return (
        p1 - p2 - _length(p1 - low1, high2 - p2, phi),
        p1 - p2 + _length(high1 - p1, p2 - low2, phi),
    )


def _length(a: float, b: float, phi: float) -> float:
    """Compute the length of the difference of sides `a` and `b` with correlation `phi`."""
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))  # rounding may fall below 0


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Compute the phi coefficient of two models' right answers, from -1 to 1.

    A positive one is moved towards 0 by half an image (continuity correction). It is 0 where a
    model got all images right, or none.
    """
    n = both + only_first + only_second + neither
    margins = [both + only_first, only_second + neither, both + only_second, only_first + neither]
    if not all(margins):
        return 0.0
    excess: float = both * neither - only_first * only_second
    if excess > 0:
        excess = max(0.0, excess - n / 2)
    return excess / math.sqrt(math.prod(margins))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test that two models are right equally often.

    If they are, each image that only one of them got right is a toss of a coin (McNemar 1947). The
    tail of the binomial distribution is summed in whole numbers, so it is exact for any count.

    Args:
        only_first, only_second: images that only the one, or only the other, got right.
    """
    n = only_first + only_second
    tail = term = 1
    for k in range(min(only_first, only_second)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)
