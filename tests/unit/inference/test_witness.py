"""Decoding and preprocessing against hf-processors-rs, which has them in Rust and shares no code.

It promises the numbers of transformers' processors with torchvision, which this project does not
install. Measured with version 0.1.0: 7.2e-7 at most (ImageNet's mean and standard deviation), 1.2e-7
where they are 0.5, 0 without them.
"""

import io

import numpy as np
import pytest
from PIL import Image

from inference.food_images import Preprocessing, decode_image
from tests.unit.inference.test_food_images import build
from tests.unit.pictures import FOOD10, encode, photo, square

witness = pytest.importorskip(
    "hf_processors_rs", reason="hf-processors-rs is not installed: pip install hf-processors-rs"
)

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
BYTES = {"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [58.4, 57.1, 57.4]}
PROCESSORS = {
    "plain": ("ViT", {}),
    "bicubic": ("ViT", {"resample": 3}),
    "384": ("ViT", {"size": square(384)}),
    "not square": ("ViT", {"size": {"height": 160, "width": 288}}),
    "ImageNet's mean": ("ViT", IMAGENET),
    "one mean": ("ViT", {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}),
    "not normalised": ("ViT", {"do_normalize": False}),
    "to -1 .. 1 by rescaling": ("ViT", {"rescale_factor": 2 / 255, "do_normalize": False}),
    "mean in bytes": ("ViT", BYTES),
    "bytes": ("ViT", {"do_rescale": False, "do_normalize": False}),
    "shortest edge, bicubic": ("CLIP", {}),
    "shortest edge, bilinear": ("CLIP", {"size": {"shortest_edge": 256}, "resample": 2}),
    "odd crop": ("CLIP", {"size": {"shortest_edge": 250}, "crop_size": square(225)}),
    "both edges, then a crop": ("CLIP", {"size": square(256)}),
    "a share of the edge": ("ConvNext", {"size": {"shortest_edge": 224}}),
    "no crop from 384 on": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "another family": ("Siglip", {}),
}
SIZES = [
    (512, 384), (384, 512), (224, 224), (225, 223), (100, 80), (37, 53), (900, 300), (301, 1203),
    (1500, 2000), (7, 300), (1, 1),
]  # fmt: skip
LARGEST = 1e-6


def both(kind, **options):
    """Make a processor of transformers twice: as this project reads it, and as the witness does."""
    processor = build(kind, do_convert_rgb=True, **options)
    theirs = witness.AutoImageProcessor.from_dict(processor.to_dict(), backend="torchvision")
    ours = Preprocessing.from_processor(processor)
    return lambda pixels: ours.normalize(ours.crop(pixels)[None])[0].numpy(), theirs


def noisy(height, width, seed=0):
    """Make a photograph whose neighbours are alike but never equal, as those of a camera."""
    pixels = np.asarray(photo(height, width, seed)).astype(float)
    pixels += np.random.default_rng(seed).normal(0, 8, pixels.shape)
    return pixels.clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_model_gets_the_same_numbers(name):
    kind, options = PROCESSORS[name]
    ours, theirs = both(kind, **options)
    for seed, (height, width) in enumerate(SIZES):
        image = noisy(height, width, seed)
        expected = theirs([image], input_data_format="channels_last")[0]
        np.testing.assert_allclose(ours(image), expected, rtol=0, atol=LARGEST)


def test_large_numbers_are_the_same_as_far_as_float32_goes():
    """Bytes normalised by a mean below 1 are numbers up to 1,100: 2.4e-4 measured."""
    ours, theirs = both("ViT", do_rescale=False, **IMAGENET)
    image = noisy(301, 203)
    expected = theirs([image], input_data_format="channels_last")[0]
    np.testing.assert_allclose(ours(image), expected, rtol=0, atol=LARGEST * expected.max())
    assert expected.max() > 500


def files():
    """What both promise to read alike: the witness drops alpha and clips 16 bits, and ignores EXIF."""
    plain = Image.fromarray(noisy(301, 203))
    for mode in ("RGB", "L", "CMYK"):
        for how in ({}, {"quality": 95, "subsampling": 0}, {"progressive": True}):
            yield f"JPEG {mode} {how}", encode(plain.convert(mode), **how)
    for mode in ("RGB", "L", "P", "1", "LA", "RGBA"):  # all opaque
        yield f"PNG {mode}", encode(plain.convert(mode), "PNG")


@pytest.mark.parametrize("name, data", [pytest.param(*each, id=each[0]) for each in files()])
def test_files_become_the_same_numbers(name, data):
    ours, theirs = both("ViT")
    np.testing.assert_allclose(ours(decode_image(data)), theirs([data])[0], rtol=0, atol=LARGEST)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_become_the_same_numbers(kind):
    """The witness does not decode these: it gets Pillow's image."""
    image = Image.fromarray(noisy(301, 203))
    data = encode(image.quantize(200) if kind == "GIF" else image, kind)
    ours, theirs = both("ViT")
    expected = theirs([Image.open(io.BytesIO(data))])[0]
    np.testing.assert_allclose(ours(decode_image(data)), expected, rtol=0, atol=LARGEST)


@pytest.mark.parametrize("kind", ["ViT", "CLIP"])
def test_photographs_become_the_same_numbers(kind):
    if not FOOD10.is_dir():
        pytest.skip(f"no photographs at {FOOD10.parent.name}/{FOOD10.name} beside the project")
    ours, theirs = both(kind)
    for path in sorted((FOOD10 / "validation").rglob("*.jpg"))[::20]:
        data = path.read_bytes()
        expected = theirs([data])[0]
        np.testing.assert_allclose(ours(decode_image(data)), expected, rtol=0, atol=LARGEST)
