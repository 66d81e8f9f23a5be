# SPDX-License-Identifier: Apache-2.0
"""Food classification pipeline, uploaded beside the weights with the five files that it imports.

    from transformers import pipeline
    classify = pipeline(model="user/repo", revision="v1.0", trust_remote_code=True)
    classify("dinner.jpg", top_k=3)
    # [{"label": "apple_pie", "name": "Apple pie", "score": 0.97}, ...]
    classify("dinner.jpg", top_k=3, language="ko")  # "name": "애플파이"
    classify("dinner.jpg", abstain=True)  # {"labels": [...], "answered": True, ...}
    classify("dinner.jpg", explain=True)["explanation"]["overlay"].show()

What it adds to the stock image-classification pipeline: it owns image loading, as `food_images`
describes it, says how sure it is, as `food_answers` does, what may be no food, by
`food_distance`, and which parts of a picture its answer rests on, by `food_explain`, which is loaded
only where that is asked. Images stay uint8 until the model's device.

It imports the standard library, numpy, torch and transformers only, and safetensors with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import ImageClassificationPipeline

try:  # as code of a repository, and in this project
    from .food_answers import (
        EMPTY,
        AnswerOptions,
        answer,
        names_in,
        options_of,
        own_block,
        probabilities,
        readable_name,
        unreadable,
    )
    from .food_distance import distance_of, entering, file_of, threshold_of
    from .food_images import MAX_IMAGE_PIXELS, InvalidImageError, Preprocessing, decode_image
    from .food_inputs import opened, reason
except ImportError:  # beside a program that has this folder on its path, as an endpoint's handler
    from food_answers import (
        EMPTY,
        AnswerOptions,
        answer,
        names_in,
        options_of,
        own_block,
        probabilities,
        readable_name,
        unreadable,
    )
    from food_distance import distance_of, entering, file_of, threshold_of
    from food_images import MAX_IMAGE_PIXELS, InvalidImageError, Preprocessing, decode_image
    from food_inputs import opened, reason

# Versions of transformers that gave the same answers: see docs/versions.md of the project.
TRIED_WITH = ("4.51.3", "4.57.6", "5.17.0", "5.23.0")

# The files of code that belong together.
CODE = (
    "food_classification.py",
    "food_answers.py",
    "food_distance.py",
    "food_explain.py",
    "food_images.py",
    "food_inputs.py",
)

# Not given at all, where None takes back what construction was given.
UNSAID: Any = object()

# What a config.json says of this file, so that `pipeline(model=..., trust_remote_code=True)` finds it.
CUSTOM_PIPELINES = {
    "food-classification": {
        "impl": "food_classification.FoodClassificationPipeline",
        "pt": ["AutoModelForImageClassification"],
    }
}


class FoodClassificationPipeline(ImageClassificationPipeline):
    """Image classification that owns image loading; task key `food-classification`.

    Construction and call take, beside what every pipeline takes (`batch_size`, `device`,
    `num_workers`):
        top_k: at least 1, default 5.
        function_to_apply: as the stock pipeline.
        max_image_pixels: limit on width x height of an image.
        on_error: "raise" (default), or "return": an image that cannot be scored is answered by
            [{"error": "one line"}], and the others as ever.
        language: of `name`, one of those that the model has names in; default: "en" where it has
            them, else the label in readable form, which also stands for a name that is lacking.
        abstain: True, or an accuracy whose threshold is stored in the model: `answered` says whether
            the model is sure enough to be right that often; True is 0.95. False: not asked.
        coverage: 0.5 to 0.99: `set` holds the right label that often.
        not_food: True, or a share of real food that may be refused (0.05 is True's): `not_food` says
            whether the picture is too far from food. A dish that the model does not know is not told
            by it. False: not asked.
        explain: True, a label or a list of labels: `explanation` is the row of the best label, or of
            those, with `map`, `overlay` and `method`, see `food_explain`. False: not asked.
        timeout: without effect, since nothing is fetched; the stock pipeline has it.

    A call goes over construction. None at a call takes `language`, `abstain`, `coverage`, `not_food`
    and `explain` back; for the others, as in the stock pipeline, it is what construction said.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preprocessing = Preprocessing.from_processor(self.image_processor)

    def _sanitize_parameters(
        self,
        top_k=None,
        function_to_apply=None,
        max_image_pixels=None,
        on_error=None,
        timeout=None,
        language=UNSAID,
        abstain=UNSAID,
        coverage=UNSAID,
        not_food=UNSAID,
        explain=UNSAID,
    ):
        for name, value in (("top_k", top_k), ("max_image_pixels", max_image_pixels)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if on_error not in (None, "raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", not {on_error!r}')
        _, forward, postprocess = super()._sanitize_parameters(top_k, function_to_apply)
        own = {"language": language, "abstain": abstain, "coverage": coverage}
        postprocess |= {name: value for name, value in own.items() if value is not UNSAID}
        # With what was given at construction, which a call's go over: refused before any image.
        whole = {**getattr(self, "_postprocess_params", {}), **postprocess}
        names_in(self.model.config, whole.get("language"))  # refuses one that is not there
        self._options(*(whole.get(name) for name in ("function_to_apply", "abstain", "coverage")))
        if not_food is None or not_food is False:
            postprocess["farthest"] = forward["not_food"] = None
        elif not_food is not UNSAID:
            block = own_block(self.model.config)
            postprocess["farthest"] = threshold_of(block, not_food)
            forward["not_food"] = block["not_food"]
        if explain is not UNSAID:
            forward["explain"], postprocess["explain"] = None, explain
            if explain is not None and explain is not False:
                names = (own_block(self.model.config).get("names") or {}).values()
                forward["explain"] = _explaining().labels_asked(self.model.config, explain, names)
        given = {"max_image_pixels": max_image_pixels, "on_error": on_error}
        preprocess = {name: value for name, value in given.items() if value is not None}
        return preprocess, forward, postprocess

    def __call__(self, inputs: Any = None, **kwargs: Any) -> list | Iterator:
        """Label one image, or each of several.

        An image: a path, encoded bytes, a file opened for reading bytes, base64 as text or in a
        data: URL, a PIL image, a uint8 array. Several: a sequence of them (list, tuple, a column of
        `datasets`, which is read one by one), an array (n, height, width, 3), a torch Dataset (as
        transformers' KeyDataset), or anything else to iterate over.

        Returns:
            For one image a list of at most `top_k` dictionaries, best first: `label` (as in
            `config.id2label`), `name` (readable) and `score`; with `abstain`, `coverage` or
            `not_food` a dictionary with that list as `labels`, and `answered`, `set` and `not_food`,
            None where not asked for; one that cannot be scored has no labels, and `error` (`on_error`).
            For a sequence or array, a list of those; for a dataset, generator or other iterable, an
            iterator of those.

        Raises:
            InvalidImageError: an input cannot be scored (its path or position is named).
        """
        if "images" in kwargs:  # its name in older versions of the stock pipeline
            inputs = kwargs.pop("images")
        if inputs is None:
            raise InvalidImageError("None is not an image; give a path, bytes or a PIL image")
        if isinstance(inputs, Dataset) and not isinstance(inputs, IterableDataset):
            return super().__call__(_Items(inputs), **kwargs)
        if _is_one_image(inputs):
            return super().__call__(inputs, **kwargs)
        if not isinstance(inputs, (Sequence, np.ndarray)):
            return super().__call__(_Stream(inputs), **kwargs)
        if not len(inputs):
            raise InvalidImageError("the list of images is empty; give at least one")
        return list(super().__call__(_Items(inputs), **kwargs))

    def preprocess(
        self, image: Any, max_image_pixels: int = MAX_IMAGE_PIXELS, on_error: str = "raise"
    ) -> dict[str, Any]:
        """Decode, resize and crop one image: `pixel_values` uint8 (1, 3, height, width).

        With on_error="return" there is `error` too: a line, or None; an image with a line is black.
        """
        each = image if isinstance(image, _Numbered) else _Numbered(None, image)
        try:
            pixels, error = self._pixels(each, max_image_pixels), None
        except InvalidImageError as raised:
            if on_error == "raise":
                raise
            size = (3, self.preprocessing.height, self.preprocessing.width)
            pixels, error = torch.zeros(size, dtype=torch.uint8), str(raised)
        found = {"pixel_values": pixels[None]}
        return found if on_error == "raise" else {**found, "error": error}

    def _pixels(self, image: _Numbered, max_image_pixels: int) -> torch.Tensor:
        where = "the image" if image.position is None else f"image {image.position} of the list"
        try:
            if image.failure is not None:
                raise InvalidImageError(
                    f"cannot be read ({reason(image.failure)}); mend the data set, or leave it out"
                )
            name, source = opened(image.source)
            where = name or where + (", read as base64" if isinstance(image.source, str) else "")
            return self.preprocessing.crop(decode_image(source, max_image_pixels))
        except InvalidImageError as error:
            raise InvalidImageError(f"{where}: {error}") from error

    def _forward(
        self,
        model_inputs: dict[str, Any],
        not_food: Mapping[str, Any] | None = None,
        explain: tuple[int, ...] | None = None,  # labels; (): the best one; None: not asked for
    ):
        # The model's own dtype: transformers 4's pipelines have none under this name.
        pixels = self.preprocessing.normalize(model_inputs["pixel_values"], self.model.dtype)
        if not_food is None:
            found, outputs = {}, self.model(pixel_values=pixels)
        else:
            measure = distance_of(self.model.config, not_food)
            with entering(self.model, not_food["head"]) as seen:
                outputs = self.model(pixel_values=pixels)
            found = {"distance": torch.from_numpy(measure(seen[0]))}
        if explain is not None:
            uint8 = model_inputs["pixel_values"]
            found |= _explaining().explanation_of(
                self.model, uint8, pixels, outputs.logits, explain
            )
        if "error" in model_inputs:
            found["error"] = model_inputs["error"]
        return {"logits": outputs.logits, **found} if found else outputs

    def postprocess(
        self,
        model_outputs,
        function_to_apply=None,
        top_k=5,
        language=None,
        abstain=None,
        coverage=None,
        farthest=None,  # the greatest distance of food; None: not asked for
        explain=None,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Rank the labels of one image: {"label", "name", "score"}, best first; or see `answer`."""
        options = self._options(function_to_apply, abstain, coverage)
        explained = explain is not None and explain is not False
        plain = options is None and farthest is None and not explained
        if error := model_outputs.get("error"):
            row = [{"error": error}] if plain else unreadable(error)
            return {**row, "explanation": None} if explained else row
        known = self.model.config.id2label
        wanted = top_k if options is None and not explained else len(known)
        ranked = super().postprocess(model_outputs, function_to_apply, wanted)
        labels = self._named(ranked, language)
        if plain:
            return labels
        if options is None:
            found = {**EMPTY, "labels": labels[:top_k]}
        else:
            chances = probabilities(model_outputs["logits"][0].float().numpy())
            by_label = {known[i]: chance for i, chance in enumerate(chances)}
            found = answer(labels, by_label, options, top_k)
        if farthest is not None:
            found["not_food"] = float(model_outputs["distance"]) > farthest
        if explained:
            maps = _explaining().described(model_outputs, labels, self.model.config)
            found["explanation"] = maps if isinstance(explain, (list, tuple)) else maps[0]
        return found

    def _options(self, function: Any, abstain: Any, coverage: Any) -> AnswerOptions | None:
        """Look up what an answer is asked beside labels; None: nothing."""
        config = self.model.config
        if function is None:  # as the stock pipeline decides
            single = config.problem_type in (None, "single_label_classification")
            function = "softmax" if single and config.num_labels > 1 else "sigmoid"
        name = getattr(function, "value", function)
        return options_of(own_block(config), abstain, coverage, name)

    def _named(self, ranked: list[dict[str, Any]], language: str | None) -> list[dict[str, Any]]:
        names = names_in(self.model.config, language)
        return [
            {
                "label": label,
                "name": names.get(label) or readable_name(label),
                "score": row["score"],
            }
            for row in ranked
            for label in (row["label"],)
        ]

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save weights, processor and this code, so that the folder loads as this pipeline again.

        transformers itself leaves the code out where the pipeline was loaded with it.

        Raises:
            ValueError: the model's config speaks of a file of `food_distance` that cannot be read.
        """
        if kwargs.get("push_to_hub"):  # the model's files would go, and the code stay here
            raise ValueError("push_to_hub=True leaves the code out: call push_to_hub(repo) instead")
        files = [Path(__file__).with_name(name) for name in CODE]
        if "not_food" in own_block(self.model.config):
            files.append(file_of(self.model.config))
        # Read first: it may be saved where it came from.
        contents = {path.name: path.read_bytes() for path in files}
        # Loading has put classes in the place of names, which are no JSON.
        self.model.config.custom_pipelines = json.loads(json.dumps(CUSTOM_PIPELINES))
        super().save_pretrained(save_directory, *args, **kwargs)
        for name, content in contents.items():
            (Path(save_directory) / name).write_bytes(content)


def _explaining() -> SimpleNamespace:
    """Import what is needed of `food_explain`, where an answer is to be explained."""
    try:  # in this form, by which transformers finds the files that belong to this one
        from .food_explain import described, explanation_of, labels_asked
    except ImportError:
        from food_explain import described, explanation_of, labels_asked
    return SimpleNamespace(
        described=described, explanation_of=explanation_of, labels_asked=labels_asked
    )


# ---- several images -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbered:
    """One image of several with its position, so that a complaint can say which one it is about."""

    position: int | None
    source: Any
    failure: Exception | None = None  # the data set raised it instead of giving an image


class _Items(Dataset):
    """What has a length and is asked for its images by number, one at a time."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> _Numbered:
        try:
            return _Numbered(position, self.images[position])
        except Exception as error:  # `datasets` decodes here, and raises anything
            return _Numbered(position, None, error)


class _Stream(IterableDataset):
    """What can only be iterated over."""

    def __init__(self, images: Iterable[Any]) -> None:
        self.images = images

    def __iter__(self) -> Iterator[_Numbered]:
        for position, source in enumerate(self.images):
            yield _Numbered(position, source)


def _is_one_image(inputs: Any) -> bool:
    """Say whether inputs is one image, or what shall be refused as one, and not several."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim != 4
    # Each of them can be iterated over, and is not meant to be.
    one = isinstance(inputs, (str, bytes, bytearray, memoryview, Mapping, torch.Tensor))
    return one or hasattr(inputs, "read") or not isinstance(inputs, Iterable)
