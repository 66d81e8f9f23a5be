# SPDX-License-Identifier: Apache-2.0
"""Random erasing, mixup and cutmix against their definitions; what they depend on."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inference.food_images import Preprocessing
from tests.unit.input.test_train_images import SIZE, encoded, same
from tests.unit.toys import jpeg
from training.engine.extensions.erasing import Erasing
from training.engine.extensions.mixing import Mixing
from training.engine.loss import Criterion
from training.input.arguments import Augmentation
from training.input.batch import EpochSampler, collate, to_model_input
from training.input.mixing import (
    DrawErasing,
    DrawMixing,
    cutmix_box,
    erase,
    erasing_box,
    mix,
    mixing,
    own_share,
    partners,
)
from training.input.train_images import POLICY, TrainImages

N = 4000


def draws(height: int = 100, width: int = 100, **keys: float) -> list[dict]:
    rng = np.random.default_rng(0)
    return [mixing(height, width, Augmentation(**keys), rng) for _ in range(N)]


def is_near(count: int, probability: float) -> bool:
    """Five standard deviations of a binomial."""
    return abs(count - N * probability) <= 5 * math.sqrt(N * probability * (1 - probability))


# ---- the laws ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixups_lambda_is_beta(alpha):
    lam = np.array([drawn["mix_lambda"] for drawn in draws(mixup=alpha)])
    assert lam.min() >= 0 and lam.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha), whose mean is 1/2
    assert lam.mean() == pytest.approx(0.5, abs=5 * math.sqrt(variance / N))
    assert lam.var() == pytest.approx(variance, rel=0.1)
    reference = np.sort(np.random.default_rng(1).beta(alpha, alpha, 40_000))
    levels = np.linspace(0.05, 0.95, 19)
    counts = np.searchsorted(np.sort(lam), np.quantile(reference, levels))
    assert all(is_near(count, level) for count, level in zip(counts, levels, strict=True))


def test_cutmixs_box_has_its_share_around_a_uniform_centre():
    rng, side = np.random.default_rng(0), 1000
    for lam in (0.36, 0.75, 1.0):
        boxes = np.array([cutmix_box(side, side, lam, rng) for _ in range(N)])
        top, left, height, width = boxes.T
        assert (boxes >= 0).all()
        assert (top + height <= side).all() and (left + width <= side).all()
        edge = int(side * math.sqrt(1 - lam)) // 2 * 2
        assert height.max() == width.max() == edge
        inside = (top > 0) & (top + height < side)
        assert (height[inside] == edge).all()
        # A centre is nearer than half an edge to one border or the other, and then is cut off.
        assert is_near((height < edge).sum(), edge / side)
        # Only the centre is uniform: on average a border takes a quarter of the edge squared.
        assert height.mean() == pytest.approx(edge - edge**2 / side / 4, abs=0.02 * side)


def test_the_share_of_labels_is_that_of_the_pixels():
    drawn = draws(40, 30, cutmix=1.0)
    lambdas = torch.tensor([each["mix_lambda"] for each in drawn])
    boxes = torch.tensor(np.array([each["mix_box"] for each in drawn]))
    assert (lambdas == 1).all()
    pixels = torch.arange(2.0).repeat(50).view(100, 1, 1, 1).expand(100, 3, 40, 30)
    boxes = boxes[:50].repeat_interleave(2, dim=0)  # one a pair
    mixed = mix(pixels, lambdas[:100], boxes)
    kept = (mixed == pixels).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(own_share(lambdas[:100], boxes, 1200), kept)
    assert 0.3 < kept.mean() < 0.8


def test_switch_and_probability():
    def shares(**keys: float) -> tuple[int, int, int]:
        """mixup, cutmix, neither; the box of cutmix may be empty, the lambda of mixup never is 1."""
        drawn = draws(10_000, 10_000, **keys)
        cut = sum(each["mix_box"].any() for each in drawn)
        mixup = sum(each["mix_lambda"] != 1 for each in drawn)
        return mixup, cut, N - cut - mixup

    assert shares(mixup=1.0) == (N, 0, 0)
    assert shares(cutmix=1.0)[0] == 0 and shares(cutmix=1.0)[1] > 0.99 * N
    # Where one is off, the switch means nothing, as in timm.
    assert shares(mixup=1.0, mix_switch_probability=1.0) == (N, 0, 0)
    mixup, cut, _ = shares(mixup=1.0, cutmix=1.0, mix_switch_probability=0.25)
    assert is_near(mixup, 0.75) and is_near(cut, 0.25)
    mixup, cut, none = shares(mixup=1.0, cutmix=1.0, mix_probability=0.4)
    assert is_near(mixup, 0.2) and is_near(cut, 0.2) and is_near(none, 0.6)


def test_erased_boxes_keep_to_their_area_and_ratio():
    rng, side = np.random.default_rng(0), 1000
    boxes = np.array([erasing_box(side, side, 1.0, rng) for _ in range(N)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (top + height <= side).all() and (left + width <= side).all()
    share, ratio = height * width / side**2, height / width
    assert 0.0195 < share.min() < 0.021 and 0.325 < share.max() < 0.3305
    assert 0.295 < ratio.min() < 0.31 and 3.2 < ratio.max() < 3.35
    assert abs(np.log(ratio).mean()) < 0.05  # upright as often as lying
    # Boxes that would not fit are drawn again; all of up to 0.09 / 0.3 of the area fit.
    counts, _ = np.histogram(share, bins=6, range=(0.02, 0.29))
    assert (abs(counts - counts.mean()) < 5 * math.sqrt(counts.mean())).all()
    assert is_near(sum(erasing_box(64, 64, 0.3, rng).any() for _ in range(N)), 0.3)


# ---- on the device ----------------------------------------------------------------------------


def test_erasing_and_mixing_pixel_by_pixel():
    pixels, boxes = (
        torch.randn(4, 3, 8, 6),
        torch.tensor([[0] * 4, [1, 2, 3, 4], [7, 5, 1, 1], [0, 0, 8, 6]]),
    )
    erased = erase(pixels, boxes)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        expected = pixels[i].clone()
        expected[:, top : top + height, left : left + width] = 0
        assert torch.equal(erased[i], expected)
    boxes = torch.tensor([[2, 1, 4, 3]] * 2 + [[0] * 4] * 2)
    mixed = mix(pixels, torch.tensor([1.0, 1.0, 0.3, 0.3]), boxes)
    for i, j in ((0, 1), (1, 0)):
        expected = pixels[i].clone()
        expected[:, 2:6, 1:4] = pixels[j][:, 2:6, 1:4]
        assert torch.equal(mixed[i], expected)
    for i, j in ((2, 3), (3, 2)):
        torch.testing.assert_close(mixed[i], 0.3 * pixels[i] + 0.7 * pixels[j])
    assert partners(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]


class Waits(TorchDispatchMode):
    """The operations that on a GPU would wait for the device."""

    seen: tuple[str, ...] = ()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select"):
            self.seen += (func.overloadpacket.__name__,)
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device(images):
    batch = collate(images(**ALL).__getitems__([0, 1, 2, 3]))
    on_device(batch)  # makes the constants of the normalisation
    with Waits() as waits:
        inputs, logits = on_device(batch), torch.randn(4, 3)
        criterion = Criterion(q=0.7)
        Mixing(None, criterion).loss(logits, inputs, criterion(logits, inputs["labels"]))
    assert waits.seen == ()


# ---- what a mixed image depends on ------------------------------------------------------------

ALL = {"auto_augment": "randaugment", "color_jitter": 0.4, "random_erasing": 0.5, "mixup": 0.8,
       "cutmix": 1.0, "mix_probability": 0.8}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    dataset = encoded([jpeg(i, (48, 40)) for i in range(24)])

    def images(seed: int = 0, size: Preprocessing = SIZE, **keys: object) -> TrainImages:
        augmentation = Augmentation(**keys)
        draws = [
            DrawErasing(size.height, size.width, augmentation.random_erasing),
            DrawMixing(size.height, size.width, augmentation),
        ]
        on = [augmentation.random_erasing > 0, augmentation.mixes(0)]
        chosen = list(itertools.compress(draws, on))
        return TrainImages(dataset, size, augmentation, seed, chosen)

    return images


def on_device(batch: dict) -> dict:
    """What the network sees, with the labels' shares, as the trainer makes it."""
    inputs = to_model_input(batch, SIZE)
    for extension in (Erasing(None), Mixing(None, Criterion())):
        extension.before_forward(inputs)
    kept = ("pixel_values", "labels", "own_share")
    return {name: inputs[name] for name in kept if name in inputs}


