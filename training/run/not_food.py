"""The stage of a run that fits what tells pictures without food, where the recipe asks for it."""

from __future__ import annotations

import logging

import numpy as np
from accelerate import PartialState

from training.common.errors import UserError
from training.common.files import read_json, write_json
from training.config.recipe import Recipe
from training.data.splits import Split, Splits
from training.evaluation.features import check_head, image_features, kept_features
from training.evaluation.trust.not_food import NotFood, rows_to_fit, settle, too_few
from training.model.config_block import merge_block
from training.model.head import head_of
from training.model.network import Network, load_network
from training.run.folder import Run

logger = logging.getLogger(__name__)

# What a network without a linear head is refused for, and the cure: see `check_head`.
OF_NOT_FOOD = "not_food", "give another model, or leave not_food out"


def check_not_food(recipe: Recipe, network: Network, splits: Splits) -> None:
    """Refuse, before training, what `fit_not_food` could not do afterwards.

    Raises:
        UserError: the recipe asks for not_food, and the network has no linear head, or there are too
            few images.
    """
    if not recipe.trust.not_food:
        return
    check_head(network, *OF_NOT_FOOD)
    labels = np.asarray(splits.originals.dataset["label"][:])
    # Those that are test images too are not held out.
    held_out = ~np.isin(splits.selection.content, splits.test.content)
    if lack := too_few(labels, len(splits.label_names), int(held_out.sum())):
        raise UserError(f"{lack}: give more images, or leave not_food out")


def fit_not_food(run: Run, splits: Splits) -> None:
    """Write not_food.safetensors into model/ and its thresholds into the block of model/config.json.

    Nothing is done where the recipe does not ask for it. All processes call this together and share
    the work. The statistics are fitted on training images, the thresholds on those selection images
    that are not byte for byte test images too.

    Raises:
        UserError: an image has changed since it was checked.
    """
    if not run.recipe.trust.not_food:
        return
    with run.stage("not_food"):
        network = load_network(run.folder / "model")
        found = _settled(run, splits, network)
        PartialState().wait_for_everyone()  # all have read the folder
        if PartialState().is_main_process:
            folder = run.folder / "model"
            found.write(folder)
            config = read_json(folder / "config.json")
            merge_block(config, not_food=found.facts)
            write_json(folder / "config.json", config)
            logger.info(_said(found.facts, found.width))
        PartialState().wait_for_everyone()


def _settled(run: Run, splits: Splits, network: Network) -> NotFood:
    cache_gb, workers = run.recipe.data.eval_cache_gb, run.recipe.training.dataloader_num_workers
    train = splits.originals
    labels = np.asarray(train.dataset["label"][:])
    rows = rows_to_fit(labels, seed=run.recipe.training.seed)
    # A probe has kept those of all training images.
    features = kept_features(network, train, cache_gb)
    if features is not None:
        features = features[rows]
    else:
        features = image_features(network, _taken(train, rows), cache_gb, workers).numpy()
    held_out = image_features(network, splits.selection, cache_gb, workers).numpy()
    held_out = held_out[~np.isin(splits.selection.content, splits.test.content)]
    layer = head_of(network.model)
    (head,) = (name for name, module in network.model.named_modules() if module is layer)
    return settle(features, labels[rows], held_out, head, len(train))


def _taken(split: Split, rows: np.ndarray) -> Split:
    return split if len(rows) == len(split) else split.take(rows.tolist())


def _said(facts: dict, width: int) -> str:
    """Say in a line what was fitted on what, and what could not be."""
    of = f" of {facts['n_train']:,}" if facts["n_train"] > facts["n_fitted"] else ""
    lacking = [share for share, threshold in facts["thresholds"].items() if threshold is None]
    said = (
        f'"not food" fitted on {facts["n_fitted"]:,}{of} training images, thresholds from '
        f"{facts['n_held_out']:,} selection images"
    )
    if lacking:
        said += f"; too few of them to refuse only {' or '.join(lacking)} of food"
    if facts["n_fitted"] < 4 * width:
        said += (
            f"; few images for features {width} wide: covariance shrunk by {facts['shrinkage']:.1%}"
        )
    return said
