"""Preprocessing against the image processors themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from inference.food_images import Preprocessing
from tests.unit.pictures import assert_one_line, photo, square

# ---- Preprocessing against the image processors themselves --------------------------------------


def build(name, **options):
    cls = getattr(transformers, f"{name}ImageProcessorPil", None)
    if cls is None:
        pytest.skip(f"transformers {transformers.__version__} has no {name}ImageProcessorPil")
    return cls(**options)


PROCESSORS = {
    "vit": ("ViT", {"size": square(32)}),
    "vit bicubic, not square": ("ViT", {"size": {"height": 32, "width": 48}, "resample": 3}),
    "vit default": ("ViT", {}),
    "vit no normalise": ("ViT", {"size": square(32), "do_normalize": False}),
    "vit no rescale": ("ViT", {"size": square(32), "do_rescale": False, "do_normalize": False}),
    "vit one mean": ("ViT", {"size": square(32), "image_mean": 0.5, "image_std": 0.25}),
    "deit": ("DeiT", {"size": square(40), "crop_size": square(32)}),
    "bit": ("Bit", {"size": {"shortest_edge": 37}, "crop_size": square(32)}),
    "clip": ("CLIP", {"size": {"shortest_edge": 32}, "crop_size": square(32)}),
    "clip odd crop": ("CLIP", {"size": {"shortest_edge": 40}, "crop_size": square(33)}),
    "convnext": ("ConvNext", {"size": {"shortest_edge": 32}}),
    "convnext 0.9": ("ConvNext", {"size": {"shortest_edge": 48}, "crop_pct": 0.9}),
    "convnext 384": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "mobilenet v2": ("MobileNetV2", {"size": {"shortest_edge": 36}, "crop_size": square(32)}),
    "siglip": ("Siglip", {"size": square(32)}),
}
SIZES = [
    (32, 32),
    (48, 64),
    (64, 48),
    (101, 67),
    (67, 101),
    (33, 300),
    (300, 33),
    (512, 384),
    (9, 8),
]


# Torch and Pillow round the antialiased uint8 resize differently, and Pillow 13 takes rows before
# columns where that is cheaper (tall images). Measured, in levels of 255: at most 1, for bicubic
# (which overshoots and is clipped between the two passes) 2; on average 0.003 to 0.07.
MAX_LEVELS, MEAN_LEVELS = 2.01, 0.1


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_is_the_processors_own(name):
    kind, options = PROCESSORS[name]
    processor = build(kind, **options)
    ours = Preprocessing.from_processor(processor)
    level = ours.rescale_factor / min(ours.image_std)  # one of 255, in the model's units
    means = []
    for height, width in SIZES:
        image = np.asarray(photo(height, width))
        expected = np.asarray(processor(image)["pixel_values"][0])
        pixels = ours.crop(image)
        assert pixels.dtype == torch.uint8 and pixels.shape == (3, ours.height, ours.width)
        result = ours.normalize(pixels[None])[0].numpy()
        assert result.dtype == np.float32
        difference = np.abs(result - expected) / level
        assert difference.max() < MAX_LEVELS, (height, width)
        means.append(difference.mean())
    assert np.mean(means) < MEAN_LEVELS


@pytest.mark.parametrize(
    "kind, options, part",
    [
        ("ViT", {"do_resize": False}, "do_resize"),
        ("ViT", {"resample": 0}, "resample"),
        ("ViT", {"resample": 1}, "resample"),
        ("Bit", {"do_center_crop": False}, "shortest_edge"),
        ("CLIP", {"size": {"shortest_edge": 32}, "crop_size": square(48)}, "larger"),
        ("ConvNext", {"size": square(32)}, "ConvNext"),
        ("Levit", {}, "Levit"),  # resizes to 256 / 224 of what it says
        ("EfficientNet", {}, "EfficientNet"),  # subtracts 1 after rescaling
        ("MobileViT", {"size": {"shortest_edge": 288}}, "MobileViT"),  # flips the channels
        ("ImageGPT", {}, "ImageGPT"),  # makes clusters of colours
        ("Donut", {"size": square(64)}, "Donut"),  # pads
    ],
)
def test_unsupported_processors_are_named(kind, options, part):
    processor = build(kind, **options)
    with pytest.raises(ValueError) as error:
        Preprocessing.from_processor(processor)
    assert_one_line(error, part)


def test_a_fixed_resize_with_extra_keys_is_refused():
    processor = SimpleNamespace(
        do_resize=True, resample=3, do_normalize=False, do_rescale=False, do_center_crop=True,
        size={"shortest_edge": 32, "longest_edge": 64}, crop_size=square(32),
    )  # fmt: skip
    with pytest.raises(ValueError, match="longest_edge"):
        Preprocessing.from_processor(processor)


def test_normalize_dtype_and_batch():
    ours = Preprocessing.from_processor(build("ViT", size=square(32)))
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    full = ours.normalize(pixels)
    torch.testing.assert_close(full, pixels / 127.5 - 1, atol=1e-6, rtol=0)
    assert ours.normalize(pixels, torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(full[1], ours.normalize(pixels[1:2])[0])
