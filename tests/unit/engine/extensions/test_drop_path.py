# SPDX-License-Identifier: Apache-2.0
"""Stochastic depth: its law, where it is off, and that the network stays stock transformers'."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    BeitForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from tests.unit.toys import TINY_VIT, tiny_network, tiny_settings, write_image_folder
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.loading import load_splits
from training.engine.extensions.drop_path import (
    DroppedBranch,
    add_drop_path,
    drop_rows,
    rates_by_depth,
)
from training.engine.wiring import build_trainer

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def network(drop_path: float = 0.0, batch: int = 6, **config: object) -> torch.nn.Module:
    """A ViT whose next batch has been drawn for, as the trainer does before each forward pass."""
    model = tiny_network(**config).model
    if drop_path:
        hooked = add_drop_path(model, drop_path)
        generator = torch.Generator().manual_seed(3)
        hooked.drawn = torch.rand(batch, hooked.draws.num_branches, generator=generator)
    return model


def rates_of(model: torch.nn.Module) -> list[list[float]]:
    """The hooks' rates of attention and MLP, block by block."""
    return [
        [hook.rate for branch in (block.attention, block.mlp)
         for hook in branch._forward_hooks.values() if isinstance(hook, DroppedBranch)]
        for block in model.base_model.layers
    ]  # fmt: skip


# ---- the law ----------------------------------------------------------------------------------


def test_whole_images_are_dropped_and_the_mean_is_kept():
    rate, rows = 0.3, 20_000
    drawn = torch.rand(rows, generator=torch.Generator().manual_seed(0))
    dropped = drop_rows(torch.full((rows, 2, 3), 2.0), drawn, rate)
    per_row = dropped.flatten(1)
    assert (per_row == per_row[:, :1]).all()  # an image is kept or dropped as a whole
    assert sorted(set(per_row[:, 0].tolist())) == pytest.approx([0, 2 / (1 - rate)])
    deviation = (rate * (1 - rate) / rows) ** 0.5
    assert (per_row[:, 0] == 0).float().mean().item() == pytest.approx(rate, abs=4 * deviation)
    assert dropped.mean().item() == pytest.approx(2, abs=4 * 2 * deviation / (1 - rate))


def test_both_branches_of_a_block_draw_alone():
    """With the last block's branches at 0.5, an image loses none, either or both of them."""
    model = network(0.5, batch=60, num_hidden_layers=1).train()
    seen: list[torch.Tensor] = []
    for name in ("attention", "mlp"):
        getattr(model.vit.layers[0], name).register_forward_hook(
            lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
    model(pixel_values=IMAGES.repeat(10, 1, 1, 1))
    gone = torch.stack([branch.flatten(1).eq(0).all(1) for branch in seen], 1)
    assert {tuple(row) for row in gone.tolist()} == {(a, b) for a in (0, 1) for b in (0, 1)}


def test_the_rate_rises_with_depth():
    assert rates_by_depth(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert rates_by_depth(0.3, 1) == [0.3]
    assert rates_of(network(0.2, num_hidden_layers=3)) == [[], [0.1, 0.1], [0.2, 0.2]]
    assert rates_of(network(0.0)) == [[], []]
    deit = DeiTForImageClassification(DeiTConfig(**TINY_VIT))
    add_drop_path(deit, 0.2)
    assert rates_of(deit) == [[], [0.2, 0.2]]


# ---- where it is off --------------------------------------------------------------------------


def test_evaluation_is_that_of_the_plain_network_and_training_is_not():
    plain, model = network().eval(), network(0.6)
    wanted = plain(pixel_values=IMAGES).logits
    assert torch.equal(model.eval()(pixel_values=IMAGES).logits, wanted)
    assert not torch.allclose(model.train()(pixel_values=IMAGES).logits, wanted)


def test_names_and_saved_files_are_those_of_the_stock_network(tmp_path):
    plain, model = network(), network(0.6)
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.save_pretrained(tmp_path / "plain")
    model.save_pretrained(tmp_path / "model")
    for name in ("config.json", "model.safetensors"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("plain", "model"))
        assert one == two
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "model").train()
    assert torch.allclose(loaded(pixel_values=IMAGES).logits, plain(pixel_values=IMAGES).logits)


def test_training_without_draws_is_the_programmers_error():
    model = tiny_network().model
    add_drop_path(model, 0.1)
    with pytest.raises(RuntimeError, match="DropPath.drawn is not set"):
        model.train()(pixel_values=IMAGES)


def test_a_network_without_known_blocks_is_refused():
    resnet = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8],
                                                       depths=[1, 1]))  # fmt: skip
    with pytest.raises(UserError, match="drop_path is 0.1: .* ResNetForImageClassification has"):
        add_drop_path(resnet, 0.1)


def test_a_network_with_stochastic_depth_of_its_own_is_refused():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    beit = BeitForImageClassification(BeitConfig(**sizes, intermediate_size=16, image_size=32))
    with pytest.raises(UserError, match="drop_path is 0.1: Beit.* stochastic depth of its own"):
        add_drop_path(beit, 0.1)


# ---- with the rest of training ----------------------------------------------------------------


def gradients(model: torch.nn.Module, run: torch.nn.Module | None = None) -> dict:
    (model if run is None else run)(pixel_values=IMAGES).logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_recomputed_blocks_drop_the_same_images():
    plain, checkpointed = network(0.6).train(), network(0.6).train()
    name = "activation_checkpointing_enable"  # since transformers 5.23
    enable = getattr(checkpointed, name, None) or checkpointed.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    one, two = gradients(plain), gradients(checkpointed)
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert any((grad != 0).any() for grad in one.values())


@pytest.mark.slow
def test_compiled_networks_drop_the_same_images():
    one = gradients(network(0.6, num_hidden_layers=1).train())
    model = network(0.6, num_hidden_layers=1).train()
    two = gradients(model, torch.compile(model, backend="aot_eager"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_a_resumed_run_drops_what_the_whole_run_dropped(tmp_path):
    """From the end of an epoch and from its middle."""
    root = write_image_folder(tmp_path / "dishes", train=8, validation=1)
    splits = load_splits(DataArguments(dataset=str(root), selection_fraction=0.25))
    common = {"drop_path": 0.5, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1,
              "save_total_limit": 9, "eval_strategy": "no", "load_best_model_at_end": False,
              "total_train_batch_size": 6}  # fmt: skip

    def run(name: str, checkpoint: int | None = None) -> dict[str, torch.Tensor]:
        trainer = build_trainer(
            tiny_network(seed=0 if checkpoint is None else 5), splits,
            tiny_settings(tmp_path / name, **common),
        )  # fmt: skip
        assert rates_of(trainer.model) == [[], [0.5, 0.5]]
        resume = checkpoint and str(tmp_path / "whole" / f"checkpoint-{checkpoint}")
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 6  # two epochs of three
        return load_file(tmp_path / name / "checkpoint-6" / "model.safetensors")

    whole = run("whole")
    for checkpoint in (3, 4):
        resumed = run(f"from{checkpoint}", checkpoint)
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items()), checkpoint
