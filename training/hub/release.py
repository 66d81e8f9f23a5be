"""A release: the folder that `food101 push` uploads, built and loaded back without network.

Safetensors in float32, config with the one custom task `food-classification`, image processor,
the pipeline's code, card, and the JSON files that the card is rendered from. Nothing pickled, no path
of this machine, no token.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import pipeline

from training.common.errors import UserError
from training.common.files import read_json, write_json, write_text
from training.evaluation.predictions import read_predictions
from training.evaluation.trust.not_food import FILE
from training.hub.contents import (
    CODE,
    CUSTOM_PIPELINES,
    MANIFEST,
    card_text,
    check_release,
    code_sources,
    handler_sources,
    make_manifest,
)
from training.model.config_block import merge_block, read_block
from training.model.names import names_of
from training.model.network import load_network, quiet_transformers

# The stock pipeline resizes with Pillow or torchvision, the food pipeline with torch: pixels differ
# by at most 1/255, the score of one image by far less than this.
SCORE_TOLERANCE = 0.02


def release_run(
    run: Path, output: Path, handler: bool = False, display_names: str | None = None
) -> None:
    """Build `output` from a finished run, load it back both ways, then move it into place.

    Args:
        handler: put in what an Inference Endpoint runs, and try it.
        display_names: file of what the labels are called; None: the run's names, and those of the
            table for a run from before there were any.

    Raises:
        UserError: the run is not finished, its head was not trained, `output` holds something that must
            not be lost, `display_names` does not fit, the card cannot be written, or a file holds a
            secret.
        RuntimeError: see `load_back`.
    """
    record = read_json(run / "run.json")
    if not record.get("finished") or not (run / "evaluation.json").is_file():
        raise UserError(f"{run} is not a finished run: train it to its end first")
    _refuse_output(output)
    load_network(run / "model")  # refuses weights that are not whole, in one line
    config = _named_config(run / "model", display_names)
    building = output.with_name(f".{output.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    _copy(run, record, building, config)
    for path in handler_sources() if handler else ():
        shutil.copyfile(path, building / path.name)
    write_text(building / "README.md", card_text(building))
    refuse_secrets(building, run)
    load_back(building, run)
    write_json(building / MANIFEST, make_manifest(building))
    shutil.rmtree(output, ignore_errors=True)
    os.replace(building, output)


def _refuse_output(output: Path) -> None:
    """Refuse to replace a file, another folder, or a release that was changed by hand."""
    if output.is_dir() and any(output.iterdir()):
        check_release(output)  # an unchanged release may be replaced: it can be built again
    elif output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file: give a folder with --output")


def _named_config(model: Path, display_names: str | None) -> dict[str, Any]:
    """Read config.json of a run's model, with the names that its release shall have."""
    config = read_json(model / "config.json")
    if display_names is not None or "names" not in read_block(config):
        labels = config["id2label"]  # its ids are text here
        ordered = [labels[each] for each in sorted(labels, key=int)]
        merge_block(config, **names_of(ordered, display_names))
    return config


def _copy(run: Path, record: dict[str, Any], building: Path, config: dict[str, Any]) -> None:
    """Copy everything but card and manifest; run.json and config.json are changed on the way."""
    for name in ("model.safetensors", "preprocessor_config.json"):
        shutil.copyfile(run / "model" / name, building / name)
    if "not_food" in read_block(config):
        shutil.copyfile(run / "model" / FILE, building / FILE)
    for path in code_sources():
        shutil.copyfile(path, building / path.name)
    for name in ("evaluation.json", "predictions.csv"):
        shutil.copyfile(run / name, building / name)
    write_json(building / "run.json", without_paths(record))
    config.pop("_name_or_path", None)
    write_json(building / "config.json", {**config, "custom_pipelines": CUSTOM_PIPELINES})


def without_paths(record: dict[str, Any]) -> dict[str, Any]:
    """Copy run.json for strangers: local files and models by their last name, no output folder."""
    recipe = {k: v for k, v in record["recipe"].items() if k not in ("output_dir", "logging_dir")}
    recipe["dataset"] = record["data"]["dataset"]
    recipe["model"] = record["model"]["id"]
    for key in ("resume_from_checkpoint", "display_names"):
        if recipe.get(key):
            recipe[key] = Path(recipe[key]).name
    return {**record, "recipe": recipe}


def refuse_secrets(folder: Path, run: Path) -> None:
    """Stop if a text file of a release holds a token or a path of this machine.

    Args:
        folder: the release.
        run: the run that it was built from, whose path is one of the secrets.

    Raises:
        UserError: the line names the file, and the path but not the token.
    """
    private = {str(run.resolve()), str(Path.cwd()), str(Path.home())} - {"/", "."}
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            continue
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"hf_[A-Za-z0-9]{20,}", text) or [p for p in private if _names(text, p)]
        if found:
            kind = "a token" if found[0].startswith("hf_") else f"the path {found[0]}"
            raise UserError(f"{path.name} of the release holds {kind}: remove it from the recipe")


def _names(text: str, path: str) -> bool:
    """Say whether a text names a path: "/root/x" names /root, "https://x.org/root" does not."""
    return re.search(rf"(?<![\w.-]){re.escape(path)}(?![\w-])", text) is not None


def load_back(folder: Path, run: Path) -> None:
    """Load the folder as users will, both ways, and compare with the recorded evaluation.

    Where it has a handler, an endpoint's way is a third one.

    Raises:
        RuntimeError: the released files do not give the evaluated answer; a defect of ours.
    """
    image = str(run / "example.jpg")
    with quiet_transformers():
        stock = pipeline("image-classification", model=str(folder), device="cpu")
        food = pipeline(model=str(folder), trust_remote_code=True, device="cpu")
    row = read_predictions(folder)[0]
    label, score = row["predicted"], float(row["score"])
    num_labels = len(json.loads((folder / "config.json").read_text())["id2label"])
    if food.task != "food-classification" or type(food).__name__ != "FoodClassificationPipeline":
        raise RuntimeError(f"the release loads as {type(food).__name__} for {food.task}")
    answers = {
        "food pipeline": food(image, top_k=num_labels),
        "stock pipeline": stock(image, top_k=num_labels),
    }
    told = (folder / FILE).is_file()
    if told:
        with_distance = food(image, top_k=num_labels, not_food=True)
        answers["food pipeline with not_food"] = with_distance["labels"]
    if (folder / "handler.py").is_file():
        body = base64.b64encode(Path(image).read_bytes()).decode()
        with endpoint_handler(folder) as handler:
            request = {"inputs": body, "parameters": {"top_k": num_labels}}
            answers["handler"] = handler(request)
            if told:
                request["parameters"]["not_food"] = True
                answers["handler with not_food"] = handler(request)["labels"]
    for name, rows in answers.items():
        scores = {r["label"]: r["score"] for r in rows}
        if abs(scores.get(label, -1.0) - score) > SCORE_TOLERANCE:
            raise RuntimeError(f"the {name} gives {label} {scores.get(label)}, not {score}")


@contextmanager
def endpoint_handler(folder: Path) -> Iterator[Any]:
    """Import handler.py of a release as an endpoint does, its folder on the path; forget it afterwards."""
    names = [name.removesuffix(".py") for name in CODE]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing more in the release
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("handler.py", folder / "handler.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with quiet_transformers():
            handler = module.EndpointHandler(str(folder))
        yield handler
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)
