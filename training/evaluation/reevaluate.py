"""Scores and labels from finished models: what `food101 evaluate` and `food101 predict` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import read_json
from training.model.network import model_folder


def evaluate_again(
    model: str,
    dataset: str | None,
    split: str | None,
    revision: str | None,
    batch_size: int | None,
    eval_cache_gb: float | None = None,
) -> dict[str, Any]:
    """Score a run, release or Hub model; by default on the data that it was reported on.

    Raises:
        UserError: no such model or data, or their labels differ.
    """
    import torch

    from training.common.machine import num_decoders
    from training.data.arguments import DataArguments
    from training.data.loading import load_split
    from training.evaluation.report import evaluate_model
    from training.model.network import label_names_from

    folder = model_folder(model)
    reported = _reported(model, folder, revision)
    if dataset is None and reported is None:
        raise UserError(f"{model} does not say what it was scored on: give --dataset")
    if dataset is None and reported["source"] == "local" and reported["path"] is None:
        raise UserError(
            f"{model} was scored on the local data {reported['dataset']}: give --dataset PATH"
        )
    same = dataset is None or (reported is not None and dataset == reported["dataset"])
    args = DataArguments(
        dataset=dataset or reported["path"] or reported["dataset"],
        dataset_revision=reported["dataset_revision"] if same and reported else None,
        **(reported["columns"] if same and reported else {}),
        **({} if eval_cache_gb is None else {"eval_cache_gb": eval_cache_gb}),
    )
    where = folder or model
    split = split or (reported["split"] if reported else args.test_split)
    source, images = load_split(args, split, label_names_from(where, revision))
    seed = reported["seed"] if reported else None
    # The recorded size gives the recorded digits; another changes the last few.
    size = batch_size or (reported["batch_size"] if reported else 64)
    # Where the model itself needs the cores, processes that decode beside it only slow it down.
    num_workers = num_decoders(len(images)) if torch.cuda.is_available() else 0
    report, _ = evaluate_model(
        where,
        source,
        images,
        revision=revision,
        batch_size=size,
        num_workers=num_workers,
        seed=seed,
        cache_gb=args.eval_cache_gb,
    )
    return report


def _reported(model: str, folder: Path | None, revision: str | None) -> dict[str, Any] | None:
    """What evaluation.json and run.json say about the data, from a folder or from the Hub."""
    if folder is None:
        paths = [_from_hub(model, name, revision) for name in ("evaluation.json", "run.json")]
    else:
        root = (
            folder.parent
            if folder.name == "model" and not (folder / "run.json").exists()
            else folder
        )
        paths = [root / name for name in ("evaluation.json", "run.json")]
    if not all(path and path.is_file() for path in paths):
        return None
    report, run = (read_json(path) for path in paths)
    keys = ("image_column", "label_column", "undecodable_images")
    path = run["recipe"]["dataset"]
    is_here = report["source"] == "local" and Path(path).expanduser().exists()
    return {
        **report,
        "path": path if is_here else None,
        "columns": {key: run["recipe"][key] for key in keys},
    }


def _from_hub(model: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    from training.common.hub_errors import translated_errors

    try:
        with translated_errors(model):
            return Path(hf_hub_download(model, name, revision=revision))
    except UserError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise
