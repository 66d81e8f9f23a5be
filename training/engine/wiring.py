"""Builds a trainer from a network, images and settings; lists the extensions that there are."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

from accelerate import PartialState

from training.common.errors import UserError
from training.data.splits import Splits
from training.engine.arguments import ADAPTERS
from training.engine.extension import Extension
from training.engine.extensions.average_last import AverageLast
from training.engine.extensions.averaging import MovingAverage
from training.engine.extensions.drop_path import DropPath
from training.engine.extensions.erasing import Erasing
from training.engine.extensions.layer_decay import LayerDecay
from training.engine.extensions.mixing import Mixing
from training.engine.lora import add_adapters
from training.engine.loss import Criterion
from training.engine.method import Method, WholeNetwork
from training.engine.trainer import FoodTrainer
from training.engine.training_arguments import FineTuningArguments, Settings
from training.evaluation.classification import FoodMetrics
from training.evaluation.metrics import SUMMARY
from training.input.batch import EpochSampler
from training.input.eval_images import evaluation_images
from training.input.train_images import TrainImages
from training.model.network import Network

logger = logging.getLogger(__name__)

# In the order in which they act: an image is erased before it is mixed.
EXTENSIONS: tuple[type[Extension], ...] = (
    LayerDecay,
    DropPath,
    Erasing,
    Mixing,
    MovingAverage,
    AverageLast,
)


def build_trainer(
    network: Network, splits: Splits, settings: Settings, eval_cache_gb: float = 0.0
) -> FoodTrainer:
    """Build the trainer of a recipe: network, images, method, extensions and metrics.

    Args:
        eval_cache_gb: limit of the cache in which the selection slice is decoded now; 0 keeps none,
            and the slice is decoded at each scoring.

    Raises:
        UserError: fewer training images than one global batch, nothing that selects, or a network
            that cannot do what the recipe asks.
    """
    check_trained(splits, settings.training)
    settings = lengthened(settings, len(splits.train))
    args = settings.training
    if args.gradient_checkpointing and not network.model.supports_gradient_checkpointing:
        raise UserError(
            f"gradient_checkpointing: {type(network.model).__name__} does not support it; leave it out"
        )
    method = build_method(network, settings)
    built = [kind.build(network, settings) for kind in EXTENSIONS]
    extensions = [extension for extension in built if extension is not None]
    draws = [each.draws for each in extensions if each.draws is not None]
    preprocessing, seed = network.preprocessing, args.order_seed
    return FoodTrainer(
        network=network,
        method=method,
        extensions=extensions,
        offered={kind: vars(settings.extensions).get(kind.key) for kind in EXTENSIONS},
        criterion=Criterion.of(settings),
        args=args,
        sampler=EpochSampler(len(splits.train), args.total_train_batch_size, seed),
        train_dataset=TrainImages(splits.train, preprocessing, settings.augmentation, seed, draws),
        eval_dataset=evaluation_images(splits.selection, preprocessing, eval_cache_gb),
        processing_class=network.processor,  # for FSDP and DeepSpeed, whose files Trainer writes
        compute_metrics=selection_metrics(),
    )


def lengthened(settings: Settings, num_images: int) -> Settings:
    """Replace the epochs of a recipe by its `min_steps`, where so few images make fewer; say so."""
    args, an_epoch = settings.training, num_images // settings.training.total_train_batch_size
    changed = args.lengthened(an_epoch)
    if changed is args:
        return settings
    if PartialState().is_main_process:
        logger.info(
            f"min_steps {args.min_steps}: {changed.epochs(an_epoch):g} epochs of {an_epoch} steps, not "
            f"{args.num_train_epochs:g}"
        )
    return dataclasses.replace(settings, training=changed)


def build_method(network: Network, settings: Settings) -> Method:
    """Build the `Method` of the last phase: LoRA's adapters, or training of all weights."""
    if settings.method.tuning.trains == ADAPTERS:
        return add_adapters(network, settings)
    return WholeNetwork(network, settings.method.tune)


def selection_metrics() -> Any:
    """Make Trainer's `compute_metrics`, which maps each name of `SUMMARY` to its value."""
    metrics = FoodMetrics()

    def compute_metrics(prediction: Any) -> dict[str, float]:
        result = metrics.compute(
            predictions=prediction.predictions, references=prediction.label_ids
        )
        return {key: result[key] for key in SUMMARY}

    return compute_metrics


def check_trained(splits: Splits, args: FineTuningArguments) -> None:
    """Refuse too few training images for one global batch.

    Raises:
        UserError: there are fewer than one global batch.
    """
    images = len(splits.train)
    if images < args.total_train_batch_size:
        raise UserError(
            f"total_train_batch_size {args.total_train_batch_size} is more than the {images} training "
            f"images: give --total_train_batch_size {2 ** int(math.log2(images))}"
        )
