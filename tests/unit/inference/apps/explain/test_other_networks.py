# SPDX-License-Identifier: Apache-2.0
"""Networks that are not as most are: what the page says must hold of them too."""

import numpy as np
import pytest
import torch
import transformers

from inference.apps.explain.page import LANGUAGES
from inference.apps.explain.subject import shown_photo
from inference.apps.explain.vit import anatomy
from inference.food_explain import vit_parts
from inference.food_images import Preprocessing
from tests.unit.explained import SHAPE, Read, draw, save_vit, vit, written
from tests.unit.pictures import LABELS, square


def said(folder, model, language="en", **options) -> str:
    save_vit(folder / "model", model)
    photo = draw(folder / "dinner.png")
    page = Read(written([folder / "model"], photo, language=language, **options))
    return " ".join([*page.of("p"), *page.of("figcaption")])


def test_relu_is_not_compared_with_itself(tmp_path):
    text = said(tmp_path, vit(hidden_act="relu"))
    assert "ReLU makes 0 of all of these" in text
    assert "With ReLU in its place" not in text and "is curved" not in text


def test_one_block_one_head_and_one_patch(tmp_path):
    text = said(tmp_path, vit(num_hidden_layers=1, num_attention_heads=1, image_size=8))
    assert "One block follows, with 1 head of attention." in text
    assert "1 × 1 = 1 patch of 8 × 8 pixels" in text and "cut into 1 head of 32 numbers" in text
    assert " % to itself; what" in text and "adjacent patch" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_scores_that_do_not_exclude_each_other_are_no_softmax(tmp_path, language):
    model = vit()
    model.config.problem_type = "multi_label_classification"
    for i, each in enumerate((model, vit(labels=LABELS[:1]))):
        (tmp_path / str(i)).mkdir()
        text = said(tmp_path / str(i), each, language)
        assert "sigmoid" in text and "softmax makes" not in text and "softmax 함수" not in text


def test_a_distillation_token_that_no_head_reads(tmp_path):
    torch.manual_seed(0)
    text = said(
        tmp_path,
        transformers.DeiTForImageClassification(transformers.DeiTConfig(**SHAPE, num_labels=5)),
    )
    assert "read from it alone; DeiT's distillation token stands beside it" in text
    assert "the class token alone; the other 17 tokens end here" in text


def test_a_map_of_nothing_is_told(tmp_path):
    model = vit()
    with torch.no_grad():
        model.classifier.weight.zero_()
    text = said(tmp_path, model)
    assert "No part of this picture speaks for" in text and "The brightest tenth" not in text


def test_patches_that_are_no_squares():
    model = vit(patch_size=(8, 4), image_size=(32, 48))
    pixels = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    patches = anatomy(model, vit_parts(model), pixels, 0)["patches"]
    assert patches == {
        "rows": 4, "columns": 12, "count": 48, "size": [8, 4], "numbers": 8 * 4 * 3,
        "tokens": 49, "first": 1,
    }  # fmt: skip


def test_what_is_resized_and_then_cut_is_told_with_both_sizes():
    steps = Preprocessing.from_processor(
        transformers.DeiTImageProcessorPil(size={"height": 36, "width": 48}, crop_size=square(32))
    )
    shown = shown_photo(np.zeros((60, 90, 3), np.uint8), steps)
    assert shown["resized"] == [36, 48] and not shown["keeps_shape"]
    assert shown["lost"] == pytest.approx(1 - 32 * 32 / (36 * 48))
