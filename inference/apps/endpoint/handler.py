# SPDX-License-Identifier: Apache-2.0
"""Handler for a Hugging Face Inference Endpoint, uploaded beside the weights and the pipeline's code.

    from handler import EndpointHandler
    answer = EndpointHandler("folder of the release")
    answer({"inputs": "iVBORw0KGgo...", "parameters": {"top_k": 3}})
    # [{"label": "apple_pie", "name": "Apple pie", "score": 0.97}, ...]
    answer({"inputs": "iVBORw0KGgo...", "parameters": {"abstain": True, "coverage": 0.9}})
    # {"labels": [...], "answered": True, "set": [...], "not_food": None}
    answer({"inputs": "iVBORw0KGgo...", "parameters": {"not_food": True}})
    # {"labels": [...], "answered": None, "set": None, "not_food": False}

The endpoint's own default hands text to the stock pipeline, which downloads any URL. This handler fetches
nothing and reads no file but those of the release: text is an image in base64, or it is refused. It
stands on `food_images`, `food_answers`, `food_distance` and the bare model, whatever the pipelines of
transformers are like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import AutoModelForImageClassification

# `from transformers import AutoImageProcessor` raises without torchvision on transformers 5.17.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

try:  # as the endpoint does: this folder is on the path
    from food_answers import (
        EMPTY,
        AnswerOptions,
        answer,
        names_in,
        options_of,
        own_block,
        probabilities,
        readable_name,
    )
    from food_distance import distance_of, entering, threshold_of
    from food_images import InvalidImageError, Preprocessing, decode_image
    from food_inputs import from_base64, from_data_url
except ImportError:  # as a part of this project
    from inference.food_answers import (
        EMPTY,
        AnswerOptions,
        answer,
        names_in,
        options_of,
        own_block,
        probabilities,
        readable_name,
    )
    from inference.food_distance import distance_of, entering, threshold_of
    from inference.food_images import InvalidImageError, Preprocessing, decode_image
    from inference.food_inputs import from_base64, from_data_url

BATCH = 16  # images of one request that go through the network at once
FUNCTIONS = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
KNOWN = ("top_k", "function_to_apply", "language", "abstain", "coverage", "not_food")  # parameters


class Asked(NamedTuple):  # a dataclass needs its module in sys.modules, where the toolkit puts none
    """What the parameters of a request ask for."""

    top_k: int
    function: Callable[[torch.Tensor], torch.Tensor]
    names: Mapping[str, str]
    options: AnswerOptions | None
    farthest: float | None  # the greatest distance of food; None: not asked for


class EndpointHandler:
    """Answers requests; whatever is wrong with one is a ValueError of one line, which the client gets."""

    def __init__(self, path: str = "") -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForImageClassification.from_pretrained(path, use_safetensors=True)
        self.model = model.to(self.device).eval()
        self.preprocessing = Preprocessing.from_processor(AutoImageProcessor.from_pretrained(path))

    def __call__(self, data: dict[str, Any]) -> list | dict[str, Any]:
        """Label the image of a request, or each image of its list.

        Args:
            data: `inputs`: a PIL image (what the container makes of a body of type image/...), base64
                as text or in a data: URL, or a list of these; `parameters`: `top_k` (default 5),
                `function_to_apply` ("softmax", "sigmoid" or "none"; default by the model's config),
                `language`, `abstain`, `coverage` and `not_food` as the food pipeline has them.

        Returns:
            For one image a list of at most `top_k` dictionaries, best first: `label`, `name`
            (readable), `score`; with `abstain`, `coverage` or `not_food` the dictionary of
            `food_answers`; for a list, a list of those.

        Raises:
            ValueError: an input or parameter is not as above; the line says which, and the cure.
        """
        if not isinstance(data, dict) or data.get("inputs") is None:
            raise ValueError('the request has no "inputs"; send an image, or {"inputs": "base64"}')
        inputs = data["inputs"]
        asked = self._parameters(data.get("parameters"))
        many = isinstance(inputs, (list, tuple))
        images = inputs if many else [inputs]
        if not images:
            raise InvalidImageError("the list of images is empty; give at least one")
        named = [f"image {i} of the list" for i in range(len(images))] if many else ["the image"]
        pixels = torch.stack([self._pixels(*pair) for pair in zip(images, named, strict=True)])
        answers = []
        for batch in pixels.split(BATCH):
            outputs = zip(*self._outputs(batch, asked), strict=True)
            answers += [self._answer(*each, asked) for each in outputs]
        return answers if many else answers[0]

    def _parameters(self, parameters: Any) -> Asked:
        """Check the parameters; those of a query are text, "3" for 3."""
        given = {} if parameters is None else parameters
        if not isinstance(given, dict) or not given.keys() <= set(KNOWN):
            odd = sorted(map(str, given.keys() - set(KNOWN))) if isinstance(given, dict) else given
            raise ValueError(f"parameters {_short(odd)}: unknown; give {', '.join(KNOWN)}")
        top_k = given.get("top_k")
        top_k = 5 if top_k is None else top_k
        if isinstance(top_k, str) and top_k.isascii() and top_k.isdigit():
            top_k = int(top_k)
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise ValueError(f"top_k must be a whole number of at least 1, not {_short(top_k)}")
        name = given.get("function_to_apply")
        if name is None:
            multiple = self.model.config.problem_type == "multi_label_classification"
            name = "sigmoid" if multiple else "softmax"
        if not isinstance(name, str) or name.lower() not in FUNCTIONS:
            raise ValueError(
                f"function_to_apply must be one of {', '.join(FUNCTIONS)}, not {_short(name)}"
            )
        config, name = self.model.config, name.lower()
        options = options_of(
            own_block(config),
            _of_query(given.get("abstain")),
            _of_query(given.get("coverage")),
            name,
        )
        names = names_in(config, given.get("language"))
        farthest = self._farthest(_of_query(given.get("not_food")))
        return Asked(top_k, FUNCTIONS[name], names, options, farthest)

    def _farthest(self, not_food: Any) -> float | None:
        """Look up the distance beyond which a picture is no food, and read what it is measured by."""
        if not_food is None or not_food is False:
            return None
        block = own_block(self.model.config)
        farthest = threshold_of(block, not_food)
        distance_of(self.model.config, block["not_food"])  # a file that is wrong: before any image
        return farthest

    def _pixels(self, source: Any, name: str) -> torch.Tensor:
        try:
            return self.preprocessing.crop(decode_image(_image(source)))
        except InvalidImageError as error:
            raise InvalidImageError(f"{name}: {error}") from error

    def _outputs(
        self, pixels: torch.Tensor, asked: Asked
    ) -> tuple[torch.Tensor, Sequence[float | None]]:
        """Run the network: logits (n, num_classes), and n distances from food, None where not asked for."""
        with torch.inference_mode():
            values = self.preprocessing.normalize(pixels.to(self.device), self.model.dtype)
            if asked.farthest is None:
                distances = [None] * len(pixels)
                logits = self.model(pixel_values=values).logits
            else:
                facts = own_block(self.model.config)["not_food"]
                with entering(self.model, facts["head"]) as seen:
                    logits = self.model(pixel_values=values).logits
                distances = distance_of(self.model.config, facts)(seen[0]).tolist()
        return logits.float().cpu(), distances

    def _answer(
        self, logits: torch.Tensor, distance: float | None, asked: Asked
    ) -> list | dict[str, Any]:
        if asked.options is None:
            rows = self._rows(asked.function(logits), asked.top_k, asked.names)
            if asked.farthest is None:
                return rows
            found = {**EMPTY, "labels": rows}
        else:
            found = self._decided(logits, asked)
        if asked.farthest is not None:
            found["not_food"] = distance > asked.farthest
        return found

    def _decided(self, logits: torch.Tensor, asked: Asked) -> dict[str, Any]:
        labels = self.model.config.id2label
        chances = {labels[i]: chance for i, chance in enumerate(probabilities(logits.numpy()))}
        ranked = self._rows(asked.function(logits), len(labels), asked.names)
        return answer(ranked, chances, asked.options, asked.top_k)

    def _rows(
        self, scores: torch.Tensor, top_k: int, names: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        values, indices = scores.topk(min(top_k, len(scores)))
        labels = [self.model.config.id2label[index] for index in indices.tolist()]
        return [
            {"label": label, "name": names.get(label) or readable_name(label), "score": score}
            for label, score in zip(labels, values.tolist(), strict=True)
        ]


def _of_query(value: Any) -> Any:
    """Read "true", "false" and numbers of a query, which are text; anything else stays as it is."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return float(value)
    except ValueError:
        return value


def _image(source: Any) -> Image.Image | bytes:
    """Bring one input to pixels or encoded bytes; text never names a file or an address here."""
    if isinstance(source, (Image.Image, bytes, bytearray)):
        return source
    if not isinstance(source, str):
        kind = type(source).__name__
        raise InvalidImageError(f"a {kind} is not an image; send the image's file in base64")
    if source[:5].lower() == "data:":
        return from_data_url(source)
    if "://" in source:
        raise InvalidImageError(
            f"{_short(source)}: URLs are not fetched; send the image's file in base64"
        )
    data = from_base64(source)
    if not data:
        raise InvalidImageError(
            f"{_short(source)} is not an image in base64; send the whole file, without line breaks"
        )
    return data


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:60]}...{text[-60:]}"
