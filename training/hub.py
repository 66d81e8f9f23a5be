"""Push a release to the Hub in one commit, then download it, compare it and score it again."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from huggingface_hub import CommitOperationAdd, HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id

from training.errors import UserError
from training.files import read_json, read_predictions, sha256_file
from training.release import FILES, card_text, check_release

# Answers may differ between machines where the two best labels are this close.
TIE = 1e-3


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
    from training.config import DataArguments
    from training.data import load_split
    from training.model import label_names_from

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


def rescore(folder: Path, source: Any, split: Any, num_images: int) -> str:
    """Score evenly spread test images again and compare with predictions.csv.

    Raises:
        UserError: an answer differs where the two best labels are not a near tie.
    """
    from training.evaluation import score
    from training.model import label_names_of, load_network
    from training.transforms import EvalImages

    positions = np.linspace(0, len(split) - 1, min(num_images, len(split)), dtype=int)
    positions = sorted(set(positions.tolist()))
    sample = split.dataset.select(positions)
    network = load_network(folder)
    names = label_names_of(network.model.config)
    images = EvalImages(sample, network.preprocessing)  # so few are not worth a cache
    logits = score(network, images, batch_size=32, num_workers=0)
    recorded = [row["predicted"] for row in read_predictions(folder)]
    labels = [names[i] for i in sample["label"]]
    answers = [names[i] for i in logits.argmax(1)]
    margins = np.diff(np.sort(logits, axis=1)[:, -2:], axis=1)[:, 0]
    different = [
        (position, recorded[position], answer)
        for position, answer, margin in zip(positions, answers, margins, strict=True)
        if recorded[position] != answer and margin > TIE
    ]
    if different:
        position, before, after = different[0]
        raise UserError(
            f"{len(different)} of {len(positions)} test images get another answer from the downloaded "
            f"files (image {position}: {before} on the card, {after} now): do not use this revision"
        )
    right = sum(a == b for a, b in zip(answers, labels, strict=True))
    expected = sum(recorded[p] == b for p, b in zip(positions, labels, strict=True))
    return (
        f"{len(positions)} of {len(split)} test images scored again from the downloaded files: "
        f"{right} right, {expected} by the card's record"
    )


@contextlib.contextmanager
def translated_errors(repo_id: str) -> Iterator[None]:
    """The Hub's refusals as one line with a cure."""
    try:
        yield
    except (
        HfHubHTTPError,
        httpx.HTTPError,
        OfflineModeIsEnabled,
        LocalEntryNotFoundError,
    ) as error:
        raise UserError(_cure(error, repo_id)) from error


def _cure(error: Exception, repo_id: str) -> str:
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return (
            "the Hub does not accept the token: run `hf auth login`, or set HF_TOKEN to a valid one"
        )
    if status == 403:
        return f"the token may not write to {repo_id}: make one with write access and set HF_TOKEN"
    if status == 412:
        return f"{repo_id} got another commit meanwhile; nothing was uploaded: push again"
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo_id} does not exist, or the token may not see it"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the Hub did not finish the request ({reason}): push again, finished parts are kept"
