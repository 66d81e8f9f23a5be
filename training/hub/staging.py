"""Make the list of files to push from a release folder; nothing is sent here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from training.common.errors import UserError
from training.hub.contents import card_text, check_release


@dataclass(frozen=True)
class PushedFile:
    """A file as it will lie on the Hub."""

    name: str
    content: bytes | Path
    size: int  # bytes
    sha256: str
    git_sha1: str  # the id git gives to the content, which the Hub reports for small files


def stage_files(release: Path, repo_id: str, tag: str) -> list[PushedFile]:
    """List the files of the release's manifest, sorted, the card rendered for repository and tag.

    Raises:
        UserError: the release was changed by hand, or id or tag is malformed.
    """
    check_repo_id(repo_id)
    check_tag(tag)
    manifest = check_release(release)
    card = card_text(release, repo_id, tag).encode()
    return [
        _file(name, card if name == "README.md" else release / name) for name in sorted(manifest)
    ]


def check_repo_id(repo_id: str) -> None:
    """Refuse an id that is not user/name.

    Raises:
        UserError: the line says what the Hub's own check says of it.
    """
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("it has no owner")
    except HFValidationError as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"repo_id {repo_id!r} is malformed ({reason}): give user/name") from error


# What git allows nowhere in the name of a tag: see `git help check-ref-format`.
NOT_IN_A_TAG = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)")


def check_tag(tag: str) -> None:
    """Refuse what git would not take as a tag; huggingface_hub has no such check.

    Raises:
        UserError: the line names what is wrong with it.
    """
    found = NOT_IN_A_TAG.search(tag)
    if found:
        reason = f"git allows no {found[0]!r} in it"
    elif not tag or tag[0] in "-./" or tag[-1] in "./":
        reason = "git allows no such name"
    else:
        return
    raise UserError(f"tag {tag!r} is malformed ({reason}): give a name like v1.0")


def _file(name: str, content: bytes | Path) -> PushedFile:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return PushedFile(
        name=name,
        content=content,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        git_sha1=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    )