def inputs_of(images: TrainImages, keys: list[int], workers: int, batch: int) -> dict:
    loader = torch.utils.data.DataLoader(
        images, batch_size=batch, sampler=keys, num_workers=workers, collate_fn=collate
    )
    batches = [on_device(each) for each in loader]
    return {name: torch.cat([each[name] for each in batches]) for name in batches[0]}


@pytest.mark.parametrize(("workers", "batch"), [(0, 2), (1, 4), (2, 4)])
def test_neither_batches_nor_workers_matter(images, workers, batch):
    sampler = EpochSampler(24, 8, seed=0)
    sampler.set_epoch(1)
    keys = list(sampler)
    torch.manual_seed(workers)
    one = inputs_of(images(**ALL), keys, 0, 8)
    other = inputs_of(images(**ALL), keys, workers, batch)
    assert set(one) == {"pixel_values", "labels", "own_share"}
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert len(one["own_share"].unique()) > 4
    assert not torch.equal(one["own_share"], inputs_of(images(1, **ALL), keys, 0, 8)["own_share"])


def test_both_of_a_pair_are_mixed_alike(images):
    first, second, third, fourth = images(mixup=1.0, cutmix=1.0).__getitems__([5, 9, 2, 30])
    for name in ("mix_lambda", "mix_box"):
        assert np.array_equal(first[name], second[name])
        assert np.array_equal(third[name], fourth[name])
    assert (first["mix_lambda"], *first["mix_box"]) != (third["mix_lambda"], *third["mix_box"])


