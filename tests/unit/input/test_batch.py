# SPDX-License-Identifier: Apache-2.0
"""The order of the images, stacked batches, and what is done to them on the device."""

import numpy as np
import torch

from inference.food_classification import Preprocessing
from training.input.batch import EpochSampler, collate, to_model_input

SIZE = Preprocessing(4, 4, None, "bilinear", (0.5,) * 3, (0.25,) * 3, 1 / 255)


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
