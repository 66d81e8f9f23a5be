# SPDX-License-Identifier: Apache-2.0
"""Random erasing as an extension: the boxes of a batch, and when there are any."""

import torch

from tests.unit.toys import tiny_network, tiny_settings
from training.engine.extensions.erasing import Erasing
from training.input.mixing import DrawErasing


def test_the_drawn_boxes_become_the_mean_colour():
    pixels = torch.ones(2, 3, 8, 6)
    batch = {"pixel_values": pixels, "erase_box": torch.tensor([[1, 2, 3, 4], [0] * 4])}
    Erasing(None).before_forward(batch)
    first, second = batch["pixel_values"]
    assert not first[:, 1:4, 2:6].any() and first.sum() == 3 * (48 - 12)
    assert second.all()
    assert pixels.all()  # the images that were given are not written into


def test_a_batch_without_draws_is_left_alone():
    pixels = torch.ones(2, 3, 8, 6)
    batch = {"pixel_values": pixels}
    Erasing(None).before_forward(batch)
    assert batch == {"pixel_values": pixels}


def test_it_is_made_where_the_recipe_erases(tmp_path):
    network = tiny_network()
    assert Erasing.build(network, tiny_settings(tmp_path)) is None
    erasing = Erasing.build(network, tiny_settings(tmp_path, random_erasing=0.25))
    assert erasing.draws == DrawErasing(32, 32, 0.25)
