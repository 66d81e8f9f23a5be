"""Labels of a few image files by a finished model: what `food101 predict` prints."""

from __future__ import annotations

from typing import Any

from inference.food_classification import FoodClassificationPipeline, InvalidImageError
from training.common.errors import UserError
from training.model.network import load_network, model_folder


def predict_images(
    model: str, images: list[str], top_k: int, revision: str | None, batch_size: int
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Label image files with the food pipeline that is installed here.

    Args:
        model: a run or release folder, or a Hub id.
        images: paths of the files.
        top_k: how many labels of each.
        revision: commit, tag or branch on the Hub; None is the newest.

    Returns:
        (path, labels) of each image; the labels, best first, are {"label", "name", "score"}.

    Raises:
        UserError: no such model, or an image that cannot be scored.
    """
    network = load_network(model_folder(model) or model, revision)
    classify = FoodClassificationPipeline(model=network.model, image_processor=network.processor)
    try:
        return list(zip(images, classify(images, top_k=top_k, batch_size=batch_size), strict=True))
    except InvalidImageError as error:
        raise UserError(str(error)) from error
