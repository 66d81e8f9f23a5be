"""Paths as people type them: is it a path or a name on the Hub, what was meant, can it be written?

Imports the standard library only: the command line checks its paths before anything heavy is loaded.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from training.common.errors import UserError
from training.common.files import temporary_of


def local_path(text: str | os.PathLike) -> Path:
    """Make a path of what was typed, with `~` for the home folder.

    The shell replaces a `~` only at the start of a word: in `--output=~/x` it is left to us. The name
    of a user that is not known here stays as it is.
    """
    return Path(os.path.expanduser(text))


def looks_local(name: str) -> bool:
    """Say whether a name is a path rather than a name on the Hub, user/name.

    It is one if it exists, if its first part is a folder here (`runs/smaple`), or if it does not have
    the form user/name: it starts with `.`, `/` or `~`, has a backslash or a drive letter, or has not
    exactly one `/`.
    """
    if os.path.exists(os.path.expanduser(name)) or os.path.isdir(name.split("/")[0]):
        return True
    if name.startswith((".", "/", "~")) or "\\" in name or re.match(r"[A-Za-z]:", name):
        return True
    return name.count("/") != 1


def did_you_mean(path: str | os.PathLike) -> str:
    """Suggest what stands beside the first part of a path that does not exist, for the end of an error.

    >>> did_you_mean("runs/smaple/model")
    '; did you mean runs/sample/model?'

    Returns:
        "; did you mean X?", X written as `path` is; "" where nothing there has a similar name, or
        `path` exists.
    """
    found, *rest = _parts(path)
    changed = False
    while rest:
        part = rest.pop(0)
        if not os.path.lexists(os.path.expanduser(os.path.join(found, part))):
            similar = None if changed else _similar(found, part)
            if similar is None:  # a second guess would be a guess of a guess
                break
            part, changed = similar, True
        found = os.path.join(found, part)
    return f"; did you mean {found}?" if changed else ""


def refuse_missing(model: str, kinds: str) -> None:
    """Refuse a path where there is nothing; a Hub id is not asked for.

    Args:
        model: as it was given.
        kinds: what could have been given beside a Hub id: "a run, a release folder".

    Raises:
        UserError: nothing is there; the line suggests what was meant.
    """
    if not looks_local(model) or os.path.exists(os.path.expanduser(model)):
        return
    hint = did_you_mean(model)
    first, *rest = model.split("/")
    if not hint and len(rest) == 1 and first not in ("", ".", "..", "~") and os.path.isdir(first):
        hint = f" ({first} is a folder here, so it is not looked for on the Hub)"
    shown = model if model.strip() else repr(model)
    raise UserError(f"{shown} does not exist: give {kinds} or a Hub id user/name{hint}")


def existing_folder(path: str | os.PathLike, kind: str) -> Path:
    """Find a folder that was typed; `~` is the home folder.

    Args:
        path: as it was typed.
        kind: what should have been given, for the error: "a finished run".

    Raises:
        UserError: there is nothing, or something else than a folder.
    """
    folder = local_path(path)
    if os.path.isdir(folder):
        return folder
    if os.path.lexists(folder):
        raise UserError(f"{path} is not a folder: give {kind}")
    raise UserError(f"{path} does not exist: give {kind}{did_you_mean(path)}")


def _parts(path: str | os.PathLike) -> list[str]:
    """Split a path into a first part that is kept as it is ("", "~" or "/") and the others."""
    parts = list(Path(path).parts)
    if parts and (parts[0].startswith("~") or os.path.isabs(parts[0])):
        return parts
    dotted = os.fspath(path).startswith("./")  # which Path would drop
    return ["." if dotted else "", *parts]


def _similar(folder: str, part: str) -> str | None:
    """Find the name in a folder that is most like `part`, whatever its capitals; None: none is."""
    try:
        names = os.listdir(os.path.expanduser(folder) or ".")
    except OSError:
        return None
    # A dot file is meant only by who types a dot.
    by_lower = {
        name.lower(): name for name in sorted(names) if name.startswith(".") == part.startswith(".")
    }
    close = difflib.get_close_matches(part.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[close[0]] if close else None


def check_writable(path: str | os.PathLike, option: str = "--output", folder: bool = False) -> None:
    """Refuse a path that cannot be written, before the work whose result it is for; nothing is left there.

    Args:
        path: what will be written; what lies there already may be replaced.
        option: where the person gave the path, for the error.
        folder: a folder will be made, with those above it; else a file, whose folder must be there.

    Raises:
        UserError: it is a folder where a file is meant, or the other way round; the folder above it is
            missing, or nothing can be written there.
    """
    kind = "folder" if folder else "file"
    try:
        _check_place(path, option, folder, kind)
    except OSError as error:  # nothing can be written there, or a folder on the way not be entered
        raise UserError(
            f"{option} {path}: nothing can be written there ({error.strerror}): give another {kind}"
        ) from error


def _check_place(path: str | os.PathLike, option: str, folder: bool, kind: str) -> None:
    target = local_path(path)
    if os.path.lexists(target) and not (target.is_dir() if folder else target.is_file()):
        what = "a folder" if target.is_dir() else "no folder" if folder else "no regular file"
        raise UserError(f"{option} {path} is {what}: give the name of a {kind}")
    above = target if folder else target.parent
    while folder and not os.path.lexists(above):
        above = above.parent
    if not os.path.lexists(above):
        raise UserError(
            f"{option} {path}: there is no folder {above}: make it first, or give another "
            f"{kind}{did_you_mean(above)}"
        )
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder: give another {kind}")
    with suppress(FileNotFoundError):  # and no name that is too long, which `lexists` does not tell
        os.lstat(target if folder else temporary_of(target))
    with tempfile.TemporaryFile(dir=above):  # asks for more than the permission: the disk too
        pass
