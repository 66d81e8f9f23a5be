# SPDX-License-Identifier: Apache-2.0
"""What is not exactly a ViT, and what its files do not give, in one line each."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers

from tests.unit.backbones import save_backbone
from tests.unit.clothes import STAGES, build, edited, refused, save, with_weights
from tests.unit.toys import LABELS
from training.common.errors import UserError
from training.model.arguments import ModelArguments
from training.model.as_vit import CONVERTED, REFUSED, clothes_of


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("clothes") / "dinov2")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (225, "^image_size 225 is not a multiple of the patch size 14 of .*: give 224 or 238$"),
        (384, "give 378 or 392$"),
        (7, "give 14$"),
        (14 * 10**9, "^image_size 14000000000: Dinov2Model does not run at that size"),
    ],
)
def test_sizes_that_do_not_fit(dinov2, size, message):
    refused(dinov2, message, image_size=size)


def test_a_processor_whose_crop_does_not_fit(dinov2, tmp_path):
    folder = edited(tmp_path / "a", dinov2)
    path = folder / "preprocessor_config.json"
    values = json.loads(path.read_text())
    for crop, message in (
        ({"height": 60, "width": 60}, "image_size 60 is not a multiple"),
        ({"height": 56, "width": 42}, "makes 56 x 42 pixels, .* give an image_size"),
    ):
        path.write_text(json.dumps({**values, "crop_size": crop}))
        refused(folder, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn of .* is True, and a ViT can do False only"),
        ({"drop_path_rate": 0.1}, "drop_path_rate of .* is 0.1, and a ViT can do 0 only"),
        ({"hidden_dropout_prob": 0.1}, "hidden_dropout_prob of .* is 0.1"),
        ({"num_channels": 1}, "num_channels of .* is 1, and a ViT can do 3 only"),
        ({"head_dim": 16}, "has head_dim: 16, which is not known here"),
        ({"num_register_tokens": 4}, "has num_register_tokens: 4, which is not known here"),
        ({"image_size": [84, 98]}, r"image_size of .* is \[84, 98\], and only square"),
        ({"patch_size": [14, 7]}, r"patch_size of .* is \[14, 7\], and only square"),
        # config.json lies about the files
        ({"image_size": 98}, "do not give embeddings.position_embeddings, where the Dinov2Model"),
        ({"hidden_size": 64}, "do not give "),
        ({"num_hidden_layers": 4, **STAGES}, "do not give .*encoder.layer.3"),
        ({"num_hidden_layers": 2, **STAGES}, "also give .*encoder.layer.2"),
        ({"image_size": "wide"}, "^model .* cannot be loaded: .*image_size"),
        ({"mlp_ratio": 3}, "do not give .*fc1"),
        ({"hidden_act": "nope"}, "nope"),
    ],
)
def test_a_config_that_says_something_else(dinov2, tmp_path, values, message):
    refused(edited(tmp_path / "a", dinov2, **values), message)


def test_keys_that_say_nothing_are_none(dinov2, tmp_path):
    values = {"pruned_heads": {}, "num_register_tokens": False, "custom_pipelines": {"a": {}}}
    folder = edited(tmp_path / "a", dinov2, layerscale_value=0.5, image_size=[84, 84], **values)
    assert build(folder).as_vit["difference"] < 1e-5


@pytest.mark.parametrize("lost", ["layer_scale1.lambda1", "attention.value.weight", "layernorm"])
def test_weights_that_are_not_there(dinov2, tmp_path, lost):
    without = lambda state: {k: v for k, v in state.items() if lost not in k}  # noqa: E731
    refused(with_weights(tmp_path / "a", dinov2, without), f"do not give .*{lost.split('.')[0]}")


def test_the_mask_token_may_be_missing(dinov2, tmp_path):
    without = lambda state: {k: v for k, v in state.items() if "mask" not in k}  # noqa: E731
    assert build(with_weights(tmp_path / "a", dinov2, without)).as_vit["difference"] < 1e-5
    assert build(save(tmp_path / "b", use_mask_token=False)).as_vit["difference"] < 1e-5


def test_weights_without_a_place(dinov2, tmp_path):
    more = lambda state: {**state, "embeddings.register_tokens": torch.ones(1, 4, 32)}  # noqa: E731
    refused(with_weights(tmp_path / "a", dinov2, more), "also give .*register_tokens")


def test_weights_that_are_not_finite(dinov2, tmp_path):
    def broken(state):
        key = next(key for key in state if key.endswith("lambda1"))
        return {**state, key: state[key] * float("nan")}

    refused(with_weights(tmp_path / "a", dinov2, broken), "differs by nan from Dinov2Model's")


def test_pickles_are_not_opened(dinov2, tmp_path):
    folder = edited(tmp_path / "a", dinov2)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin only, a pickle")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit", "is deit, which is not exactly a ViT: its distillation token"),
        (
            "swin",
            "is swin, .*: as_vit knows dinov2, vit_mae, vit_msn, and vit itself; leave as_vit",
        ),
    ],
)
def test_other_networks_are_named(tmp_path, name, message):
    refused(save_backbone(tmp_path / name, name, LABELS), message)


def test_every_refusal_is_of_an_architecture_that_transformers_has():
    for kind in (*CONVERTED, *REFUSED):
        config = transformers.AutoConfig.for_model(kind)
        assert config.model_type == kind
    for kind, why in REFUSED.items():
        with pytest.raises(
            UserError, match=re.escape(f"x is {kind}, which is not exactly a ViT: {why};")
        ):
            clothes_of(transformers.AutoConfig.for_model(kind), "x")


def test_as_vit_is_for_a_model():
    for values in ({}, {"model_config": {}}, {"model_config": {"hidden_size": 32}}):
        with pytest.raises(UserError, match="^as_vit is true, and model.* a network from scratch"):
            ModelArguments(as_vit=True, **values)
