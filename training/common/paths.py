"""Tell a path from a Hub id, and help where a path is mistyped (placeholder until merged)."""

from __future__ import annotations

import difflib
from pathlib import Path


def looks_local(name: str) -> bool:
    """Say whether `name` means a file or folder here rather than a Hub id."""
    path = Path(name).expanduser()
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        return True
    return Path(name.split("/")[0]).is_dir()


def did_you_mean(path: str | Path) -> str:
    """Suggest a path."""
    path = Path(path).expanduser()
    for parent in [path, *path.parents]:
        if parent.parent.is_dir() and not parent.exists():
            close = difflib.get_close_matches(
                parent.name, [p.name for p in parent.parent.iterdir()], 1
            )
            return f": did you mean {parent.parent / close[0]}?" if close else ""
    return ""
