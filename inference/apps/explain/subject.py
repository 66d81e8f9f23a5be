"""One network and one photograph: what it answers, and which parts of the photograph speak for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from inference.apps.explain.encoding import jpeg_url, png_url, shares
from inference.apps.output import one_line
from inference.food_classification import FoodClassificationPipeline
from inference.food_explain import explain, labels_asked, vit_parts
from inference.food_images import MAX_IMAGE_PIXELS, InvalidImageError, Preprocessing, decode_image
from training.common.errors import UserError
from training.common.paths import did_you_mean, local_path
from training.evaluation.formats import read_evaluation
from training.model.config_block import read_block
from training.model.network import Network, load_network, model_folder

# Below it a map says little: it shows what would speak for a dish that the network does not see.
SMALL = 0.1
PHOTO_PIXELS = 640  # longest side of the photograph on the page
SHARP_PIXELS = 448  # about that, of the picture that maps are drawn on


@dataclass(frozen=True)
class Subject:
    """A network that is shown, and how people call it."""

    name: str  # as it was given
    network: Network
    folder: Path | None  # a run or release that is here; None on the Hub

    @classmethod
    def load(cls, model: str, revision: str | None = None) -> Subject:
        """Load a run, a release or a Hub model.

        Raises:
            UserError: it cannot be loaded or has no trained head.
        """
        folder = model_folder(model)
        network = load_network(folder or model, revision)
        here = local_path(model)
        return cls(str(model), network, here if here.is_dir() else None)

    @property
    def is_vit(self) -> bool:
        return vit_parts(self.network.model) is not None

    def accuracy(self) -> dict[str, Any] | None:
        """Read top-1 with its interval as its own evaluation reported it; None where there is none."""
        path = self.folder / "evaluation.json" if self.folder else None
        if path is None or not path.is_file():
            return None
        try:
            report = read_evaluation(self.folder)  # older reports too
            top1 = report["metrics"]["top1"]
            return {
                "value": top1["value"],
                "interval": top1["interval"],
                "n": report["n"],
                "dataset": report["dataset"],
                "split": report["split"],
            }
        except (UserError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is no report of a test split ({type(error).__name__}: {error}): evaluate the "
                "model again, or move the file away"
            ) from error


def read_photo(path: str, max_image_pixels: int | None = None) -> np.ndarray:
    """Decode an image file to uint8 (height, width, 3).

    Args:
        path: as the person typed it.
        max_image_pixels: limit on width x height; None: `MAX_IMAGE_PIXELS`.

    Raises:
        UserError: there is no such file, or it is no image; one line with the cure.
    """
    place, path = local_path(path), one_line(path) if path.strip() else repr(path)
    if place.is_dir():
        raise UserError(f"{path} is a folder: give one image file; `food101 predict` takes folders")
    if not place.exists():
        raise UserError(f"{path}: no such file; give the path of an image file{did_you_mean(path)}")
    try:
        return decode_image(place, max_image_pixels or MAX_IMAGE_PIXELS)
    except InvalidImageError as error:
        raise UserError(f"{path}: {error}") from error


def shown_photo(photo: np.ndarray, steps: Preprocessing) -> dict[str, Any]:
    """Show the photograph, and which part of it the network sees, in shares of its sides."""
    height, width = photo.shape[:2]
    if steps.shortest_edge is not None:
        scale = steps.shortest_edge / min(height, width)
        resized = height * scale, width * scale
    else:
        resized = steps.resized or (steps.height, steps.width)
    down, right = steps.height / resized[0], steps.width / resized[1]
    seen = min(down, 1.0) * min(right, 1.0)
    return {
        "width": width,
        "height": height,
        "src": jpeg_url(photo, PHOTO_PIXELS),
        "crop": {"height": min(down, 1.0), "width": min(right, 1.0)},
        "lost": max(0.0, 1 - seen),
        "edge": steps.shortest_edge,
        "resized": [round(side) for side in resized],
        "keeps_shape": steps.shortest_edge is not None,
    }


def seen_input(photo: np.ndarray, values: torch.Tensor, steps: Preprocessing) -> dict[str, Any]:
    """Show what the network gets, and its numbers (1, 3, height, width) after normalising.

    `src` has its pixels; `sharp` is the same part of the photograph with more of them, to draw on.
    """
    return {
        "src": png_url(_picture(steps.crop(photo))),
        "sharp": jpeg_url(_picture(_enlarged(steps, photo.shape).crop(photo))),
        "height": steps.height,
        "width": steps.width,
        "numbers": values.numel(),
        "least": float(values.min()),
        "mean": float(values.mean()),
        "most": float(values.max()),
        "image_mean": [round(each, 4) for each in steps.image_mean],
        "image_std": [round(each, 4) for each in steps.image_std],
        "rescale": steps.rescale_factor,
        "resample": steps.resample,
    }


def _picture(pixels: torch.Tensor) -> np.ndarray:
    return pixels.permute(1, 2, 0).contiguous().numpy()


def _enlarged(steps: Preprocessing, shape: tuple[int, ...]) -> Preprocessing:
    """Make the same cut with a whole number of times as many pixels, as far as the photograph has them."""
    there = min(shape[:2]) / (steps.shortest_edge or max(steps.height, steps.width))
    times = max(1, min(round(SHARP_PIXELS / max(steps.height, steps.width)), round(there)))
    resized = steps.resized and tuple(times * side for side in steps.resized)
    edge = steps.shortest_edge and times * steps.shortest_edge
    return replace(
        steps,
        height=times * steps.height,
        width=times * steps.width,
        shortest_edge=edge,
        resized=resized,
    )


def answers(
    subject: Subject, photo: np.ndarray, labels: list[str], language: str | None
) -> tuple[dict[str, Any], torch.Tensor]:
    """Ask a network what the photograph shows, and why.

    Args:
        labels: those that were asked for, beside the answer and the runner-up.
        language: of the names.

    Returns:
        JSON values: "ranked" (the five best rows), "why" (a map for each label), "decision" (what
        `abstain` and `not_food` say where the model has the numbers), "temperature" (None: none), "function"
        (what makes probabilities of scores); and the values (1, 3, height, width) that it saw.

    Raises:
        UserError: an unknown label, or a network that cannot be explained.
    """
    model, steps = subject.network.model, subject.network.preprocessing
    values = steps.normalize(steps.crop(photo)[None], model.dtype)
    block = read_block(model.config)
    asking = FoodClassificationPipeline(model=model, image_processor=subject.network.processor)
    options = {
        "abstain": True if _has_threshold(block) else None,
        "not_food": True if block.get("not_food") else None,
    }
    known = model.config.id2label
    try:
        asked = labels_asked(model.config, labels or True, _names(block))
        said = asking(Image.fromarray(photo), top_k=len(known), language=language, **options)
        rows = said if isinstance(said, list) else said["labels"]
        numbers = {label: number for number, label in known.items()}
        first = [numbers[row["label"]] for row in rows[:2]]
        wanted = list(dict.fromkeys([*first, *asked]))
        with torch.inference_mode():
            logits = model(pixel_values=values).logits
        maps, method = explain(model, values, torch.tensor([wanted]), logits)
    except ValueError as error:
        raise UserError(f"{subject.name}: {error}") from error
    temperature = block.get("temperature")
    by_label = {row["label"]: row for row in rows}
    before = _before(logits[0], temperature)
    return (
        {
            "ranked": [{**row, "before": before[numbers[row["label"]]]} for row in rows[:5]],
            "temperature": temperature,
            "decision": None if isinstance(said, list) else _decision(said),
            "method": method,
            "function": "sigmoid" if _independent(model.config) else "softmax",
            "why": [
                {
                    **by_label[known[number]],
                    "map": shares(each.numpy()),
                    "small": by_label[known[number]]["score"] < SMALL,
                    "asked": number in asked,
                }
                for number, each in zip(wanted, maps[0], strict=True)
            ],
            "grid": {"rows": maps.shape[-2], "columns": maps.shape[-1]},
        },
        values,
    )


def _independent(config: Any) -> bool:
    """Say whether the labels do not exclude each other."""
    return config.num_labels == 1 or config.problem_type == "multi_label_classification"


def _has_threshold(block: Any) -> bool:
    return (block.get("thresholds") or {}).get("0.95") is not None


def _names(block: Any) -> list[dict[str, str]]:
    return list((block.get("names") or {}).values())


def _decision(said: dict[str, Any]) -> dict[str, Any]:
    return {key: said[key] for key in ("answered", "not_food")}


def _before(logits: torch.Tensor, temperature: float | None) -> list[float]:
    """Compute the probabilities before calibration, whose division is in the head's weights."""
    return (logits.double() * (temperature or 1.0)).softmax(-1).tolist()
