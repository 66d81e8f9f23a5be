"""The Trainer subclass, as little as needed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer

from inference.food_classification import Preprocessing
from training.common.errors import UserError
from training.common.precision import tf32
from training.engine.arguments import FineTuningArguments
from training.engine.callbacks import (
    AverageCallback,
    EarlyStopping,
    EpochCallback,
    FiniteLossCallback,
    LogCallback,
)
from training.engine.checkpoints import COMPLETE
from training.engine.compilation import compilation_errors, trains_in_tf32
from training.engine.extensions.averaging import TRAINED_WEIGHTS, WeightAverage
from training.engine.extensions.drop_path import DropPath
from training.engine.extensions.layer_decay import decay_learning_rates
from training.engine.lora import LORA_WEIGHTS, Adapters
from training.engine.loss import training_loss
from training.engine.method import load_weights
from training.input.batch import EpochSampler, collate, to_model_input
from training.input.eval_images import CachedImages

NO_DECAY = (
    "cls_token",
    "position_embeddings",
    "mask_token",
    "distillation_token",
    "relative_position_bias_table",  # Swin, BEiT
)


class FoodTrainer(Trainer):
    """Trainer whose batches are uint8 until they are on the device, and whose order is keyed."""

    args: FineTuningArguments
    rate_key = "learning_rate"  # what to lower where a loss is not finite

    def __init__(
        self,
        *,
        preprocessing: Preprocessing,
        sampler: EpochSampler,
        drop_path: DropPath | None = None,
        adapters: Adapters | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.preprocessing, self.sampler = preprocessing, sampler
        self.drop_path = drop_path or DropPath(num_branches=0)
        self.adapters = adapters  # until they are merged, after the training
        self.num_workers = self.args.dataloader_num_workers  # that decode
        self.label_names = ["labels"]  # Trainer looks in the network's signature; not all have them
        # ViT's forward takes **kwargs, so Trainer believes the loss is already divided by the
        # number of accumulated batches; ours is a mean over one batch, and Trainer must divide.
        self.model_accepts_loss_kwargs = False
        self.first_bad_step = torch.full((), -1, device=self.args.device)
        for callback in (ProgressCallback, PrinterCallback):
            self.remove_callback(callback)
        self.add_callback(EpochCallback(sampler))
        self.add_callback(FiniteLossCallback(self))
        self.add_callback(LogCallback())
        self.average: WeightAverage | None = None  # while training with ema_decay
        self._refuse_shards()
        if self.args.ema_decay is not None:
            self.add_callback(AverageCallback(self))
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(self.args.early_stopping_patience))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if self.args.ema_decay is not None:
            self.average = WeightAverage(self.model, self.args.ema_decay)
        with compilation_errors(), tf32(trains_in_tf32(self.args)):
            result = super().train(*args, **kwargs)
        if self.average is not None:  # the best checkpoint's, if loaded, are averaged already
            self.average.swap()
            self.average = None
        if self.adapters is not None:
            self.adapters.merge()
            self.adapters = None
        return result

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self._averaged():
            return super().evaluate(*args, **kwargs)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.average is None else self.average.in_model()

    def _refuse_shards(self) -> None:
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return
        if self.args.ema_decay is not None:
            raise UserError(
                f"ema_decay {self.args.ema_decay} with FSDP or DeepSpeed: each process holds a part of the "
                "weights only; use accelerate_config.yaml, or leave ema_decay out"
            )
        if self.adapters is not None:
            raise UserError(
                "tune is lora with FSDP or DeepSpeed: adapters are merged where the whole matrix is; use "
                "accelerate_config.yaml, whose processes hold all the weights"
            )

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return self.sampler

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Cached images come by whole batches: worker processes would only copy them once more."""
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

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return to_model_input(super()._prepare_inputs(inputs), self.preprocessing)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.drop_path.draws = inputs.get("drop_path")
        outputs = model(pixel_values=inputs["pixel_values"])
        logits, args = outputs.logits.float(), self.args
        if model.training:
            loss = training_loss(
                logits,
                inputs["labels"],
                inputs.get("own_share"),
                smoothing=args.label_smoothing_factor,
                q=args.generalized_q(),
            )
        else:
            loss = training_loss(logits, inputs["labels"])
        # A distilled DeiT gives the scores of each of its heads as well.
        return (loss, {"logits": logits}) if return_outputs else loss

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Not one step more of a run that had stopped early; Trainer asks only after the first."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Remembered on the device and read when logging: an `if` here would wait for the device.
        bad = ~torch.isfinite(loss) & (self.first_bad_step < 0)
        self.first_bad_step.masked_fill_(bad, self.state.global_step + 1)
        return loss

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        """None are counted: Trainer walks all modules at every batch, for a rule made for tokens."""
        return 0

    def _save_checkpoint(self, model, trial) -> None:
        with self._averaged():  # `from_pretrained(checkpoint)` gives what was scored
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save and not self.args.save_only_model:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            if self.average is not None:
                self._save_weights(folder / TRAINED_WEIGHTS)
            (folder / COMPLETE).touch()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        trained = Path(resume_from_checkpoint) / TRAINED_WEIGHTS
        if trained.is_file() != (self.average is not None):
            raise UserError(
                f"checkpoint {resume_from_checkpoint} was written with{'' if trained.is_file() else 'out'} "
                f"ema_decay and the recipe has {self.args.ema_decay}: resume with the recipe that it has"
            )
        self._load_weights(resume_from_checkpoint)
        if self.average is not None:
            self.average.restart()
            if self.adapters is None:
                self.model.load_state_dict(load_file(trained), strict=True)
            else:
                self.adapters.load(trained)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_best_model()
        self._load_weights(self.state.best_model_checkpoint)
        self.average = None

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """While adapters are trained, a checkpoint is they and the head; the rest is `model` still."""
        if self.adapters is None:
            return super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self._save_weights(folder / LORA_WEIGHTS)

    def _save_weights(self, path: Path) -> None:
        if self.adapters is None:
            save_file(self.model.state_dict(), path)
        else:
            self.adapters.save(path)

    def _load_weights(self, checkpoint: str) -> None:
        lora = Path(checkpoint) / LORA_WEIGHTS
        if lora.is_file() != (self.adapters is not None):
            raise UserError(
                f"checkpoint {checkpoint} was written with{'' if lora.is_file() else 'out'} tune: lora and "
                f"the recipe has {self.args.tune}: resume with the recipe that it has"
            )
        if self.adapters is None:
            load_weights(self.model, checkpoint)
        else:
            self.adapters.load(lora)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.args.layer_decay != 1:
            target = self.model if model is None else model
            decay_learning_rates(optimizer, target, self.args.layer_decay)
        return optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight decay for matrices only: no bias, norm, class token or position embedding.

        Trainer's own rule decays ViT's `cls_token` and `position_embeddings`. A vector may be stored
        with more dimensions, as the gain of ConvNeXt V2 is: only those above 1 count.
        """
        return [
            name
            for name, parameter in model.named_parameters()
            if sum(size > 1 for size in parameter.shape) > 1
            and name.rsplit(".", 1)[-1] not in NO_DECAY
        ]


def kept_step(trainer: FoodTrainer) -> int:
    """The step whose weights the network has once training is over.

    Trainer notes the best step in any case; it loads its weights only if told to, and if their
    checkpoint is still there.
    """
    state = trainer.state
    loads = trainer.args.load_best_model_at_end and state.best_model_checkpoint
    return (loads and state.best_global_step) or state.global_step
