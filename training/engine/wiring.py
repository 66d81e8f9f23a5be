"""TODO."""

from __future__ import annotations

from typing import Any

from training.common.errors import UserError
from training.data.splits import Splits
from training.engine.arguments import FineTuningArguments
from training.engine.extensions.drop_path import add_drop_path
from training.engine.extensions.layer_decay import layer_ids
from training.engine.lora import add_adapters
from training.engine.trainer import FoodTrainer
from training.evaluation.classification import FoodMetrics
from training.evaluation.metrics import SUMMARY
from training.input.batch import EpochSampler, collate
from training.input.eval_images import evaluation_images
from training.input.train_images import TrainImages
from training.model.network import Network


def check_trained(splits: Splits, args: FineTuningArguments) -> None:
    """Refuse what no trainer could do.

    Raises:
        UserError: fewer training images than one global batch, or nothing that selects.
    """
    if len(splits.train) < args.total_train_batch_size:
        raise UserError(
            f"total_train_batch_size {args.total_train_batch_size} is more than the {len(splits.train)} "
            "training images; make it smaller"
        )
    chooses = (args.metric_for_best_model or "top1").removeprefix("eval_")
    if chooses not in (*SUMMARY, "loss"):
        raise UserError(
            f"metric_for_best_model is {chooses}: give one of {', '.join((*SUMMARY, 'loss'))}"
        )


def build_trainer(
    network: Network, splits: Splits, args: FineTuningArguments, eval_cache_gb: float = 0.0
) -> FoodTrainer:
    """Wire model, images and metrics together; the selection slice is decoded now, or at each use.

    Raises:
        UserError: fewer training images than one global batch, nothing that selects, or a network
            that cannot do what the recipe asks.
    """
    check_trained(splits, args)
    if args.gradient_checkpointing and not network.model.supports_gradient_checkpointing:
        raise UserError(
            f"gradient_checkpointing: {type(network.model).__name__} does not support it; leave it out"
        )
    adapters = add_adapters(network.model, args)
    if args.layer_decay != 1:
        layer_ids(network.model)  # refuses what it does not know
    drop_path = add_drop_path(network.model, args.drop_path)
    seed = args.seed if args.data_seed is None else args.data_seed
    images = TrainImages(
        splits.train, network.preprocessing, args.augmentation(), seed, drop_path.num_branches
    )
    metrics = FoodMetrics()

    def compute_metrics(prediction: Any) -> dict[str, float]:
        result = metrics.compute(
            predictions=prediction.predictions, references=prediction.label_ids
        )
        return {key: result[key] for key in SUMMARY}

    return FoodTrainer(
        model=network.model,
        args=args,
        preprocessing=network.preprocessing,
        processing_class=network.processor,
        sampler=EpochSampler(len(splits.train), args.total_train_batch_size, seed),
        drop_path=drop_path,
        adapters=adapters,
        train_dataset=images,
        eval_dataset=evaluation_images(splits.selection, network.preprocessing, eval_cache_gb),
        data_collator=collate,
        compute_metrics=compute_metrics,
    )
