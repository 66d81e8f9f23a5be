# SPDX-License-Identifier: Apache-2.0
"""The recipe's keys about augmentation."""

import math
import pickle

import pytest

from training.common.errors import UserError
from training.input.arguments import Augmentation


@pytest.mark.parametrize("scale", [[0.5], [0, 1], [0.9, 0.1], [0.5, 1.5], [float("nan"), 1.0]])
def test_impossible_crop_scales(scale):
    with pytest.raises(UserError, match=r"^crop_scale is \[.*: give two shares of the area"):
        Augmentation(crop_scale=scale)


PROBABILITY = "give a probability"
ALPHA = "give a number from 0 to 1000; 0 is off"
JITTER = "give a number from 0 to 10; 0 is off"


@pytest.mark.parametrize(
    ("key", "value", "cure"),
    [
        ("horizontal_flip", 1.5, PROBABILITY),
        ("random_erasing", 1.1, PROBABILITY),
        ("mix_probability", 2.0, PROBABILITY),
        ("mix_switch_probability", -0.5, PROBABILITY),
        ("mixup", -1.0, ALPHA),
        ("mixup", 1001.0, ALPHA),
        ("mixup", math.inf, ALPHA),
        ("cutmix", 1e308, ALPHA),
        ("cutmix", math.nan, ALPHA),
        ("color_jitter", -0.1, JITTER),
        ("color_jitter", 1e300, JITTER),
        ("randaugment_num_ops", 0, "give 1 to 14, or auto_augment off"),
        ("randaugment_num_ops", 15, "give 1 to 14, or auto_augment off"),
        ("randaugment_magnitude", -1, "give a whole number, 0 to 30"),
        ("randaugment_magnitude", 31, "give a whole number, 0 to 30"),
        ("mix_off_epoch", -1, "give an epoch, or 0 for never"),
        ("reduced_decoding", "always", "give off, strict or loose"),
        ("auto_augment", "autoaugment", "give off, randaugment or trivialaugment"),
    ],
)
def test_impossible_values_are_named(key, value, cure):
    with pytest.raises(UserError) as error:
        Augmentation(**{key: value})
    assert str(error.value) == f"{key} is {value!r}: {cure}"


def test_the_ends_of_the_ranges_are_taken():
    Augmentation(mixup=1000.0, cutmix=0.0, color_jitter=10.0, random_erasing=1.0)
    Augmentation(crop_scale=[1.0, 1.0], randaugment_num_ops=14, randaugment_magnitude=30)


def test_augmentation_is_off_unless_asked_for():
    plain = ["crop_scale", "horizontal_flip", "reduced_decoding"]
    assert list(Augmentation().active_keys()) == plain
    some = Augmentation(mixup=0.8, auto_augment="randaugment").active_keys()
    more = ["auto_augment", "randaugment_num_ops", "randaugment_magnitude", "mixup"]
    assert list(some) == [*plain, *more, "mix_probability"]
    ending = Augmentation(cutmix=1.0, mix_off_epoch=1).active_keys()
    assert list(ending) == [*plain, "cutmix", "mix_off_epoch", "mix_probability"]


def test_mixing_has_a_last_epoch():
    assert not Augmentation().mixes(0)
    assert not Augmentation(mixup=0.8, mix_probability=0.0).mixes(0)
    ending = Augmentation(cutmix=1.0, mix_off_epoch=2)
    assert [ending.mixes(epoch) for epoch in range(4)] == [True, True, False, False]
    assert Augmentation(cutmix=1.0).mixes(10**6)


def test_a_worker_gets_an_equal_one():
    augmentation = Augmentation(mixup=0.3, crop_scale=[0.2, 0.9])
    assert pickle.loads(pickle.dumps(augmentation)) == augmentation
