"""Push a release to the Hub in one commit, then download it, compare it and score it again."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
)
from huggingface_hub.utils import validate_repo_id

from training.common.errors import UserError
from training.common.files import read_json, sha256_file
from training.common.hub_errors import translated_errors
from training.hub.contents import FILES, card_text, check_release
from training.hub.rescore import rescore


@dataclass(frozen=True)
class PushedFile:
    """A file as it will lie on the Hub."""

    name: str
    content: bytes | Path
    size: int
    sha256: str
    git_sha1: str  # the id git gives to the content, which the Hub reports for small files


@dataclass(frozen=True)
class PushOutcome:
    """What `push` did."""

    commit: str
    changed: bool
    private: bool
    rescored: str


def stage_files(release: Path, repo_id: str, tag: str) -> list[PushedFile]:
    """The explicit list of files, the card rendered for this repository and tag.

    Raises:
        UserError: the release was changed by hand, or the id is malformed.
    """
    check_repo_id(repo_id)
    check_release(release)
    card = card_text(release, repo_id, tag).encode()
    return [_file(name, card if name == "README.md" else release / name) for name in FILES]


def check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("it has no owner")
    except HFValidationError as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"repo_id {repo_id!r} is malformed ({reason}): give user/name") from error


def push(
    release: Path,
    repo_id: str,
    *,
    tag: str,
    public: bool = False,
    dataset: str | None = None,
    num_rescored: int = 100,
) -> PushOutcome:
    """Upload, tag and verify; running it again does only what is still missing.

    Args:
        tag: must be free, or already name exactly this content.
        public: make the repository public, after it was verified.
        dataset: where the test images are, if they were local; `evaluation.json` says otherwise.
        num_rescored: test images to score again with the downloaded files.

    Raises:
        UserError: anything a person can mend; nothing was uploaded unless the message says so.
    """
    files = stage_files(release, repo_id, tag)
    with translated_errors(repo_id):
        api = HfApi()
        _check_access(api, repo_id)
        source, split = _test_images(release, dataset)
        existed = api.repo_exists(repo_id)
        if not existed:
            api.create_repo(repo_id, private=True, exist_ok=True)
        info = api.model_info(repo_id)
        changed = _differs(api, repo_id, info.sha, files)
        _check_tag(api, repo_id, tag, None if changed else info.sha)
        commit = _commit(api, repo_id, info.sha, files, tag) if changed else info.sha
        if tag not in _tags(api, repo_id):
            api.create_tag(repo_id, tag=tag, revision=commit)
        rescored = _verify(repo_id, commit, files, source, split, num_rescored)
        private = bool(info.private)
        if public and private:
            api.update_repo_settings(repo_id, private=False)
            private = False
    return PushOutcome(commit, changed, private, rescored)


# ---- before anything is sent ------------------------------------------------------------------


def _check_access(api: HfApi, repo_id: str) -> None:
    address = urlsplit(api.endpoint)
    if address.scheme != "https" and address.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(f"HF_ENDPOINT {api.endpoint} is not https: a token would travel in clear")
    if not get_token():
        raise UserError("no token: run `hf auth login`, or set HF_TOKEN to a token that may write")
    who = api.whoami()
    role = who.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError("the token may only read: make one with write access and set HF_TOKEN")
    owner = repo_id.split("/")[0]
    owners = [who["name"], *(org["name"] for org in who.get("orgs", []))]
    if owner not in owners:
        raise UserError(f"{repo_id} is not yours: the token may push to {', '.join(owners)}")


def _test_images(release: Path, dataset: str | None) -> tuple[Any, Any]:
    """Load the test split now: a missing data set should stop the push before it, not after."""
    from training.data.arguments import DataArguments
    from training.data.loading import load_split
    from training.model.network import label_names_from

    report = read_json(release / "evaluation.json")
    if report["source"] == "local" and dataset is None:
        raise UserError(
            f"the model was scored on the local data set {report['dataset']}: give it with "
            "--dataset PATH, so that the pushed files can be scored again"
        )
    recipe = read_json(release / "run.json")["recipe"]
    keys = ("image_column", "label_column", "undecodable_images")
    args = DataArguments(
        dataset=dataset or report["dataset"],
        dataset_revision=report["dataset_revision"],
        **{key: recipe[key] for key in keys},
    )
    source, split = load_split(args, report["split"], label_names_from(release))
    if split.fingerprint != report["dataset_fingerprint"]:
        raise UserError(
            f"{args.dataset} is not the data the card reports on (content {split.fingerprint[:12]}, "
            f"not {report['dataset_fingerprint'][:12]}): give the same data with --dataset"
        )
    return source, split


def _file(name: str, content: bytes | Path) -> PushedFile:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return PushedFile(
        name=name,
        content=content,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        git_sha1=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    )


# ---- the commit and the tag -------------------------------------------------------------------


def _differs(api: HfApi, repo_id: str, revision: str, files: list[PushedFile]) -> bool:
    there = {}
    for entry in api.get_paths_info(repo_id, [file.name for file in files], revision=revision):
        there[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
    return any(there.get(f.name) not in (f.sha256, f.git_sha1) for f in files)


def _tags(api: HfApi, repo_id: str) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}


def _check_tag(api: HfApi, repo_id: str, tag: str, commit: str | None) -> None:
    """create_tag(exist_ok=True) silently keeps an old tag, so look first."""
    target = _tags(api, repo_id).get(tag)
    if target is not None and target != commit:
        raise UserError(
            f"tag {tag} of {repo_id} already names another version ({target[:12]}): nothing was "
            "uploaded; choose another --tag"
        )


def _commit(api: HfApi, repo_id: str, parent: str, files: list[PushedFile], tag: str) -> str:
    operations = [CommitOperationAdd(file.name, file.content) for file in files]
    return api.create_commit(
        repo_id, operations, commit_message=f"Release {tag}", parent_commit=parent
    ).oid


# ---- afterwards: what a stranger gets ---------------------------------------------------------


def _verify(
    repo_id: str, commit: str, files: list[PushedFile], source: Any, split: Any, num_rescored: int
) -> str:
    with tempfile.TemporaryDirectory() as cache:
        names = [file.name for file in files]
        folder = Path(
            snapshot_download(repo_id, revision=commit, cache_dir=cache, allow_patterns=names)
        )
        for file in files:
            path = folder / file.name
            if not path.is_file() or sha256_file(path) != file.sha256:
                raise UserError(
                    f"{file.name} as downloaded from {repo_id} is not what was pushed (commit "
                    f"{commit[:12]}): push again, and do not use this revision"
                )
        return rescore(folder, source, split, num_rescored)
