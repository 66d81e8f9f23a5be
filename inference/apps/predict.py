"""TODO."""

from __future__ import annotations

from typing import Any

from training.common.errors import UserError
from training.model.network import model_folder


def predict_images(
    model: str, images: list[str], top_k: int, revision: str | None, batch_size: int
) -> list[tuple[str, list[dict[str, Any]]]]:
    """(path, ranked labels) of each image, by the food pipeline that is installed here.

    Raises:
        UserError: no such model, or an image that cannot be scored.
    """
    from inference.food_classification import FoodClassificationPipeline, InvalidImageError
    from training.model.network import load_network

    network = load_network(model_folder(model) or model, revision)
    classify = FoodClassificationPipeline(model=network.model, image_processor=network.processor)
    try:
        return list(zip(images, classify(images, top_k=top_k, batch_size=batch_size), strict=True))
    except InvalidImageError as error:
        raise UserError(str(error)) from error
