# SPDX-License-Identifier: Apache-2.0
"""The Trainer subclass: decay groups, the weights that are kept, the loss of a batch, how a step is taken."""

import json
import signal
import warnings
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback, TrainerState
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

from tests.unit.toys import (
    LABELS,
    score_as,
    tiny_network,
)
from training.common.signals import Interrupted
from training.engine.checkpoints import complete_checkpoints
from training.engine.loss import Criterion
from training.engine.trainer import FoodTrainer, kept_step
from training.evaluation.scoring import score
from training.input.eval_images import EvalImages

MIXED = {
    "auto_augment": "randaugment",
    "random_erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mix_probability": 0.8,
}
NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


def weights(trainer: FoodTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def test_every_parameter_is_in_the_group_it_belongs_to(trainer_for):
    trainer = trainer_for(weight_decay=0.05)
    trainer.create_optimizer()
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    decay = {
        names[id(p)]: group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    assert set(decay) == set(names.values())
    for name, value in decay.items():
        kind = name.rsplit(".", 1)[-1]
        is_matrix = kind == "weight" and "norm" not in name
        assert value == (0.05 if is_matrix else 0.0), name
    plain = {name for name, value in decay.items() if value == 0}
    assert {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"} <= plain
    assert "vit.embeddings.patch_embeddings.projection.weight" not in plain
    assert "classifier.weight" not in plain
    assert any("norm" in name for name in plain) and any("bias" in name for name in plain)


def test_the_best_checkpoint_is_kept_and_not_the_last(trainer_for, monkeypatch):
    trainer = trainer_for(num_train_epochs=3)
    top1 = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(
        trainer, "compute_metrics", lambda _: {"top1": next(top1), "nll": 1.0}
    )  # the loss says nothing; top1 of the slice decides
    seen = []
    evaluate = trainer.evaluate
    monkeypatch.setattr(
        trainer, "evaluate", lambda *a, **k: seen.append(weights(trainer)) or evaluate(*a, **k)
    )
    trainer.train()
    assert trainer.state.best_metric == 0.9
    assert trainer.state.best_global_step == 4  # the second epoch of two steps each
    end = weights(trainer)
    assert all(torch.equal(end[name], seen[1][name]) for name in end)
    assert not torch.equal(end["classifier.weight"], seen[2]["classifier.weight"])


def test_a_resumed_run_ends_like_one_that_was_never_interrupted(trainer_for, tmp_path):
    whole = trainer_for("whole", num_train_epochs=3, **MIXED)
    whole.train()
    resumed = trainer_for(
        "resumed", seed=5, num_train_epochs=3, **MIXED
    )  # other weights, to be replaced
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert resumed.state.global_step == whole.state.global_step == 6
    last = [load_file(tmp_path / name / "checkpoint-6" / "model.safetensors")
            for name in ("whole", "resumed")]  # fmt: skip
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())


# SGD shows a loss of the wrong scale, which AdamW would divide away; AdamW in turn enlarges the
# rounding of gradients that are nearly zero.
@pytest.mark.parametrize(
    ("optim", "learning_rate", "tolerance", "more"),
    [("sgd", 0.05, 1e-6, MIXED), ("adamw_torch", 1e-3, 2e-5, {})],
)
def test_accumulated_batches_are_one_big_batch(trainer_for, optim, learning_rate, tolerance, more):
    """1 x 8 and 1 x 4 accumulated twice: the same steps, the same losses, the same weights."""
    runs = []
    for device in (8, 4):
        trainer = trainer_for(
            f"by{device}",
            per_device_train_batch_size=device,
            num_train_epochs=3,
            logging_steps=1,
            optim=optim,
            learning_rate=learning_rate,
            **more,
            **NO_CHECKPOINTS,
        )
        assert trainer.args.gradient_accumulation_steps == 8 // device
        trainer.train()
        rows = [row for row in trainer.state.log_history if "loss" in row]
        runs.append((weights(trainer), [r["loss"] for r in rows], [r["grad_norm"] for r in rows]))
    (one, losses, norms), (two, accumulated_losses, accumulated_norms) = runs
    assert len(losses) == 6
    assert accumulated_losses == pytest.approx(losses, abs=2e-4)  # logged with four digits
    assert accumulated_norms == pytest.approx(norms, rel=1e-4)
    assert max((one[name] - two[name]).abs().max().item() for name in one) < tolerance


def test_label_smoothing_is_for_training_only(trainer_for):
    trainer = trainer_for(label_smoothing_factor=0.2)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    inputs = {"pixel_values": images, "labels": torch.arange(6) % 3}
    model, pixels = trainer.model, trainer.network.preprocessing.normalize(images)
    plain = torch.nn.functional.cross_entropy(
        model.eval()(pixel_values=pixels).logits, inputs["labels"]
    )
    assert trainer.compute_loss(model.eval(), inputs).item() == pytest.approx(plain.item())
    assert trainer.compute_loss(model.train(), inputs).item() != pytest.approx(plain.item())


def test_mixed_labels_leave_a_network_of_one_label(trainer_for, tmp_path):
    """Trained on two labels an image; the stock pipeline of what was saved gives a softmax."""
    from transformers import pipeline

    trainer = trainer_for(**MIXED, loss="generalized_cross_entropy", **NO_CHECKPOINTS)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config.get("problem_type") in (None, "single_label_classification")
    classify = pipeline("image-classification", model=str(tmp_path / "saved"), device="cpu")
    for shade in (20, 128, 230):
        answers = classify(Image.new("RGB", (40, 40), (shade, 90, 120)), top_k=len(LABELS))
        assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)
        assert {answer["label"] for answer in answers} == set(LABELS)


def test_what_is_for_training_only_leaves_the_score_alone(trainer_for):
    keys = {"loss": "generalized_cross_entropy", "gce_q": 0.5, "label_smoothing_factor": 0.1}
    trainer = trainer_for(mixup=1.0, **keys)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    inputs = {"pixel_values": images, "labels": torch.arange(6) % 3}
    drawn = {"mix_lambda": torch.ones(6), "mix_box": torch.zeros(6, 4, dtype=torch.int64)}
    model = trainer.model
    pixels = trainer.network.preprocessing.normalize(images)
    logits = model.eval()(pixel_values=pixels).logits
    plain = torch.nn.functional.cross_entropy(logits, inputs["labels"])
    assert trainer.compute_loss(model, inputs).item() == pytest.approx(plain.item())
    expected = Criterion(smoothing=0.1, q=0.5)(logits, inputs["labels"])
    assert trainer.compute_loss(model.train(), {**inputs, **drawn}).item() == pytest.approx(
        expected.item()
    )


@pytest.fixture
def bf16(monkeypatch):
    """As `accelerate launch --mixed_precision bf16`; the state is one for the whole process."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_selection_is_scored_in_bf16_and_the_report_in_float32(bf16, trainer_for, splits):
    trainer = trainer_for(num_train_epochs=1, **NO_CHECKPOINTS | {"eval_strategy": "epoch"})
    assert trainer.accelerator.mixed_precision == "bf16"
    seen, network = [], tiny_network()
    for model in (trainer.model, network.model):
        model.classifier.register_forward_hook(
            lambda module, _, output: seen.append((module.training, output.dtype))
        )
    trainer.train()
    trainer.evaluate()  # as after the training, where no epoch was scored
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}
    seen.clear()
    network.model.eval()
    logits = score(network, EvalImages(splits.test.dataset, network.preprocessing), 2, 0)
    assert set(seen) == {(False, torch.float32)} and logits.dtype == "float32"


def test_adamw_is_fused_unless_the_recipe_says_otherwise(trainer_for):
    optimizer = trainer_for().create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert not trainer_for(optim="adamw_torch").create_optimizer().defaults["fused"]


@pytest.mark.parametrize(
    ("loads", "checkpoint", "best", "kept"),
    [(True, "checkpoint-2", 2, 2), (True, None, 2, 4), (False, "checkpoint-2", 2, 4)],
)
def test_the_step_whose_weights_are_kept(loads, checkpoint, best, kept):
    """Trainer notes the best step also where it does not load its weights."""
    state = TrainerState(global_step=4, best_global_step=best, best_model_checkpoint=checkpoint)
    args = SimpleNamespace(load_best_model_at_end=loads)
    assert kept_step(SimpleNamespace(state=state, args=args)) == kept


# ---- how a step is taken ------------------------------------------------------------------------


def test_checkpointing_computes_twice_and_learns_the_same(trainer_for):
    runs = {}
    for wanted in (False, True):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*_checkpointing.*")  # of an old name
            trainer = trainer_for(
                str(wanted), gradient_checkpointing=wanted, logging_steps=1, **NO_CHECKPOINTS
            )
            calls: list[int] = []
            layer = trainer.model.vit.layers[0]
            layer.mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
            trainer.train()
        assert layer.gradient_checkpointing == wanted
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        runs[wanted] = losses, len(calls)
    assert layer._gradient_checkpointing_func.keywords == {"use_reentrant": False}
    (plain, once), (checkpointed, twice) = runs[False], runs[True]
    assert checkpointed == pytest.approx(plain, abs=1e-5) and len(plain) == 4
    assert (once, twice) == (4, 8)


class Waits(TorchDispatchMode):
    """Counts, by finished steps, the operations that on a GPU would wait for the device."""

    def __init__(self, trainer: FoodTrainer) -> None:
        super().__init__()
        self.trainer, self.count = trainer, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2")
        if func.overloadpacket.__name__ in waits:
            self.count[self.trainer.state.global_step] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("further", [{}, {"ema_decay": 0.9, "drop_path": 0.2, "layer_decay": 0.8}])
def test_nothing_waits_for_the_device_between_two_logs(trainer_for, further):
    trainer = trainer_for(
        total_train_batch_size=2, per_device_train_batch_size=1, max_steps=12, logging_steps=4,
        **NO_CHECKPOINTS, **further,
    )  # fmt: skip
    with Waits(trainer) as waits:
        trainer.train()
    # Before each epoch, of 9 steps, the loader draws its seed on the host. A wait in a step would
    # be counted at the number before it: 1, 2, 3, 5, 6, 7, 10 and 11 are missing.
    assert waits.count[0] == waits.count[9] == 1
    assert set(waits.count) == {0, 4, 8, 9, 12}


class Tell(TrainerCallback):
    """Asks for a just-in-time checkpoint after a step, as SIGTERM does."""

    def __init__(self, trainer: FoodTrainer, step: int) -> None:
        callbacks = trainer.callback_handler.callbacks
        (self.jit,) = [each for each in callbacks if isinstance(each, JITCheckpointCallback)]
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.jit.jit_manager.is_checkpoint_requested = state.global_step == self.step


def test_a_just_in_time_checkpoint_does_not_finish_the_run(trainer_for, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    trainer = trainer_for(enable_jit_checkpoint=True, num_train_epochs=3)
    trainer.add_callback(Tell(trainer, 1))
    with pytest.raises(Interrupted) as interrupt:
        trainer.train()
    assert interrupt.value.exit_code == 143 and trainer.state.global_step < trainer.state.max_steps
    assert complete_checkpoints(tmp_path / "run")[0].name == "checkpoint-1"
    assert signal.getsignal(signal.SIGTERM) == before
    again = trainer_for(enable_jit_checkpoint=True, num_train_epochs=3)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert again.state.global_step == again.state.max_steps


def test_an_early_stop_is_an_end_of_its_own(trainer_for, monkeypatch):
    trainer = trainer_for(enable_jit_checkpoint=True, early_stopping_patience=1, num_train_epochs=9)
    score_as(trainer, [0.5, 0.4, 0.3], monkeypatch)
    trainer.train()
    assert trainer.state.global_step < trainer.state.max_steps
