# SPDX-License-Identifier: Apache-2.0
"""What the Trainer subclass changes: decay groups, weights that come back, the mean loss."""

import json
import math
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import DeiTConfig, DeiTForImageClassification

from tests.unit.toys import LABELS, TINY_VIT, tiny_network
from training.common.errors import UserError
from training.engine.callbacks import EpochCallback, clock, finite
from training.engine.loss import Criterion
from training.engine.method import load_weights
from training.engine.trainer import FoodTrainer
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


# ---- weight decay -----------------------------------------------------------------------------


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


# ---- checkpoints ------------------------------------------------------------------------------


def test_load_weights_restores_every_tensor(trainer_for, tmp_path):
    """Trainer's own loading matches names non-strictly, and no encoder weight would match."""
    trainer = trainer_for(max_steps=2, save_steps=2, save_strategy="steps", eval_strategy="no",
                          load_best_model_at_end=False)  # fmt: skip
    trainer.train()
    trained = weights(trainer)
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert (checkpoint / "complete").is_file()
    # The trap itself: the file's names are not the model's.
    assert set(load_file(checkpoint / "model.safetensors")) != set(trained)
    fresh = tiny_network(seed=9).model
    assert all(not torch.equal(v, trained[k]) for k, v in fresh.state_dict().items() if v.std() > 0)
    load_weights(fresh, checkpoint)
    assert all(torch.equal(v, trained[k]) for k, v in fresh.state_dict().items())


def test_checkpoints_of_something_else_are_refused(tmp_path):
    model = tiny_network().model
    tiny_network(hidden_size=48).model.save_pretrained(tmp_path / "wider")
    with pytest.raises(UserError, match="wider is of another network: .*size mismatch"):
        load_weights(model, tmp_path / "wider")
    DeiTForImageClassification(DeiTConfig(**TINY_VIT, num_labels=3)).save_pretrained(
        tmp_path / "deit"
    )
    with pytest.raises(UserError, match=r"\['DeiTForImage\w+'\] and not ViTForImage"):
        load_weights(model, tmp_path / "deit")  # its encoder would be drawn at random
    (tmp_path / "heads").mkdir()
    save_file({"weights.0": torch.zeros(3, 32)}, tmp_path / "heads" / "model.safetensors")
    with pytest.raises(UserError, match="heads holds no whole network .a linear probe's"):
        load_weights(model, tmp_path / "heads")


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


@pytest.mark.parametrize(("step", "epoch"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)])
def test_the_sampler_is_told_its_epoch(trainer_for, step, epoch):
    """One process would get it from accelerate as well; several ranks after a resume would not."""
    trainer = trainer_for()
    (callback,) = [c for c in trainer.callback_handler.callbacks if isinstance(c, EpochCallback)]
    trainer.state.global_step = step
    callback.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    assert trainer.sampler.epoch == epoch


# ---- the loss ---------------------------------------------------------------------------------


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


def test_a_loss_that_is_not_finite_stops_with_its_step(trainer_for, monkeypatch):
    trainer = trainer_for(num_train_epochs=3, learning_rate=0.02)
    compute_loss, steps = trainer.compute_loss, []

    def broken(*args: object, **kwargs: object) -> torch.Tensor:
        steps.append(1)
        return compute_loss(*args, **kwargs) * (math.nan if len(steps) >= 3 else 1.0)

    monkeypatch.setattr(trainer, "compute_loss", broken)
    monkeypatch.setattr(trainer, "evaluate", lambda *a, **k: {"eval_top1": 0.5})
    with pytest.raises(UserError, match=r"not finite at step 3: lower learning_rate \(0.02\)"):
        trainer.train()
    saved = sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))
    assert saved == ["checkpoint-2"]  # the one before it, and none of NaN


def test_weights_that_are_nan_stop_at_the_first_step(trainer_for):
    trainer = trainer_for(**NO_CHECKPOINTS, logging_steps=1)
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = math.nan
    with pytest.raises(UserError, match="not finite at step 1"):
        trainer.train()


# ---- precision --------------------------------------------------------------------------------


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


# ---- small things -----------------------------------------------------------------------------


def test_fewer_images_than_a_batch_are_refused(trainer_for):
    with pytest.raises(UserError, match="total_train_batch_size 19 is more than the 18 training"):
        trainer_for(total_train_batch_size=19)
    trainer_for(total_train_batch_size=18)


def test_an_unknown_metric_is_refused_before_the_first_step(trainer_for):
    with pytest.raises(UserError, match="metric_for_best_model is acc: give one of top1, .*, loss"):
        trainer_for(metric_for_best_model="acc")
    trainer_for(metric_for_best_model="eval_nll")


def test_the_log_is_json_beside_the_run(trainer_for, tmp_path):
    trainer = trainer_for(num_train_epochs=1, logging_steps=1, save_strategy="no",
                          load_best_model_at_end=False)  # fmt: skip
    trainer.train()
    rows = json.loads((tmp_path / "run" / "log_history.json").read_text())
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert any("eval_top1" in row for row in rows)
    assert rows == trainer.state.log_history


def test_what_json_cannot_say_becomes_null():
    assert finite({"a": math.nan, "b": math.inf, "c": 1.5, "d": 2}) == (
        {"a": None, "b": None, "c": 1.5, "d": 2}
    )


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (3661, "1:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text
