# SPDX-License-Identifier: Apache-2.0
"""One picture of the whole way."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from inference.apps.explain.encoding import shares
from inference.apps.explain.page import measure
from inference.apps.explain.strip import GAP, TILE, save_strip, strip
from tests.unit.explained import draw, save_cnn, save_vit
from training.common.errors import UserError


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    place = tmp_path_factory.mktemp("strip")
    save_vit(place / "vit")
    return measure([str(place / "vit")], str(draw(place / "dinner.png")))


def squares(sheet: Image.Image) -> list[np.ndarray]:
    pixels = np.asarray(sheet)
    starts = range(0, pixels.shape[1], TILE + GAP)
    return [pixels[:, start : start + TILE, :3].astype(float) for start in starts]


def test_five_squares_lie_beside_each_other(facts, tmp_path):
    save_strip(facts, tmp_path / "strip.png")
    assert os.listdir(tmp_path) == ["strip.png"]
    sheet = Image.open(tmp_path / "strip.png")
    assert sheet.size == (5 * TILE + 4 * GAP, TILE) and len(squares(sheet)) == 5
    assert not np.asarray(sheet)[:, TILE : TILE + GAP, 3].any()  # between them it is transparent


def test_light_is_where_the_numbers_are_large(facts):
    """A map of one patch alone: there the photograph is as it is, far from it a fifth of it."""
    values = np.zeros((4, 4), np.float32)
    values[1, 2] = 1
    why = [{**facts["answer"]["why"][0], "map": shares(values)}]
    picture = squares(strip({**facts, "answer": {**facts["answer"], "why": why}}))
    plain, shown = picture[0], picture[-1]
    side = TILE // 4
    middle = np.s_[side + 30 : side + 40, 2 * side + 30 : 2 * side + 40]
    assert np.abs(shown[middle] - plain[middle]).mean() < 12  # falls off from the middle
    corner = np.s_[-40:-10, 10:40]
    assert np.abs(shown[corner] - plain[corner] / 5).mean() < 2


def test_attention_is_the_mean_of_the_heads_in_three_blocks(facts):
    attention = {**facts["attention"], "largest": torch.ones(3, 4).tolist()}
    for layer in range(3):
        rows = np.zeros((3, 4, 16), np.float32)
        rows[layer, :, 5] = rows[:, 1, 6] = 1
        changed = squares(strip({**facts, "attention": {**attention, "rows": shares(rows)}}))
        bright = [each[90:120, 90:120].mean() for each in changed[1:4]]
        assert np.argmax(bright) == layer


def test_a_network_of_two_blocks_has_two_squares_of_attention(facts):
    attention = {**facts["attention"], "layers": 2}
    assert len(squares(strip({**facts, "attention": attention}))) == 4


def test_a_cnn_has_no_patches_to_show(tmp_path):
    found = measure([str(save_cnn(tmp_path / "cnn"))], str(draw(tmp_path / "dinner.png")))
    with pytest.raises(UserError, match="is no ViT"):
        save_strip(found, tmp_path / "strip.png")
    assert not (tmp_path / "strip.png").exists()
