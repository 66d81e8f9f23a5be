# SPDX-License-Identifier: Apache-2.0
"""Images as vit-food101 sees them: decoding and preprocessing, uploaded beside the weights.

    from food_images import Preprocessing, decode_image
    pixels = decode_image("dinner.jpg")  # uint8 (height, width, 3)

Paths, `Path`, bytes, PIL images and uint8 arrays are accepted; EXIF orientation is applied,
transparency is laid on white, CMYK, palette and 16-bit images are converted; the pixel count is
checked in the header before anything is decoded; URLs are never fetched.

It imports the standard library, numpy, PIL and torch only, because it runs on machines that know
nothing else of this project. Training uses the same code, so that evaluation and inference see the
same pixels.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image

try:  # optional and bit-exact: libjpeg-turbo straight into an array, without Pillow's copies
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_IMAGE_PIXELS = 64_000_000  # about 0.2 GB as RGB; a 200-megapixel file can hide in 30 kB
# What Pillow may try: EPS runs Ghostscript, and the rare formats have the least tested decoders.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
ImageSource = str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray


class InvalidImageError(ValueError):
    """An input that cannot be scored; the message names the input and the cure in one line."""

    def __init__(self, message: str) -> None:
        # From a DataLoader's worker it arrives as a traceback: keep what was said.
        super().__init__(message.strip().rsplit("InvalidImageError: ", 1)[-1])


# ---- decoding: anything -> uint8 (height, width, 3) ------------------------------------------


def decode_image(
    source: ImageSource,
    max_pixels: int = MAX_IMAGE_PIXELS,
    reduce: Callable[[int, int], int] | None = None,
) -> np.ndarray:
    """Decode one image to RGB.

    Args:
        source: path, encoded bytes, PIL image, or uint8 array (height, width[, 1 | 3 | 4]).
        max_pixels: limit on width x height, read from the header before decoding.
        reduce: called with the upright (height, width) of an encoded image; returns 1, 2, 4 or 8,
            and a JPEG is decoded at that fraction of its size (one under 16 pixels is not).

    Returns:
        uint8 array (height, width, 3), upright, transparency on white.

    Raises:
        InvalidImageError: not an image, truncated, empty, too large, or an unsupported kind.
    """
    try:
        if isinstance(source, np.ndarray):
            return _check_array(source, max_pixels)
        if isinstance(source, Image.Image):
            _check_size(source.size, max_pixels)
            return _to_rgb(source)
        data = _read(source)
        # Reads the header only. Pillow's own bomb check warns or raises at other sizes.
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            return _decode(image, data, reduce)
    except InvalidImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImageError(
            f"{error} Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        reason = str(error).split(" <_io")[0]  # Pillow names the buffer's address
        reason = " ".join(reason.split()) or type(error).__name__
        raise InvalidImageError(
            f"not a readable image ({reason}); give a JPEG, PNG or WebP"
        ) from error


def _decode(
    image: Image.Image, data: bytes, reduce: Callable[[int, int], int] | None
) -> np.ndarray:
    if image.format not in ("JPEG", "MPO"):  # MPO: what phones write, a JPEG with more behind it
        pixels = _to_rgb(image)
        if reduce is not None:
            reduce(*pixels.shape[:2])
        return pixels
    width, height = image.size
    orientation = _orientation(image)
    factor = 1
    if reduce is not None:
        factor = reduce(width, height) if orientation >= 5 else reduce(height, width)
    if min(width, height) < 16:  # the two decoders round tiny sizes differently
        factor = 1
    if simplejpeg is not None and orientation == 1 and image.mode in ("RGB", "L"):
        at_least = {"min_height": -(-height // factor), "min_width": -(-width // factor)}
        try:
            return simplejpeg.decode_jpeg(data, "RGB", min_factor=factor, **at_least)
        except ValueError:
            pass  # strict about any damage; Pillow's verdict below is the one that counts
    if factor > 1:
        image.draft(None, (width // factor, height // factor))
    return _to_rgb(image)


_UPRIGHT = {  # EXIF orientation -> what turns it upright; from 5 on the image lies on its side
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1, upright, where there is none or the data is damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a SyntaxError, struct.error, OSError ...: the pixels are not to blame
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _read(source: str | os.PathLike | bytes | bytearray) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        if not os.path.isfile(source):
            raise InvalidImageError(_why_not_a_file(os.fsdecode(source)))
        data = Path(os.fsdecode(source)).read_bytes()
    elif isinstance(source, (bytes, bytearray)):
        data = bytes(source)
    else:
        raise InvalidImageError(
            f"a {type(source).__name__} is not an image; "
            "give a path, bytes, a PIL image or a uint8 array"
        )
    if not data:
        raise InvalidImageError("0 bytes; give a whole image file")
    return data


def _why_not_a_file(path: str) -> str:
    if "://" in path or path[:5].lower() == "data:":
        return "URLs are not fetched; download the image and give its path or bytes"
    if os.path.isdir(path):
        return "a folder; give the paths of its image files"
    return "no such file; give the path of an image file"


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height == 0:
        raise InvalidImageError(f"{width} x {height} has no pixels; give a whole image")
    if width * height > max_pixels:
        raise InvalidImageError(
            f"{width} x {height} = {width * height:,} pixels are over the limit of "
            f"{max_pixels:,}; make it smaller or raise max_image_pixels"
        )


def _to_rgb(image: Image.Image) -> np.ndarray:
    image.load()  # first: of a TIFF, Pillow itself applies and then removes the orientation
    orientation = _orientation(image)
    if orientation != 1:
        image = image.transpose(_UPRIGHT[orientation])
    if image.mode in ("F", "I"):
        raise InvalidImageError(f"32-bit pixels (mode {image.mode}); save it with 8 bits a channel")
    if image.mode.startswith("I;16"):  # Pillow's own convert() clips at 255
        return _gray_to_rgb((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode[-1] in "Aa" or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _check_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    shape = tuple(array.shape)
    if array.dtype != np.uint8:
        raise InvalidImageError(f"array of {array.dtype}; give uint8 values from 0 to 255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise InvalidImageError(f"array of shape {shape}; give (height, width[, 1 | 3 | 4])")
    _check_size((shape[1], shape[0]), max_pixels)
    if array.ndim == 2 or shape[2] == 1:
        return _gray_to_rgb(array.reshape(shape[:2]))
    return array if shape[2] == 3 else _to_rgb(Image.fromarray(array))


# ---- preprocessing: what the saved image processor says, in uint8 -----------------------------

_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, as image processors save them


@dataclass(frozen=True)
class Preprocessing:
    """The evaluation transform that the saved image processor describes.

    `crop` cuts in uint8 with torch's antialiased resize (of photographs 0.001 to 0.05 of 255 from
    Pillow's on average); `normalize` is done for a whole batch on the model's device.
    """

    height: int
    width: int
    shortest_edge: int | None  # resize the short side to this, then crop the centre
    resample: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    rescale_factor: float
    resized: tuple[int, int] | None = None  # or resize to this (height, width), then crop

    @classmethod
    def from_processor(cls, processor: Any) -> Preprocessing:
        """Read what a transformers image processor does, and compare the two on one image.

        Raises:
            ValueError: the processor does something that this class does not, named in the message.
        """
        if not getattr(processor, "do_resize", None):
            raise ValueError("do_resize=False is not supported; inputs would differ in size")
        resample = _RESAMPLE.get(processor.resample)
        if resample is None:
            raise ValueError(f"resample={processor.resample} is not supported; use 2 or 3")
        normalize, rescale = processor.do_normalize, processor.do_rescale
        found = cls(
            **_sizes(processor),
            resample=resample,
            image_mean=_three(processor.image_mean if normalize else 0.0),
            image_std=_three(processor.image_std if normalize else 1.0),
            rescale_factor=float(processor.rescale_factor) if rescale else 1.0,
        )
        found._check_against(processor)
        return found

    def _check_against(self, processor: Any) -> None:
        """Processors may flip channels, pad or shift without an attribute that says so: try it."""
        shape = self.height + 37, 2 * self.width + 11, 3
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        kind = type(processor).__name__
        try:
            theirs = torch.as_tensor(np.asarray(processor(image)["pixel_values"][0]))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{kind} fails on a {shape} image: {reason}") from error
        ours = self.normalize(self.crop(image)[None])[0]
        if theirs.shape != ours.shape:
            raise ValueError(f"{kind} gives {tuple(theirs.shape)} where {tuple(ours.shape)} is due")
        levels = (theirs - ours).abs().mean() * min(self.image_std) / self.rescale_factor
        if not levels < 1:  # rounding is half a level of 255; one pixel's shift is 50
            raise ValueError(
                f"{kind} does more than resize, crop, rescale and normalise: "
                f"its pixels differ by {levels:.0f} of 255"
            )

    def crop(self, image: np.ndarray) -> torch.Tensor:
        """Resize and crop uint8 (height, width, 3) of any size to uint8 (3, height, width)."""
        height, width = self.resized or (self.height, self.width)
        if (edge := self.shortest_edge) is not None:
            # Whole numbers, cut off as transformers and torchvision do.
            short = min(image.shape[:2])
            height, width = (edge * side // short for side in image.shape[:2])
        pixels = resize(image, height, width, self.resample)
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return pixels[:, top : top + self.height, left : left + self.width]

    def normalize(self, pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Rescale and normalise uint8 (batch, 3, height, width) to `dtype`, on the same device."""
        scale, shift = _scale_and_shift(self, pixels.device)
        values = pixels.to(torch.float32, copy=True)  # in place: on a CPU the time is in the copies
        return values.mul_(scale).sub_(shift).to(dtype)


