# SPDX-License-Identifier: Apache-2.0
"""The order of the images, stacked batches, and what is done to them on the device."""

import numpy as np
import torch

from inference.food_images import Preprocessing
from training.input.batch import EpochSampler, collate, to_model_input

SIZE = Preprocessing(4, 4, None, "bilinear", (0.5,) * 3, (0.25,) * 3, 1 / 255)
UNEVEN = Preprocessing(16, 16, None, "bilinear", (0.5, 0.4, 0.3), (0.5, 0.25, 0.2), 1 / 255)


# ---- the order --------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_cut_to_whole_global_batches():
    sampler = EpochSampler(num_images=11, total_train_batch_size=4, seed=3)
    first = list(sampler)
    assert len(first) == len(sampler) == 8 and sampler.steps_per_epoch == 2
    assert len(set(first)) == 8 and set(first) <= set(range(11))
    sampler.set_epoch(2)
    third = list(sampler)
    assert all(22 <= key < 33 for key in third)  # the epoch is carried in the keys
    assert [key % 11 for key in third] != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(EpochSampler(11, 4, seed=4)) != first


def epoch_keys(epoch: int, seed: int = 0, num_images: int = 21, batch: int = 4) -> list[int]:
    sampler = EpochSampler(num_images, batch, seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == num_images // batch * batch == batch * sampler.steps_per_epoch
    return list(sampler)


def test_no_position_comes_twice():
    positions = [key - 3 * 21 for key in epoch_keys(epoch=3)]
    assert len(positions) == 20 == len(set(positions))
    assert set(positions) < set(range(21))


def test_keys_carry_the_epoch():
    for epoch in (0, 1, 7):
        assert {key // 21 for key in epoch_keys(epoch)} == {epoch}


def test_the_order_depends_on_seed_and_epoch():
    def order(epoch: int, seed: int) -> list[int]:
        return [key % 21 for key in epoch_keys(epoch, seed)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)
    # (seed, epoch) is not seed + epoch: seed 1 does not continue where seed 0 is an epoch later.
    assert order(1, 0) != order(0, 1)


def test_every_image_is_left_out_now_and_then():
    seen = [set(key % 21 for key in epoch_keys(epoch)) for epoch in range(60)]
    left_out = [next(iter(set(range(21)) - one)) for one in seen]
    assert len(set(left_out)) > 15


# ---- batches ----------------------------------------------------------------------------------


def test_examples_are_stacked_and_whole_batches_left_alone():
    examples = [{"pixel_values": torch.full((3, 2, 2), i), "labels": i, "flip": i == 1,
                 "box": np.array([i] * 4)} for i in range(3)]  # fmt: skip
    batch = collate(examples)
    assert batch["pixel_values"].shape == (3, 3, 2, 2)
    assert batch["labels"].tolist() == [0, 1, 2] and batch["flip"].tolist() == [False, True, False]
    assert batch["box"].shape == (3, 4)
    assert collate(batch) is batch


def test_flagged_images_are_mirrored_and_all_are_normalised():
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    drawn = torch.rand(2, 5)
    batch = {"pixel_values": pixels, "flip": torch.tensor([True, False]), "drop_path": drawn}
    inputs = to_model_input(batch, SIZE)
    assert inputs.keys() == {"pixel_values", "drop_path"} and inputs["drop_path"] is drawn
    expected = torch.stack([pixels[0].flip(-1), pixels[1]]) / 255
    torch.testing.assert_close(inputs["pixel_values"], (expected - 0.5) / 0.25)
    assert batch["pixel_values"] is pixels and "flip" in batch  # the batch itself is left alone


def test_a_batch_that_is_scored_is_only_normalised():
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert to_model_input({"pixel_values": pixels}, SIZE)["pixel_values"].unique().tolist() == [-2]


def test_every_channel_has_its_own_mean_and_deviation():
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    flip = torch.tensor([True, False, False, True])
    batch = {"pixel_values": pixels, "labels": torch.arange(4), "flip": flip}
    got = to_model_input(batch, UNEVEN)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (UNEVEN.image_mean, UNEVEN.image_std))
    for i in range(4):
        expected = torch.flip(pixels[i], [-1]) if flip[i] else pixels[i]
        expected = (expected / 255 - mean) / std
        torch.testing.assert_close(got["pixel_values"][i], expected, atol=2e-6, rtol=0)
    assert set(got) == {"pixel_values", "labels"}
    assert got["pixel_values"].dtype == torch.float32
