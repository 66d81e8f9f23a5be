# SPDX-License-Identifier: Apache-2.0
"""The recipe's keys about augmentation."""

import pickle

import pytest

from training.common.errors import UserError
from training.input.arguments import Augmentation


@pytest.mark.parametrize("scale", [[0.5], [0, 1], [0.9, 0.1], [0.5, 1.5], [float("nan"), 1.0]])
def test_impossible_crop_scales(scale):
    with pytest.raises(UserError, match=r"^crop_scale is \[.*: give two shares of the area"):
        Augmentation(crop_scale=scale)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizontal_flip": 1.5}, "horizontal_flip is 1.5: give a probability"),
        ({"mixup": 1001.0}, "mixup is 1001.0: give a number from 0 to 1000; 0 is off"),
        ({"randaugment_num_ops": 15}, "is 15: give 1 to 14, or auto_augment off"),
        ({"auto_augment": "auto"}, "'auto': give off, randaugment or trivialaugment"),
        ({"mix_off_epoch": -1}, "mix_off_epoch is -1: give an epoch, or 0 for never"),
    ],
)
def test_impossible_values_are_named(values, message):
    with pytest.raises(UserError) as error:
        Augmentation(**values)
    assert message in str(error.value)


def test_augmentation_is_off_unless_asked_for():
    plain = ["crop_scale", "horizontal_flip", "reduced_decoding"]
    assert list(Augmentation().in_force()) == plain
    some = Augmentation(mixup=0.8, auto_augment="randaugment").in_force()
    more = ["auto_augment", "randaugment_num_ops", "randaugment_magnitude", "mixup"]
    assert list(some) == [*plain, *more, "mix_probability"]


def test_mixing_has_a_last_epoch():
    assert not Augmentation().mixes(0)
    assert not Augmentation(mixup=0.8, mix_probability=0.0).mixes(0)
    ending = Augmentation(cutmix=1.0, mix_off_epoch=2)
    assert [ending.mixes(epoch) for epoch in range(4)] == [True, True, False, False]
    assert Augmentation(cutmix=1.0).mixes(10**6)


def test_a_worker_gets_an_equal_one():
    augmentation = Augmentation(mixup=0.3, crop_scale=[0.2, 0.9])
    assert pickle.loads(pickle.dumps(augmentation)) == augmentation