@functools.lru_cache(maxsize=16)  # made once: a copy to a GPU at every batch would wait for it
def _scale_and_shift(
    steps: Preprocessing, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode(False):  # the first caller may be in it, the next one in training
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (steps.image_mean, steps.image_std))
        return (steps.rescale_factor / std).to(device), (mean / std).to(device)


def _three(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in np.broadcast_to(values, 3))


def _sizes(processor: Any) -> dict[str, Any]:
    """Read the four fields of `Preprocessing` that say how large things are.

    Raises:
        ValueError: sizes that do not fit together, or in a form that is not known.
    """
    size = dict(processor.size or {})
    crop = dict(getattr(processor, "crop_size", None) or {})
    edge = size.get("shortest_edge")
    if edge is not None and getattr(processor, "crop_pct", None):  # ConvNeXt's form
        crop = {"height": edge, "width": edge}
        # 384 and above it resizes without a crop
        size = {"shortest_edge": int(edge / processor.crop_pct)} if edge < 384 else crop
    elif not getattr(processor, "do_center_crop", None):
        crop = size
    both = {"height", "width"}
    if set(crop) != both or set(size) not in (both, {"shortest_edge"}):
        raise ValueError(f"a resize to {size} and a crop to {crop} is not supported")
    edge = size.get("shortest_edge")
    if crop["height"] > size.get("height", edge) or crop["width"] > size.get("width", edge):
        raise ValueError(f"a crop to {crop} is larger than the resize to {size}")
    return {
        "height": int(crop["height"]),
        "width": int(crop["width"]),
        "shortest_edge": edge,
        "resized": (size["height"], size["width"]) if edge is None and size != crop else None,
    }


def resize(image: np.ndarray, height: int, width: int, resample: str) -> torch.Tensor:
    """Resize uint8 (h, w, 3) to uint8 (3, height, width), antialiased as Pillow's resize is.

    `resample` is "bilinear" or "bicubic".
    """
    if not image.flags.writeable or min(image.strides) < 0:
        image = image.copy()  # from_numpy takes neither Pillow's read-only arrays nor image[::-1]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(
        pixels, size=(height, width), mode=resample, antialias=True, align_corners=False
    )[0]
