# SPDX-License-Identifier: Apache-2.0
"""Food classification pipeline, uploaded beside the weights with `food_images`, which it imports.

    from transformers import pipeline
    classify = pipeline(model="user/repo", revision="v1.0", trust_remote_code=True)
    classify("dinner.jpg", top_k=3)
    # [{"label": "apple_pie", "name": "Apple pie", "score": 0.97}, ...]

What it adds to the stock image-classification pipeline: it owns image loading, as `food_images`
describes it. Images stay uint8 until the model's device.

It imports the standard library, torch and transformers only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

import torch
from transformers import ImageClassificationPipeline

try:  # as code of a repository, and in this project
    from .food_images import (
        MAX_IMAGE_PIXELS,
        ImageSource,
        InvalidImageError,
        Preprocessing,
        decode_image,
    )
except ImportError:  # beside a program that has this folder on its path, as an endpoint's handler
    from food_images import (
        MAX_IMAGE_PIXELS,
        ImageSource,
        InvalidImageError,
        Preprocessing,
        decode_image,
    )


# Versions of transformers that gave the same answers: see docs/versions.md of the project.
TRIED_WITH = ("4.51.3", "4.57.6", "5.17.0", "5.23.0")


@dataclass(frozen=True)
class _Numbered:
    """One image of a list with its position, so that a complaint can say which one it is about."""

    position: int
    source: Any


class FoodClassificationPipeline(ImageClassificationPipeline):
    """Image classification that owns image loading; task key `food-classification`.

    Construction and call take `top_k` (at least 1, default 5), `function_to_apply` (as the stock
    pipeline) and `max_image_pixels`; `batch_size`, `device` and `num_workers` as every pipeline.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preprocessing = Preprocessing.from_processor(self.image_processor)

    def _sanitize_parameters(self, top_k=None, function_to_apply=None, max_image_pixels=None):
        for name, value in (("top_k", top_k), ("max_image_pixels", max_image_pixels)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        _, forward, postprocess = super()._sanitize_parameters(top_k, function_to_apply)
        preprocess = {} if max_image_pixels is None else {"max_image_pixels": max_image_pixels}
        return preprocess, forward, postprocess

    def __call__(self, inputs: ImageSource | Sequence[ImageSource], **kwargs: Any) -> list:
        """Label one image, or each image of a list, tuple or generator.

        Returns:
            For one image a list of at most `top_k` dictionaries, best first: `label` (as in
            `config.id2label`), `name` (readable) and `score`; for a list, a list of those; for a
            generator, an iterator of those.

        Raises:
            InvalidImageError: an input cannot be scored (its path or position is named).
        """
        if isinstance(inputs, (list, tuple)):
            if not inputs:
                raise InvalidImageError("the list of images is empty; give at least one")
            inputs = [_Numbered(i, source) for i, source in enumerate(inputs)]
        elif isinstance(inputs, GeneratorType):
            inputs = (_Numbered(i, source) for i, source in enumerate(inputs))
        elif inputs is None:
            raise InvalidImageError("None is not an image; give a path, bytes or a PIL image")
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self, image: Any, max_image_pixels: int = MAX_IMAGE_PIXELS
    ) -> dict[str, torch.Tensor]:
        """Decode, resize and crop one image: `pixel_values` uint8 (1, 3, height, width)."""
        numbered = isinstance(image, _Numbered)
        source = image.source if numbered else image
        try:
            pixels = self.preprocessing.crop(decode_image(source, max_image_pixels))
        except InvalidImageError as error:
            where = f"image {image.position} of the list" if numbered else "the image"
            if isinstance(source, (str, os.PathLike)):
                where = _shortened(os.fsdecode(source))
            raise InvalidImageError(f"{where}: {error}") from error
        return {"pixel_values": pixels[None]}

    def _forward(self, model_inputs: dict[str, torch.Tensor]):
        # The model's own dtype: transformers 4's pipelines have none under this name.
        pixels = self.preprocessing.normalize(model_inputs["pixel_values"], self.model.dtype)
        return self.model(pixel_values=pixels)

    def postprocess(self, model_outputs, function_to_apply=None, top_k=5) -> list[dict[str, Any]]:
        """Rank the labels of one image: {"label", "name", "score"}, best first."""
        ranked = super().postprocess(model_outputs, function_to_apply, top_k)
        return [
            {"label": row["label"], "name": readable_name(row["label"]), "score": row["score"]}
            for row in ranked
        ]


def _shortened(path: str) -> str:
    """Shorten a path to one line: it may be the whole of a photo in base64."""
    path = path if path.isprintable() else repr(path)[1:-1]
    return path if len(path) <= 200 else f"{path[:60]}...{path[-60:]}"


def readable_name(label: str) -> str:
    """Make a label readable: `baby_back_ribs` becomes `Baby back ribs`."""
    return label.replace("_", " ").strip().capitalize()
