"""Numbers and other values as the card writes them."""

import re
from collections.abc import Iterable, Sequence


def count(value: int) -> str:
    """25250 -> "25,250"."""
    return f"{value:,}"


def many(value: float, noun: str) -> str:
    """(1, "step") -> "1 step", (1400, "step") -> "1,400 steps"; whole numbers lose their point."""
    return f"{value:,.10g} {noun}{'' if value == 1 else 'es' if noun.endswith('s') else 's'}"


def bare_percent(share: float, n: int) -> str:
    """The share in percent; two decimals from 10,000 images on, else one, and no false 100."""
    decimals = 2 if n >= 10_000 else 1
    while share < 1 and float(f"{100 * share:.{decimals}f}") == 100:
        decimals += 1
    return f"{100 * share:.{decimals}f}"


def percent(share: float, n: int) -> str:
    """0.8964 of 25,250 images -> "89.64 %"."""
    return f"{bare_percent(share, n)} %"


def span(pair: tuple[float, float], n: int) -> str:
    """(0.8926, 0.9001) of 25,250 images -> "89.26 to 90.01 %"."""
    return f"{bare_percent(pair[0], n)} to {percent(pair[1], n)}"


def points(share: float, n: int) -> str:
    """A difference of shares: 0.0231 -> "2.31 percentage points"."""
    return f"{bare_percent(share, n)} percentage points"


def duration(seconds: float) -> str:
    """45.24 -> "45.2 s", 732 -> "12 min 12 s", 11530 -> "3 h 12 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def hide_paths(text: str) -> str:
    """Absolute paths keep their last part only: "-o /home/me/run" -> "-o .../run"."""
    return re.sub(r"(?<![\w.:/-])(?:~|[A-Za-z]:)?[\\/](?:[^\s'\"=\\/]*[\\/])*", ".../", text)


def code(text: str) -> str:
    """A code span that is safe inside a table."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "\\|").split()) + "`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every row as long as the head."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def versions(pairs: Iterable[tuple[str, str]]) -> str:
    """ "numpy 2.5.1, torch 2.13.0"."""
    return ", ".join(f"{name} {version}" for name, version in pairs)
