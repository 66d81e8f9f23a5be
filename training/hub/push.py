"""Push a release to the Hub in one commit, then download it, compare it and score it again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, HfApi, get_token, snapshot_download

from training.common.errors import UserError
from training.common.files import read_json, sha256_file
from training.common.hub_errors import translated_errors
from training.data.arguments import DataArguments
from training.data.loading import load_split
from training.data.splits import Cut, Split
from training.evaluation.formats import read_evaluation
from training.evaluation.reevaluate import COLUMNS
from training.hub.rescore import rescore
from training.hub.staging import PushedFile, stage_files
from training.model.network import label_names_from


@dataclass(frozen=True)
class PushOutcome:
    """What `push` did."""

    commit: str  # id of the commit that the tag names
    changed: bool  # False: the Hub had these files already
    private: bool
    rescored: str  # a sentence on the images that were scored again


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
        dataset: where the test images are, if they were local; None: where evaluation.json says.
        num_rescored: test images to score again with the downloaded files.

    Raises:
        UserError: anything a person can mend; nothing was uploaded unless the message says so.
    """
    files = stage_files(release, repo_id, tag)
    with translated_errors(repo_id):
        api = HfApi()
        _check_access(api, repo_id)
        split = _test_images(release, dataset)
        existed = api.repo_exists(repo_id)
        if not existed:
            api.create_repo(repo_id, private=True, exist_ok=True)
        info = api.model_info(repo_id)
        changed = _differs(api, repo_id, info.sha, files)
        _check_tag(api, repo_id, tag, None if changed else info.sha)
        commit = _commit(api, repo_id, info.sha, files, tag) if changed else info.sha
        if tag not in _tags(api, repo_id):
            api.create_tag(repo_id, tag=tag, revision=commit)
        rescored = _verify(repo_id, commit, files, split, num_rescored)
        private = bool(info.private)
        if public and private:
            api.update_repo_settings(repo_id, private=False)
            private = False
    return PushOutcome(commit, changed, private, rescored)


# ---- before anything is sent ------------------------------------------------------------------


def _check_access(api: HfApi, repo_id: str) -> None:
    """Refuse an endpoint that is not encrypted, and a token that may not write there."""
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


def _test_images(release: Path, dataset: str | None) -> Split:
    """Load the test split now: a missing data set should stop the push before it, not after."""
    report = read_evaluation(release)
    if report["source"] == "local" and dataset is None:
        raise UserError(
            f"the model was scored on the local data set {report['dataset']}: give it with "
            "--dataset PATH, so that the pushed files can be scored again"
        )
    recipe = read_json(release / "run.json")["recipe"]
    args = DataArguments(
        dataset=dataset or report["dataset"],
        dataset_revision=report["dataset_revision"],
        **{key: recipe[key] for key in COLUMNS if key in recipe},
    )
    made_by = Cut(**report["cut"]) if report.get("cut") else None
    _, split = load_split(args, report["split"], label_names_from(release), made_by)
    if split.fingerprint != report["dataset_fingerprint"]:
        raise UserError(
            f"{args.dataset} is not the data the card reports on (content {split.fingerprint[:12]}, "
            f"not {report['dataset_fingerprint'][:12]}): give the same data with --dataset"
        )
    return split


# ---- the commit and the tag -------------------------------------------------------------------


def _differs(api: HfApi, repo_id: str, revision: str, files: list[PushedFile]) -> bool:
    """Say whether a file is not on the Hub yet, or is another one there."""
    there = {}
    for entry in api.get_paths_info(repo_id, [file.name for file in files], revision=revision):
        there[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
    return any(there.get(f.name) not in (f.sha256, f.git_sha1) for f in files)


def _tags(api: HfApi, repo_id: str) -> dict[str, str]:
    """List the tags of a repository with their commits."""
    return {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}


def _check_tag(api: HfApi, repo_id: str, tag: str, commit: str | None) -> None:
    """Refuse a tag that names another commit: create_tag(exist_ok=True) would silently keep it.

    `commit` is what the tag may name; None: no commit, since a new one is going to be made.
    """
    target = _tags(api, repo_id).get(tag)
    if target is not None and target != commit:
        raise UserError(
            f"tag {tag} of {repo_id} already names another version ({target[:12]}): nothing was "
            "uploaded; choose another --tag"
        )


def _commit(api: HfApi, repo_id: str, parent: str, files: list[PushedFile], tag: str) -> str:
    """Upload all files in one commit on top of `parent`; return its id."""
    operations = [CommitOperationAdd(file.name, file.content) for file in files]
    return api.create_commit(
        repo_id, operations, commit_message=f"Release {tag}", parent_commit=parent
    ).oid


# ---- afterwards: what a stranger gets ---------------------------------------------------------


def _verify(
    repo_id: str,
    commit: str,
    files: list[PushedFile],
    split: Split,
    num_rescored: int,
) -> str:
    """Download the commit into an empty cache, compare every file, score some images again."""
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
        return rescore(folder, split, num_rescored)
