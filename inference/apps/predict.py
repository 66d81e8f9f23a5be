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
from inference.food_distance import distance_of
from inference.food_images import MAX_IMAGE_PIXELS, InvalidImageError, decode_image
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
        options: abstain, coverage, not_food and max_image_pixels, as the food pipeline takes them.

    Raises:
        UserError: no such model; it is there but cannot be loaded, has no names in this language or
            cannot say what the options ask for, where the first file is to be read.
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
    wanted: dict[str, Any],  # parameters of the food pipeline
) -> Iterator[Answer]:
    """Yield an answer for each of the images; see `predict_images`."""
    asked_for = progress = None
    images, done = iter(images), 0
    with ThreadPoolExecutor(min(batch_size, usable_cores())) as pool:
        while batch := list(itertools.islice(images, batch_size)):
            if asked_for is None and not all(asked.problem for asked in batch):
                asked_for = _Labelling.of(load_network(model, revision), wanted)
                progress = Progress(0)
            read = list(pool.map(functools.partial(_read, asked_for), batch))
            yield from _label(asked_for, batch, read)
            done += len(batch)
            if progress and progress.is_due(done):
                progress.total = progress.total or count() or 0
                _tell(progress)


@dataclass(frozen=True)
class _Labelling:
    """The pipeline, and what its steps are to be called with."""

    classify: FoodClassificationPipeline
    max_image_pixels: int
    forward: dict[str, Any]
    postprocess: dict[str, Any]

    @classmethod
    def of(cls, network: Network, wanted: dict[str, Any]) -> _Labelling:
        """Make the pipeline of a network.

        Raises:
            UserError: the network does not have what is asked for.
        """
        parts = {"model": network.model, "image_processor": network.processor}
        classify = FoodClassificationPipeline(**parts)
        try:
            preprocess, forward, postprocess = classify._sanitize_parameters(**wanted)
            if forward.get("not_food"):  # its file is read now: a person can mend what is wrong
                distance_of(network.model.config, forward["not_food"])
        except ValueError as error:
            raise UserError(str(error)) from error
        limit = preprocess.get("max_image_pixels", MAX_IMAGE_PIXELS)
        return cls(classify, limit, forward, postprocess)


def _read(asked_for: _Labelling | None, asked: Asked) -> torch.Tensor | str:
    """Decode and crop an image, uint8 (3, height, width); or say why not."""
    if asked.problem:
        return asked.problem
    try:
        pixels = decode_image(asked.path, asked_for.max_image_pixels)
        return asked_for.classify.preprocessing.crop(pixels)
    except InvalidImageError as error:
        return str(error)


def _label(
    asked_for: _Labelling | None,  # None: there is no image in the batch
    batch: list[Asked],
    read: list[torch.Tensor | str],
) -> Iterator[Answer]:
    """Yield the answers of one batch, in its order; the forward pass is of what could be read."""
    pixels = [each for each in read if isinstance(each, torch.Tensor)]
    outputs = {}
    if pixels:
        together = {"pixel_values": torch.stack(pixels)}
        outputs = asked_for.classify.forward(together, **asked_for.forward)
    rows = 0
    for asked, each in zip(batch, read, strict=True):
        if isinstance(each, str):
            yield Answer(asked.path, [], each)
            continue
        names = [name for name in ("logits", "distance") if name in outputs]
        one = {name: outputs[name][rows : rows + 1] for name in names}
        said = asked_for.classify.postprocess(one, **asked_for.postprocess)
        rows += 1
        if isinstance(said, dict):
            yield Answer(asked.path, said.pop("labels"), more=said)
        else:
            yield Answer(asked.path, said)


def _tell(progress: Progress) -> None:
    if progress.total > progress.done:  # else more has come since it was counted
        logger.info(
            "labelled %d of %d images, %.1f images/s, %.0f s left",
            progress.done, progress.total, progress.rate, progress.seconds_left,
        )  # fmt: skip
    else:
        logger.info("labelled %d images, %.1f images/s", progress.done, progress.rate)
