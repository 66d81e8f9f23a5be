"""Write numbers, paths and tables as the card shows them."""

import re
from collections.abc import Iterable, Sequence


def count(value: int) -> str:
    """Write a whole number: 25250 -> "25,250"."""
    return f"{value:,}"


def many(value: float, noun: str) -> str:
    """Write a number of things: (1, "step") -> "1 step", (1400, "step") -> "1,400 steps".

    A whole number loses its point: (2.0, "epoch") -> "2 epochs".
    """
    return f"{value:,.10g} {noun}{'' if value == 1 else 'es' if noun.endswith('s') else 's'}"


def bare_percent(share: float, n: int) -> str:
    """Write a share of `n` images in percent, without the sign.

    Two decimals from 10,000 images on, else one; more where rounding would give a false 100.
    """
    decimals = 2 if n >= 10_000 else 1
    while share < 1 and float(f"{100 * share:.{decimals}f}") == 100:
        decimals += 1
    return f"{100 * share:.{decimals}f}"


def percent(share: float, n: int) -> str:
    """Write a share of `n` images: (0.8964, 25250) -> "89.64 %"."""
    return f"{bare_percent(share, n)} %"


def span(pair: tuple[float, float], n: int) -> str:
    """Write an interval of shares: ((0.8926, 0.9001), 25250) -> "89.26 to 90.01 %"."""
    return f"{bare_percent(pair[0], n)} to {percent(pair[1], n)}"


def points(share: float, n: int) -> str:
    """Write a difference of shares: (0.0231, 25250) -> "2.31 percentage points"."""
    return f"{bare_percent(share, n)} percentage points"


def duration(seconds: float) -> str:
    """Write seconds: 45.24 -> "45.2 s", 732 -> "12 min 12 s", 11530 -> "3 h 12 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def hide_paths(text: str) -> str:
    """Cut absolute paths to their last part: "-o /home/me/run" -> "-o .../run"."""
    return re.sub(r"(?<![\w.:/-])(?:~|[A-Za-z]:)?[\\/](?:[^\s'\"=\\/]*[\\/])*", ".../", text)


def code(text: str) -> str:
    """Write a code span that is safe inside a table."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "\\|").split()) + "`"


def plain(text: str) -> str:
    """Write words that Markdown, a table included, shows as they are: "a*b" -> "a\\*b"."""
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", " ".join(text.split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; every row must be as long as the head."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def versions(pairs: Iterable[tuple[str, str]]) -> str:
    """Write pairs (package, version): "numpy 2.5.1, torch 2.13.0"."""
    return ", ".join(f"{name} {version}" for name, version in pairs)
