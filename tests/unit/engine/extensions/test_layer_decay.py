# SPDX-License-Identifier: Apache-2.0
"""Layer-wise learning rates: the depth of every parameter, the optimizer's groups, their schedule."""

from pathlib import Path

import pytest
import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from tests.unit.toys import TINY_VIT, tiny_network, tiny_settings
from training.common.errors import UserError
from training.engine.extensions.layer_decay import layer_ids, layer_scales
from training.engine.wiring import build_trainer

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
BLOCK = [
    f"{module}.{kind}"
    for module in (
        *(f"attention.{letter}_proj" for letter in "qkvo"),
        "layernorm_before",
        "layernorm_after",
        "mlp.fc1",
        "mlp.fc2",
    )
    for kind in ("weight", "bias")
]


@pytest.mark.parametrize(
    ("prefix", "model_class", "config_class", "further"),
    [
        ("vit", ViTForImageClassification, ViTConfig, []),
        ("deit", DeiTForImageClassification, DeiTConfig, ["distillation_token"]),
    ],
)
def test_every_parameter_has_the_depth_it_belongs_to(prefix, model_class, config_class, further):
    """All names, written out: a version of transformers that renames one must not pass."""
    model = model_class(config_class(**{**TINY_VIT, "num_hidden_layers": 3}))
    embeddings = ["cls_token", "position_embeddings", *further]
    embeddings += [f"patch_embeddings.projection.{kind}" for kind in ("weight", "bias")]
    wanted = {f"{prefix}.embeddings.{name}": 0 for name in embeddings}
    wanted |= {f"{prefix}.layers.{i}.{name}": i + 1 for i in range(3) for name in BLOCK}
    wanted |= {f"{prefix}.layernorm.{kind}": 4 for kind in ("weight", "bias")}
    wanted |= {f"classifier.{kind}": 4 for kind in ("weight", "bias")}
    assert layer_ids(model) == wanted
    scales = layer_scales(model, 0.5)
    assert scales["classifier.weight"] == scales[f"{prefix}.layernorm.weight"] == 1
    assert scales[f"{prefix}.layers.2.mlp.fc1.weight"] == 0.5
    assert scales[f"{prefix}.layers.0.mlp.fc1.weight"] == 0.5**3
    assert scales[f"{prefix}.embeddings.cls_token"] == 0.5**4


def test_names_inside_wrappers_are_the_same(monkeypatch):
    model = tiny_network().model
    plain = layer_ids(model)
    named = [("_orig_mod." + name.replace("layers.", "layers._fsdp_wrapped_module."), p)
             for name, p in model.named_parameters()]  # fmt: skip
    monkeypatch.setattr(model, "named_parameters", lambda: iter(named))
    assert list(layer_ids(model).values()) == list(plain.values())


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: ConvNextForImageClassification(ConvNextConfig(depths=[1] * 4)), "convnext"),
        (lambda: SwinForImageClassification(SwinConfig(depths=[1, 1], num_heads=[1, 1])), "swin"),
        (lambda: ViTForImageClassification(ViTConfig(**TINY_VIT)), "vit.adapter.weight"),
        (lambda: ViTModel(ViTConfig(**TINY_VIT)), "cls_token"),
    ],
)
def test_a_parameter_of_unknown_depth_is_named(model, name):
    model = model()
    if name == "vit.adapter.weight":
        model.vit.adapter = torch.nn.Linear(2, 2)
    message = rf"depth of \S*{name}\S* in {type(model).__name__} is not known"
    with pytest.raises(UserError, match=message):
        layer_ids(model)


def test_an_unknown_network_is_refused_before_training(splits, tmp_path):
    network = tiny_network()
    network.model.vit.adapter = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="layer_decay: the depth of vit.adapter.weight"):
        build_trainer(network, splits, tiny_settings(tmp_path, layer_decay=0.5))
    build_trainer(network, splits, tiny_settings(tmp_path))


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd"])
def test_each_parameter_is_in_one_group_of_its_rate_and_weight_decay(trainer_for, optim):
    trainer = trainer_for(layer_decay=0.5, weight_decay=0.05, learning_rate=0.01, optim=optim)
    optimizer = trainer.create_optimizer()
    assert trainer.create_optimizer() is optimizer  # not split again
    scales = layer_scales(trainer.model, 0.5)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == pytest.approx(0.01 * scales[name])
            assert group["weight_decay"] == (0.05 if name in decayed else 0.0)
            assert group.get("fused") == (True if "fused" in optim else None)
            seen.append(name)
    assert sorted(seen) == sorted(names.values())
    assert len(optimizer.param_groups) == 2 * 4  # embeddings, two blocks, the top


def test_the_schedule_scales_every_group_and_the_heads_rate_is_logged(trainer_for):
    trainer = trainer_for(layer_decay=0.5, learning_rate=0.01, num_train_epochs=2, logging_steps=1,
                          warmup_steps=2, lr_scheduler_type="linear", **NO_CHECKPOINTS)  # fmt: skip
    rates = []
    step = trainer.training_step
    trainer.training_step = lambda *a: (
        rates.append([g["lr"] for g in trainer.optimizer.param_groups]) or step(*a)
    )
    trainer.train()
    shares = [0, 0.5, 1, 0.5]  # of a warm-up over two steps of four
    for row, share in zip(rates, shares, strict=True):
        assert row[0] == max(row)
        assert sorted({r / 0.01 for r in row}) == pytest.approx(
            sorted({share * 0.5**i for i in range(4)})
        )
    logged = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    assert logged == pytest.approx([0.01 * share for share in shares])


def test_a_resumed_run_with_layer_decay_ends_like_the_whole(trainer_for, tmp_path):
    values = {"layer_decay": 0.5, "num_train_epochs": 2}
    whole, resumed = trainer_for("whole", **values), trainer_for("resumed", seed=5, **values)
    whole.train()
    resumed.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-2"))
    assert resumed.state.global_step == whole.state.global_step == 4
    for one, two in zip(whole.optimizer.param_groups, resumed.optimizer.param_groups, strict=True):
        assert (one["lr"], one["initial_lr"]) == (two["lr"], two["initial_lr"])
        for p, q in zip(one["params"], two["params"], strict=True):
            moments = whole.optimizer.state[p], resumed.optimizer.state[q]
            assert torch.equal(moments[0]["exp_avg"], moments[1]["exp_avg"])
