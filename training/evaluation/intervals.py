"""How far a proportion, or the difference of two on the same images, is known: plain arithmetic."""

from __future__ import annotations

import math

Z = 1.959964  # of the standard normal distribution: 95 % lie within


def wilson_interval(successes: int, n: int, z: float = Z) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927); holds near 0 and 1, where p +- z sd does not."""
    p, zz = successes / n, z * z / n
    centre = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_interval(
    both: int, only_first: int, only_second: int, neither: int, z: float = Z
) -> tuple[float, float]:
    """95 % interval of p1 - p2, two proportions counted on the same images.

    Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650): the Wilson intervals of the two,
    put together with a continuity-corrected correlation. Like Wilson's it stays within -1 to 1 and
    has a width where the two never disagree.

    Args:
        both, only_first, only_second, neither: how many images each got right.

    Raises:
        ValueError: no image.
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
    """Of the difference of two sides with correlation `phi`; rounding may fall below 0."""
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Of right answers; moved towards 0 by half an image where positive. 0 if one has no spread."""
    n = both + only_first + only_second + neither
    margins = [both + only_first, only_second + neither, both + only_second, only_first + neither]
    if not all(margins):
        return 0.0
    excess: float = both * neither - only_first * only_second
    if excess > 0:
        excess = max(0.0, excess - n / 2)
    return excess / math.sqrt(math.prod(margins))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test that neither is right more often than the other.

    Under it each image that only one got right is a toss of a coin (McNemar 1947); the tail sum of
    the binomial distribution is taken in whole numbers, so it is exact for any count.
    """
    n = only_first + only_second
    tail = term = 1
    for k in range(min(only_first, only_second)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)
