"""Trainer with keyed order, methods and extensions; as little of it as needed.

Five private methods of Trainer are overridden, for want of a public one:
`_get_train_sampler` (the order is ours), `_run_epoch` (Trainer asks only after a first step whether
an early stop was resumed), `_save_checkpoint` (what Trainer's just-in-time checkpoints call too, so
that a complete one can be told from half a one), `_load_from_checkpoint` and `_load_best_model`
(Trainer's own loading takes no encoder weight from a ViT's files, silently: see `method`).
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer

from training.common.errors import UserError
from training.common.precision import tf32
from training.common.signals import Interrupted
from training.engine.callbacks import (
    EarlyStopping,
    EpochCallback,
    ExtensionCallback,
    FiniteLossCallback,
    LogCallback,
)
from training.engine.checkpoints import COMPLETE, refuse_other_method
from training.engine.compilation import compilation_errors, trains_in_tf32
from training.engine.extension import Extension
from training.engine.loss import Criterion
from training.engine.method import Method
from training.engine.training_arguments import FineTuningArguments
from training.input.batch import EpochSampler, collate, to_model_input
from training.input.eval_images import CachedImages
from training.model.network import Network

NO_DECAY = (
    "cls_token",
    "position_embeddings",
    "mask_token",
    "distillation_token",
    "relative_position_bias_table",  # Swin, BEiT
)


class BaseTrainer(Trainer):
    """Trains a method's weights in a drawn order of images, with extensions; stops where a loss is not finite.

    Args:
        network: what is released in the end.
        method: what is trained of it, and what a checkpoint holds.
        sampler: the order of the training images.
        extensions: features that act, in the order in which they act.
        offered: the classes of all extensions that there are, with the value of each one's key; a
            checkpoint of one that is not in `extensions` is refused. None: no class is looked for.
        num_workers: processes that decode images, for the record. None: as many as load batches.
        rate: name and value of the learning rate to lower where a loss is not finite. None: those of
            learning_rate.
    """

    args: FineTuningArguments

    # {"folds", "images"} where a cross-validation chose, on images that are learned from too; None: the
    # selection slice chose, and nothing is learned from it.
    cross_validation: dict[str, int] | None = None

    def __init__(
        self,
        *,
        network: Network,
        method: Method,
        sampler: EpochSampler,
        extensions: Sequence[Extension] = (),
        offered: Mapping[type[Extension], Any] | None = None,
        num_workers: int | None = None,
        rate: tuple[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=method.model, data_collator=collate, **kwargs)
        self.network, self.method, self.sampler = network, method, sampler
        self.extensions, self.offered = extensions, offered or {}
        self.active: Sequence[Extension] = ()  # the extensions, while training
        self.loaded_best = False
        workers = self.args.dataloader_num_workers
        self.num_workers = workers if num_workers is None else num_workers
        self.label_names = ["labels"]  # Trainer looks in the network's signature; not all have them
        # ViT's forward takes **kwargs, so Trainer believes the loss is already divided by the
        # number of accumulated batches; ours is a mean over one batch, and Trainer must divide.
        self.model_accepts_loss_kwargs = False
        self.first_bad_step = torch.full((), -1, device=self.args.device)
        for part in (method, *extensions) if self.is_sharded else ():
            part.refuse_shards()
        self._exchange_callbacks(rate or ("learning_rate", self.args.learning_rate))

    def _exchange_callbacks(self, rate: tuple[str, Any]) -> None:
        for callback in (ProgressCallback, PrinterCallback):
            self.remove_callback(callback)
        self.add_callback(EpochCallback(self.sampler))
        self.add_callback(FiniteLossCallback(self._ask_for_bad_step, rate))
        self.add_callback(LogCallback())
        self.add_callback(ExtensionCallback(self.extensions))
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(self.args.early_stopping_patience))

    @property
    def is_sharded(self) -> bool:
        """Tell whether FSDP or DeepSpeed splits the weights over the processes."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    # ---- training --------------------------------------------------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; afterwards the network has the weights that are kept, as they are released.

        Raises:
            UserError: a loss is not finite, torch.compile fails, or the checkpoint to resume from was
                written by another recipe.
            Interrupted: SIGTERM came, with enable_jit_checkpoint, and its checkpoint is written.
        """
        self.active = self.extensions
        for extension in self.active:
            extension.prepare(self.method)
        with compilation_errors(), tf32(trains_in_tf32(self.args)):
            result = super().train(*args, **kwargs)
        if self._was_told_to_end():
            raise Interrupted(signal.SIGTERM)
        for extension in self.active:
            extension.finish(self.loaded_best)
        self.active = ()
        self.method.finish()
        return result

    def _was_told_to_end(self) -> bool:
        """Tell whether a just-in-time checkpoint ended training: Trainer ends then as if all were done."""
        if not self.args.enable_jit_checkpoint or self.state.global_step >= self.state.max_steps:
            return False
        callbacks = self.callback_handler.callbacks
        return not any(
            each.early_stopping_patience_counter >= each.early_stopping_patience
            for each in callbacks
            if isinstance(each, EarlyStopping)
        )

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Compute the gradients of one batch; remember the first step whose loss is not finite."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Remembered on the device and read when logging: an `if` here would wait for the device.
        bad = ~torch.isfinite(loss) & (self.first_bad_step < 0)
        self.first_bad_step.masked_fill_(bad, self.state.global_step + 1)
        return loss

    def _ask_for_bad_step(self) -> int:
        return int(self.accelerator.gather(self.first_bad_step.view(1)).max())

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return self.sampler

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Take not one step more of a run that had stopped early."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        """Return 0: Trainer's own count would walk all modules at every batch."""
        return 0

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make Trainer's optimizer, and let the extensions change its groups."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        for extension in self.extensions if is_new else ():
            extension.parameter_groups(optimizer, self.model if model is None else model)
        return optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Name the parameters with weight decay: matrices; no bias, norm, class token or position.

        Trainer's own rule decays ViT's `cls_token` and `position_embeddings`. A vector may be stored
        with more dimensions, as the gain of ConvNeXt V2 is: only those above 1 count.
        """
        return [
            name
            for name, parameter in model.named_parameters()
            if sum(size > 1 for size in parameter.shape) > 1
            and name.rsplit(".", 1)[-1] not in NO_DECAY
        ]

    # ---- scoring and files -----------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the selection slice, with the weights that would be kept."""
        for extension in self.active:
            extension.before_scoring(self.state.global_step)
        with self._scoring():
            return super().evaluate(*args, **kwargs)

    def kept_scores(self) -> dict[str, float]:
        """Look up how the weights that are kept were scored, or score them now.

        Returns:
            "step" and the metrics by their names in Trainer's log, as "eval_top1".
        """
        step = kept_step(self)
        rows = [row for row in self.state.log_history if row["step"] == step and "eval_top1" in row]
        return {"step": step, **(rows[0] if rows else self.evaluate())}

    @property
    def chosen_by(self) -> str | None:
        """Name the metric that chooses the weights that are kept."""
        return self.args.metric_for_best_model

    def facts(self) -> dict[str, Any]:
        """Return what run.json's block "training" says otherwise than the arguments: of this, nothing."""
        return {}

    def _scoring(self) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        for extension in self.active:
            stack.enter_context(extension.scoring())
        return stack

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole network into a folder; in a checkpoint, where Trainer calls, what the method saves."""
        if self.is_sharded:  # Trainer gathers
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            if _internal_call:
                self.method.save(folder)
            else:
                self.network.model.save_pretrained(folder)
                self.network.processor.save_pretrained(folder)

    def _save_checkpoint(self, model, trial) -> None:
        with self._scoring():  # `from_pretrained(checkpoint)` gives what was scored
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save and not self.args.save_only_model:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            for extension in self.active:
                extension.save(folder)
            (folder / COMPLETE).touch()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        if self.is_sharded:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        checkpoint = Path(resume_from_checkpoint)
        self._refuse_other_extensions(checkpoint)
        self._load_method(checkpoint)
        for extension in self.active:
            extension.load(checkpoint)

    def _load_best_model(self) -> None:
        if self.is_sharded:
            return super()._load_best_model()
        self._load_method(Path(self.state.best_model_checkpoint))
        self.loaded_best = True

    def _load_method(self, checkpoint: Path) -> None:
        refuse_other_method(checkpoint, self.method.tune, self.method.adapts)
        self.method.load(checkpoint)

    def _refuse_other_extensions(self, checkpoint: Path) -> None:
        """Refuse a checkpoint that was written with an extension that is off now, or without one."""
        on = {type(extension) for extension in self.extensions}
        for kind, value in self.offered.items():
            wrote = kind.file is not None and (checkpoint / kind.file).is_file()
            if kind.file is not None and wrote != (kind in on):
                raise UserError(
                    f"checkpoint {checkpoint} was written with{'' if wrote else 'out'} {kind.key} and "
                    f"the recipe has {value}: resume with the recipe that it has"
                )


class FoodTrainer(BaseTrainer):
    """Trains a network on images, which are uint8 until they are on the device.

    Args:
        criterion: the training loss; the selection slice is scored by the plain cross-entropy.
        kwargs: the arguments of `BaseTrainer`.
    """

    def __init__(self, *, criterion: Criterion, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.criterion = criterion

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Normalise a batch, let the extensions act on it, and compute its loss.

        Returns:
            The loss; with `return_outputs` also {"logits": (batch, classes) in float32}.
        """
        batch = to_model_input(inputs, self.network.preprocessing)
        for extension in self.extensions:
            extension.before_forward(batch)
        logits = model(pixel_values=batch["pixel_values"]).logits.float()
        if model.training:
            loss = self.criterion(logits, batch["labels"])
            for extension in self.extensions:
                loss = extension.loss(logits, batch, loss)
        else:
            loss = Criterion()(logits, batch["labels"])
        # A distilled DeiT gives the scores of each of its heads as well.
        return (loss, {"logits": logits}) if return_outputs else loss

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Load cached images by whole batches: worker processes would only copy them once more."""
        images = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(images, CachedImages):
            return super().get_eval_dataloader(eval_dataset)
        loader = DataLoader(
            images,
            batch_size=self.args.eval_batch_size,
            collate_fn=collate,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)


def kept_step(trainer: BaseTrainer) -> int:
    """Return the step whose weights the network has once training is over.

    Trainer notes the best step in any case; it loads its weights only if told to, and if their
    checkpoint is still there.
    """
    state = trainer.state
    loads = trainer.args.load_best_model_at_end and state.best_model_checkpoint
    return (loads and state.best_global_step) or state.global_step
