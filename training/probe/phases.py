"""The two ways to use a linear probe: alone (`tune: linear_probe`), and before another phase."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import shutil
from pathlib import Path

from accelerate import PartialState
from safetensors.torch import load_file
from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from training.common.errors import UserError
from training.common.files import read_json
from training.data.splits import Splits
from training.engine.arguments import HEAD_ALONE
from training.engine.checkpoints import HEAD, PROBE, PROBE_RESULT
from training.engine.trainer import FoodTrainer
from training.engine.training_arguments import FineTuningArguments, Settings
from training.engine.wiring import build_trainer, check_trained
from training.evaluation.features import check_head
from training.model.head import head_of
from training.model.network import Network
from training.probe.arguments import ProbeArguments
from training.probe.heads import copy_head, refuse_shards
from training.probe.logistic_trainer import LogisticTrainer, log_strengths
from training.probe.solver import LOGISTIC, choose_solver, most_images
from training.probe.trainer import ProbeTrainer, log_rates, scaled_rate

logger = logging.getLogger(__name__)

NOT_ACTING = "keys about epochs, steps, batches and learning rates, label smoothing and metric_for_best_model"

# What a network without a linear head is refused for, and the cure: see `check_head`.
OF_A_PROBE = "a linear probe", "give another model, or tune full"

# Measured on 300 photographs: after 150 steps a head is 6 points behind logistic regression, after 1,500
# 4. 10 epochs of Food-101 in batches of 256 are 2,640.
FEW_STEPS = 1_000


def build_probe(
    network: Network,
    splits: Splits,
    settings: Settings,
    probe: ProbeArguments,
    eval_cache_gb: float = 0.0,
) -> ProbeTrainer | LogisticTrainer:
    """Build the trainer of a probe, by the solver that the recipe or the number of images chooses.

    Raises:
        UserError: nothing that selects, a network that has no linear head, a loss that the solver does
            not have, a label without an image, or fewer images than one global batch of SGD.
    """
    args, alone = settings.training, settings.method.tuning.trains == HEAD_ALONE
    num_images = len(splits.originals) + (len(splits.selection) if alone else 0)
    check_head(network, *OF_A_PROBE)
    most = most_images(len(splits.label_names), head_of(network.model).in_features)
    solver, why = choose_solver(probe, settings, num_images, most)
    changed = dataclasses.replace(settings, training=probe_arguments(args, probe))
    shared = eval_cache_gb, args.dataloader_num_workers
    if solver == LOGISTIC:
        trainer = LogisticTrainer(network, splits, changed, why, alone, *shared)
        _say(f"probe by logistic regression, since {why}; {NOT_ACTING} do not act in it")
    else:
        check_trained(splits, args)
        trainer = ProbeTrainer(network, splits, changed, probe, why, *shared)
        _say(f"probe by SGD heads, since {why}")
        warn_of_few_steps(trainer, "num_train_epochs" if alone else "probe_epochs")
    return trainer


def warn_of_few_steps(trainer: ProbeTrainer, key: str) -> None:
    """Warn where SGD heads take fewer steps than a linear head needs.

    Args:
        key: what sets their epochs, for the message.
    """
    args, an_epoch = trainer.args, trainer.sampler.steps_per_epoch
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * an_epoch)
    if steps < FEW_STEPS and PartialState().is_main_process:
        logger.warning(
            f"{steps:,} steps of SGD are few for a linear head: give --{key} "
            f"{math.ceil(FEW_STEPS / an_epoch)} for {FEW_STEPS:,}, or probe_solver logistic_regression"
        )


def _say(line: str) -> None:
    if PartialState().is_main_process:
        logger.info(line)


def build_after_probe(
    network: Network, splits: Splits, settings: Settings, eval_cache_gb: float = 0.0
) -> FoodTrainer:
    """Build the trainer of the phase after a probe, of all weights or of LoRA's adapters.

    Raises:
        UserError: as `build_probe`, so that nothing is trained that the first phase could not
            begin, or as `build_trainer`.
    """
    check_head(network, *OF_A_PROBE)
    trainer = build_trainer(network, splits, settings, eval_cache_gb)
    if trainer.is_sharded:
        refuse_shards(settings.method.tune)
    return trainer


def probe_first(
    network: Network,
    splits: Splits,
    settings: Settings,
    probe: ProbeArguments,
    *,
    eval_cache_gb: float,
    checkpoint: str | None,
    probe_checkpoint: str | None,
) -> None:
    """Go through the first phase of a method that has two: put a probed head into the network.

    The head is trained in probe/ of the run folder, found there when an interrupted run is resumed,
    or taken from beside the checkpoint of another folder.

    Args:
        network: without what the second phase adds to it.
        checkpoint: what the second phase resumes from; None begins with the first.
        probe_checkpoint: what the first phase resumes from; None begins it.

    Raises:
        UserError: as `build_probe`, or a checkpoint without a probe beside it.
    """
    folder = Path(settings.training.output_dir) / PROBE
    probed = folder if checkpoint is None else _beside(Path(checkpoint), settings.method.tune)
    if (probed / PROBE_RESULT).is_file():
        copy_head(load_file(probed / HEAD), network)  # refuses another's before anything is copied
        result = read_json(probed / PROBE_RESULT)
        (log_strengths if result.get("solver") == LOGISTIC else log_rates)(result)
        _take_over(probed, folder)
    else:
        first = first_phase(settings.training, probe, folder)
        changed = dataclasses.replace(settings, training=first)
        trainer = build_probe(network, splits, changed, probe, eval_cache_gb)
        trainer.train(resume_from_checkpoint=probe_checkpoint)
    # The second phase draws the same, whether or not there was a first one.
    set_seed(settings.training.seed)


def _beside(checkpoint: Path, tune: str) -> Path:
    source = checkpoint.parent / PROBE
    if not (source / PROBE_RESULT).is_file():
        raise UserError(
            f"resume_from_checkpoint {checkpoint}: there is no {PROBE}/{PROBE_RESULT} beside it, so it is "
            f"not of a run with tune {tune}"
        )
    return source


def _take_over(source: Path, folder: Path) -> None:
    if PartialState().is_main_process and source.resolve() != folder.resolve():
        folder.mkdir(parents=True, exist_ok=True)
        for name in (HEAD, PROBE_RESULT):
            shutil.copyfile(source / name, folder / name)
    PartialState().wait_for_everyone()


def first_phase(
    args: FineTuningArguments, probe: ProbeArguments, folder: Path
) -> FineTuningArguments:
    """Copy training arguments for a first phase: `probe_epochs` on a cosine without warm-up, into `folder`.

    It is scored each epoch, and its best heads are loaded at the end.
    """
    first = copy.copy(args)
    first.output_dir, first.num_train_epochs, first.max_steps = str(folder), probe.probe_epochs, -1
    first.lr_scheduler_type, first.warmup_steps = SchedulerType.COSINE, 0
    first.lr_scheduler_kwargs, first.early_stopping_patience = None, None
    first.eval_strategy, first.save_strategy = IntervalStrategy.EPOCH, SaveStrategy.EPOCH
    first.load_best_model_at_end = True
    return first


def probe_arguments(args: FineTuningArguments, probe: ProbeArguments) -> FineTuningArguments:
    """Copy training arguments with what a probe always has: SGD, float32, no decay, clipping or workers."""
    changed = copy.copy(args)
    changed.optim, changed.weight_decay, changed.max_grad_norm = OptimizerNames.SGD, 0.0, 0.0
    changed.learning_rate = scaled_rate(max(probe.probe_learning_rates), args)
    changed.tf32, changed.gradient_checkpointing = False, False
    if hasattr(changed, "activation_checkpointing"):
        changed.activation_checkpointing = False
    changed.dataloader_num_workers, changed.dataloader_prefetch_factor = 0, None
    changed.dataloader_persistent_workers = False
    return changed
