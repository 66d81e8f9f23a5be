"""TODO."""

from __future__ import annotations

import copy
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
from training.engine.arguments import FineTuningArguments
from training.engine.checkpoints import HEAD, PROBE, PROBE_RESULT
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer, check_trained
from training.model.network import Network
from training.probe.features import check_head
from training.probe.heads import copy_head
from training.probe.trainer import ProbeTrainer, log_rates, refuse_shards, scaled_rate
from training.run.folder import Run

# ---- the two ways to use it ----------------------------------------------------------------------


def build_probe(
    network: Network, splits: Splits, args: FineTuningArguments, eval_cache_gb: float = 0.0
) -> ProbeTrainer:
    """The trainer of `tune: linear_probe`.

    Raises:
        UserError: fewer training images than one global batch, nothing that selects, or a network
            that has no linear head.
    """
    check_trained(splits, args)
    check_head(network)
    num_workers = args.dataloader_num_workers
    return ProbeTrainer(network, splits, probe_arguments(args), eval_cache_gb, num_workers)


def build_after_probe(
    network: Network, splits: Splits, args: FineTuningArguments, eval_cache_gb: float = 0.0
) -> FoodTrainer:
    """The trainer of the second phase of `tune: probe_then_full`; refuses what the first could not do.

    Raises:
        UserError: as `build_probe`, or as `build_trainer`.
    """
    check_head(network)
    trainer = build_trainer(network, splits, args, eval_cache_gb)
    refuse_shards(trainer)
    return trainer


def probe_first(run: Run, network: Network, splits: Splits) -> None:
    """The first phase of `tune: probe_then_full`: put a probed head into the network.

    It is trained in probe/, found there when an interrupted run is resumed, or taken from beside
    the checkpoint of another folder.

    Raises:
        UserError: as `build_probe`, or a checkpoint without a probe beside it.
    """
    folder, args = run.folder / PROBE, run.recipe.training
    probed = folder if run.checkpoint is None else _beside(Path(run.checkpoint))
    if (probed / PROBE_RESULT).is_file():
        copy_head(load_file(probed / HEAD), network)  # refuses another's before anything is copied
        log_rates(read_json(probed / PROBE_RESULT))
        _take_over(probed, folder)
    else:
        first = first_phase(args, folder)
        trainer = build_probe(network, splits, first, run.recipe.data.eval_cache_gb)
        trainer.train(resume_from_checkpoint=run.probe_checkpoint)
    set_seed(args.seed)  # the second phase draws the same, whether or not there was a first one


def _beside(checkpoint: Path) -> Path:
    source = checkpoint.parent / PROBE
    if not (source / PROBE_RESULT).is_file():
        raise UserError(
            f"resume_from_checkpoint {checkpoint}: there is no {PROBE}/{PROBE_RESULT} beside it, so it is "
            "not of a run with tune probe_then_full"
        )
    return source


def _take_over(source: Path, folder: Path) -> None:
    if PartialState().is_main_process and source.resolve() != folder.resolve():
        folder.mkdir(parents=True, exist_ok=True)
        for name in (HEAD, PROBE_RESULT):
            shutil.copyfile(source / name, folder / name)
    PartialState().wait_for_everyone()


def first_phase(args: FineTuningArguments, folder: Path) -> FineTuningArguments:
    """`probe_epochs` on a cosine without warm-up, scored and saved each epoch, in `folder`."""
    first = copy.copy(args)
    first.output_dir, first.num_train_epochs, first.max_steps = str(folder), args.probe_epochs, -1
    first.lr_scheduler_type, first.warmup_steps = SchedulerType.COSINE, 0
    first.lr_scheduler_kwargs, first.early_stopping_patience = None, None
    first.eval_strategy, first.save_strategy = IntervalStrategy.EPOCH, SaveStrategy.EPOCH
    first.load_best_model_at_end = True
    return first


def probe_arguments(args: FineTuningArguments) -> FineTuningArguments:
    """With what a probe has of its own; features need no workers, nor a network its tricks."""
    probe = copy.copy(args)
    probe.optim, probe.weight_decay, probe.max_grad_norm = OptimizerNames.SGD, 0.0, 0.0
    probe.learning_rate = scaled_rate(max(args.probe_learning_rates), args)
    probe.tf32, probe.ema_decay = False, None
    probe.gradient_checkpointing = False
    if hasattr(probe, "activation_checkpointing"):
        probe.activation_checkpointing = False
    probe.dataloader_num_workers, probe.dataloader_prefetch_factor = 0, None
    probe.dataloader_persistent_workers = False
    return probe
