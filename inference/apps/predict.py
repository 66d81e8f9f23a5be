"""Labels of any number of image files by a finished model: what `food101 predict` prints."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.apps.images import Asked
from inference.food_classification import FoodClassificationPipeline
from inference.food_images import InvalidImageError, decode_image
from training.common.errors import UserError
from training.common.machine import usable_cores
from training.common.progress import Progress
from training.model.network import Network, load_network, model_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the model says of an image, or why it says nothing."""

    image: str  # its path
    labels: list[dict[str, Any]]  # {"label", "name", "score"}, best first; [] with an error
    error: str | None = None  # one line: what is wrong and the cure
    # {"answered", "set", "not_food"}: what the pipeline says beside labels; None: nothing was asked for.
    more: dict[str, Any] | None = None


def predict_images(
    model: str,
    images: Iterable[Asked],
    top_k: int,
    revision: str | None,
    batch_size: int,
    count: Callable[[], int | None] = lambda: None,
    language: str | None = None,
    **options: Any,
) -> Iterator[Answer]:
    """Label image files with the food pipeline that is installed here, batch by batch.

    The model is loaded when the first file is to be read, and only a batch is in memory at a time.
    After ten seconds, and then now and again, a line is logged that says how far it has come.

    Args:
        model: a run or release folder, or a Hub id.
        images: what to label, in this order.
        top_k: how many labels of each.
        revision: commit, tag or branch on the Hub; None is the newest.
        batch_size: images at once.
        count: counts all the images, if it comes to telling the time that is left; None: unknown.
        language: of the names; None: English where the model has them, else its labels.
        options: abstain and coverage, as the food pipeline takes them.

    Raises:
        UserError: no such model; it is there but cannot be loaded, has no names in this language or
            cannot keep what the options ask for, where the first file is to be read.
    """
    folder = model_folder(model) or model
    wanted = {"top_k": top_k, "language": language, **options}
    return _answers(folder, images, revision, batch_size, count, wanted)


def _answers(
    model: str | Path,
    images: Iterable[Asked],
    revision: str | None,
    batch_size: int,
    count: Callable[[], int | None],
    wanted: dict[str, Any],  # of the food pipeline, which takes it at construction
) -> Iterator[Answer]:
    """Yield an answer for each of the images; see `predict_images`."""
    classify = progress = None
    images, done = iter(images), 0
    with ThreadPoolExecutor(min(batch_size, usable_cores())) as pool:
        while batch := list(itertools.islice(images, batch_size)):
            if classify is None and not all(asked.problem for asked in batch):
                network = load_network(model, revision)
                classify = _pipeline(network, wanted)
                progress = Progress(0)
            read = list(pool.map(functools.partial(_read, classify), batch))
            yield from _label(classify, batch, read, wanted)
            done += len(batch)
            if progress and progress.is_due(done):
                progress.total = progress.total or count() or 0
                _tell(progress)


def _pipeline(network: Network, wanted: dict[str, Any]) -> FoodClassificationPipeline:
    parts = {"model": network.model, "image_processor": network.processor}
    try:
        return FoodClassificationPipeline(**parts, **wanted)
    except ValueError as error:
        raise UserError(str(error)) from error


def _read(classify: FoodClassificationPipeline | None, asked: Asked) -> torch.Tensor | str:
    """Decode and crop an image, uint8 (3, height, width); or say why not."""
    if asked.problem:
        return asked.problem
    try:
        return classify.preprocessing.crop(decode_image(asked.path))
    except InvalidImageError as error:
        return str(error)


def _label(
    classify: FoodClassificationPipeline | None,  # None: there is no image in the batch
    batch: list[Asked],
    read: list[torch.Tensor | str],
    wanted: dict[str, Any],
) -> Iterator[Answer]:
    """Yield the answers of one batch, in its order; the forward pass is of what could be read."""
    pixels = [each for each in read if isinstance(each, torch.Tensor)]
    if pixels:
        logits = classify.forward({"pixel_values": torch.stack(pixels)})["logits"].split(1)
    rows = iter(logits if pixels else ())
    for asked, each in zip(batch, read, strict=True):
        if isinstance(each, str):
            yield Answer(asked.path, [], each)
        else:
            found = classify.postprocess({"logits": next(rows)}, **wanted)
            if isinstance(found, dict):
                yield Answer(asked.path, found.pop("labels"), more=found)
            else:
                yield Answer(asked.path, found)


def _tell(progress: Progress) -> None:
    if progress.total > progress.done:  # else more has come since it was counted
        logger.info(
            "labelled %d of %d images, %.1f images/s, %.0f s left",
            progress.done, progress.total, progress.rate, progress.seconds_left,
        )  # fmt: skip
    else:
        logger.info("labelled %d images, %.1f images/s", progress.done, progress.rate)