def test_mixing_ends_with_its_epoch(images):
    chosen = images(mixup=1.0, mix_off_epoch=2)
    for epoch in range(4):
        batch = collate(chosen.__getitems__([24 * epoch, 24 * epoch + 1]))
        assert ("mix_lambda" in batch) == (epoch < 2)
        assert ("own_share" in on_device(batch)) == (epoch < 2)
    assert Augmentation(mixup=1.0).mixes(epoch=10**6)


def test_one_augmentation_leaves_the_draws_of_the_others(images):
    """Crop, flip, boxes and lambda are the same whatever else is on."""
    keys, both = list(range(24)), {"random_erasing": 0.5, "mixup": 0.8}
    plain, some = images().__getitems__(keys), images(**both).__getitems__(keys)
    assert all(same(a, b) for a, b in zip(plain, some, strict=True))
    more = images(**both, auto_augment="trivialaugment").__getitems__(keys)
    for a, b in zip(some, more, strict=True):
        assert a["flip"] == b["flip"] and np.array_equal(a["erase_box"], b["erase_box"])
        assert a["mix_lambda"] == b["mix_lambda"]
    assert not all(same(a, b) for a, b in zip(some, more, strict=True))


def test_no_two_kinds_share_their_random_numbers(images):
    chosen = images(seed=3)
    first = [
        chosen._stream(1, 2, kind).random()
        for kind in (POLICY, DrawErasing.stream, DrawMixing.stream)
    ]
    own = np.random.default_rng((3, 1, 2)).random()  # crop and flip
    assert len({own, *first}) == 4
