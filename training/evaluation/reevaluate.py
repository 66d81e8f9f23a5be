"""Score a finished model again: what `food101 evaluate` does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from training.common.errors import UserError
from training.common.files import read_json
from training.common.hub_errors import translated_errors
from training.common.machine import num_decoders
from training.data.arguments import DataArguments
from training.data.loading import OtherImagesError, load_split
from training.data.splits import Cut, Source, Split
from training.evaluation.formats import in_format_2
from training.evaluation.report import evaluate_model
from training.model.network import label_names_from, model_folder

logger = logging.getLogger(__name__)

# Keys of the recipe that say which images are scored; `dataset` and its revision are in the report.
COLUMNS = (
    "image_column",
    "label_column",
    "label_names",
    "train_split",
    "selection_split",
    "test_split",
    "split_seed",
    "undecodable_images",
)


def evaluate_again(
    model: str,
    dataset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    batch_size: int | None = None,
    eval_cache_gb: float | None = None,
    columns: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a run, release or Hub model; by default on the data that it was reported on.

    Args:
        model: run folder, release folder or Hub id.
        dataset: Hub id, folder or `sample`; None is the one that the model was reported on.
        split: None is the split that the model was reported on; on other data, what training would
            have scored there.
        revision: commit, tag or branch of a Hub id; None is its main branch.
        batch_size: None is the recorded one, which gives the recorded digits; another changes the
            last few. 64 where none is recorded.
        eval_cache_gb: limit on the decoded images that are kept; None is the default, 0 keeps none.
        columns: values for keys of `COLUMNS` that differ from those of the model's own data set.

    Returns:
        The content of evaluation.json; see `formats`.

    Raises:
        UserError: no such model or data, or their labels differ.
    """
    folder = model_folder(model)
    reported = read_reported(model, folder, revision)
    where = folder or model
    args, is_own = _data_arguments(model, dataset, reported, eval_cache_gb, columns or {})
    names = label_names_from(where, revision)
    source, images = _load(args, split, names, reported if is_own else None)
    if is_own and images.cut is None and images.name in reported["learned"]:
        logger.warning(
            f"split {images.name}: {model} has learned from these images, so their scores do not say how good "
            "it is"
        )
    report, _ = evaluate_model(
        where,
        source,
        images,
        revision=revision,
        batch_size=batch_size or (reported["batch_size"] if reported else 64),
        # Where the model itself needs the cores, processes that decode beside it only slow it down.
        num_workers=num_decoders(len(images)) if torch.cuda.is_available() else 0,
        seed=reported["seed"] if reported else None,
        cache_gb=args.eval_cache_gb,
    )
    return report


def _load(
    args: DataArguments, split: str | None, names: list[str], reported: dict[str, Any] | None
) -> tuple[Source, Split]:
    """Load the images to score; `reported` is given where they may be those that were reported on."""
    if reported is None:
        return load_split(args, split, names)
    made_by = Cut(**reported["cut"]) if reported["cut"] else None
    if split not in (None, reported["split"]):
        made_by = None
    try:
        return load_split(args, split or reported["split"], names, made_by)
    except OtherImagesError:
        # Nobody knows where local images lie today: of another name, they may just be others.
        if split is not None or Path(args.dataset).name == reported["dataset"]:
            raise
        return load_split(args, None, names)


def _data_arguments(
    model: str,
    dataset: str | None,
    reported: dict[str, Any] | None,
    eval_cache_gb: float | None,
    columns: dict[str, Any],
) -> tuple[DataArguments, bool]:
    """Say where the images are, and whether they may be those that the model was reported on."""
    rest = dict(columns) if eval_cache_gb is None else {**columns, "eval_cache_gb": eval_cache_gb}
    if reported is None:
        if dataset is None:
            raise UserError(f"{model} does not say what it was scored on: give --dataset")
        return DataArguments(dataset=dataset, **rest), False
    if dataset is None and reported["source"] == "local" and reported["path"] is None:
        raise UserError(
            f"{model} was scored on the local data {reported['dataset']}: give --dataset PATH"
        )
    # The same local data may lie elsewhere by now: only their last name is on record. What was cut is
    # known by its content.
    names = (reported["dataset"],) if dataset is None else (dataset, Path(dataset).name)
    if reported["dataset"] not in names and not (reported["source"] == "local" and reported["cut"]):
        return DataArguments(dataset=dataset, **rest), False
    place = {
        "dataset": dataset or reported["path"] or reported["dataset"],
        "dataset_revision": reported["dataset_revision"],
    }
    return DataArguments(**{**place, **reported["columns"], **rest}), True


def read_reported(model: str, folder: Path | None, revision: str | None) -> dict[str, Any] | None:
    """Read what evaluation.json and run.json say about the data, from a folder or from the Hub.

    Args:
        model: as the person gave it.
        folder: where its config.json is; None for a Hub id.

    Returns:
        evaluation.json in format 2 with three keys more: `path`, the local data if they are still
        here, else None; `columns`, values for `DataArguments`; `learned`, the splits that were learned
        from. None: one of the files is not there.

    Raises:
        UserError: the Hub refuses, or a file is not what it should be.
    """
    names = ("evaluation.json", "run.json")
    if folder is None:
        paths = [_from_hub(model, name, revision) for name in names]
    else:
        in_run = folder.name == "model" and not (folder / "run.json").exists()
        paths = [(folder.parent if in_run else folder) / name for name in names]
    if not all(path and path.is_file() for path in paths):
        return None
    report, run = (read_json(path) for path in paths)
    report = in_format_2(report, paths[0])
    path = run["recipe"]["dataset"]
    is_here = report["source"] == "local" and Path(path).expanduser().exists()
    return {
        **report,
        "cut": report.get("cut"),  # none before there were any
        "path": path if is_here else None,
        # A run of an older version lacks the keys that came later.
        "columns": {key: run["recipe"][key] for key in COLUMNS if key in run["recipe"]},
        "learned": learned_splits(run),
    }


def learned_splits(run: dict[str, Any]) -> list[str]:
    """Name the splits whose images the released weights have learned from, by run.json.

    The selection split is one of them where a cross-validation made its images free to learn from.
    """
    data, cross_validated = run["data"], run.get("selection", {}).get("cross_validation")
    names = [data["train_split"], data.get("selection_split") if cross_validated else None]
    return [name for name in names if name is not None]


def _from_hub(model: str, name: str, revision: str | None) -> Path | None:
    """Download one file of a Hub model; None where the repository has no such file."""
    try:
        with translated_errors(model):
            return Path(hf_hub_download(model, name, revision=revision))
    except UserError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise
