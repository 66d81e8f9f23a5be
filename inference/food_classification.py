# SPDX-License-Identifier: Apache-2.0
"""Food classification pipeline: the one file of vit-food101 that is uploaded beside the weights.

    from transformers import pipeline
    classify = pipeline(model="user/repo", revision="v1.0", trust_remote_code=True)
    classify("dinner.jpg", top_k=3)
    # [{"label": "apple_pie", "name": "Apple pie", "score": 0.97}, ...]

What it adds to the stock image-classification pipeline: it owns image loading. Paths, `Path`,
bytes, PIL images and uint8 arrays are accepted; EXIF orientation is applied, transparency is laid
on white, CMYK, palette and 16-bit images are converted; the pixel count is checked in the header
before anything is decoded; URLs are never fetched. Images stay uint8 until the model's device.

It imports the standard library, numpy, PIL, torch and transformers only, because it runs on
machines that know nothing else of this project. `training` uses the same `decode_image` and
`Preprocessing`, so that evaluation and inference see the same pixels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from transformers import ImageClassificationPipeline

try:  # optional and bit-exact: libjpeg-turbo straight into an array, without Pillow's copies
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_IMAGE_PIXELS = 64_000_000  # about 0.2 GB as RGB; a 200-megapixel file can hide in 30 kB
ImageSource = str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray


class InvalidImageError(ValueError):
    """An input that cannot be scored; the message names the input and the cure in one line."""


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
        reduce: called with the upright (height, width) of an encoded image before it is decoded;
            returns 1, 2, 4 or 8, and a JPEG is decoded at that fraction of its size.

    Returns:
        uint8 array (height, width, 3), upright, transparency on white.

    Raises:
        InvalidImageError: not an image, truncated, empty, too large, or an unsupported kind.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source, max_pixels)
    if isinstance(source, Image.Image):
        _check_size(source.size, max_pixels)
        return _to_rgb(source)
    data = _read(source)
    try:
        # Image.open reads the header only. Its own bomb check would warn or raise at other sizes.
        with Image.open(io.BytesIO(data)) as image:
            _check_size(image.size, max_pixels)
            return _decode(image, data, reduce)
    except InvalidImageError:
        raise
    except Image.DecompressionBombError as error:
        raise InvalidImageError(f"{error} Make it smaller.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = str(error).split(" <_io")[0]  # Pillow names the buffer's address
        raise InvalidImageError(
            f"not a readable image ({reason}); give a JPEG, PNG or WebP"
        ) from error


def _decode(
    image: Image.Image, data: bytes, reduce: Callable[[int, int], int] | None
) -> np.ndarray:
    width, height = image.size
    rotated = ("exif" in image.info or "xmp" in image.info) and _orientation(image) != 1
    factor = 1
    if reduce is not None:
        factor = reduce(width, height) if rotated and _is_sideways(image) else reduce(height, width)
    is_jpeg = image.format == "JPEG" and image.mode in ("RGB", "L")
    if is_jpeg and not rotated and simplejpeg is not None:
        at_least = {"min_height": height // factor, "min_width": width // factor}
        try:
            return simplejpeg.decode_jpeg(data, "RGB", min_factor=factor, **at_least)
        except ValueError:
            pass  # strict about any damage; Pillow's verdict below is the one that counts
    if is_jpeg and factor > 1:
        image.draft(image.mode, (width // factor, height // factor))
    return _to_rgb(image)


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _is_sideways(image: Image.Image) -> bool:
    return _orientation(image) >= 5


def _read(source: str | os.PathLike | bytes | bytearray) -> bytes:
    if isinstance(source, (bytes, bytearray)):
        if not source:
            raise InvalidImageError("0 bytes; give the bytes of an image file")
        return bytes(source)
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidImageError(
            f"a {type(source).__name__} is not an image; give a path, bytes, a PIL image or a uint8 array"
        )
    if isinstance(source, str) and source.split(":", 1)[0].lower() in (
        "http",
        "https",
        "ftp",
        "data",
    ):
        raise InvalidImageError(
            "URLs are not fetched; download the image and give its path or bytes"
        )
    path = Path(source)
    if not path.is_file():
        raise InvalidImageError("no such file; give the path of an image file")
    return path.read_bytes()


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InvalidImageError(
            f"{width} x {height} = {width * height / 1e6:.0f} megapixels is over the limit of "
            f"{max_pixels / 1e6:g}; make it smaller or raise max_image_pixels"
        )


def _to_rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InvalidImageError("pixels are floating point numbers; save it with 8 bits a channel")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own convert() clips at 255
        return _gray_to_rgb((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _check_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    shape = tuple(array.shape)
    if array.dtype != np.uint8:
        raise InvalidImageError(f"array of {array.dtype}; give uint8 values from 0 to 255")
    if array.ndim not in (2, 3) or 0 in shape or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise InvalidImageError(f"array of shape {shape}; give (height, width[, 1 | 3 | 4])")
    _check_size((shape[1], shape[0]), max_pixels)
    if array.ndim == 2 or shape[2] == 1:
        return _gray_to_rgb(array.reshape(shape[:2]))
    return array if shape[2] == 3 else _to_rgb(Image.fromarray(array, "RGBA"))


# ---- preprocessing: what the saved image processor says, in uint8 -----------------------------

_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, as image processors save them


@dataclass(frozen=True)
class Preprocessing:
    """The evaluation transform that the saved image processor describes.

    `crop` cuts in uint8 with torch's antialiased resize (within 1/255 of Pillow's);
    `normalize` is done for a whole batch on the model's device.
    """

    height: int
    width: int
    shortest_edge: int | None  # resize the short side to this, then crop the centre
    resample: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    rescale_factor: float

    @classmethod
    def from_processor(cls, processor: Any) -> Preprocessing:
        """Read a transformers image processor.

        Raises:
            ValueError: the processor does something that this class does not, named in the message.
        """
        size, crop_size = (
            dict(processor.size or {}),
            dict(getattr(processor, "crop_size", None) or {}),
        )
        shortest_edge = size.get("shortest_edge")
        if shortest_edge is not None and getattr(processor, "crop_pct", None):  # ConvNeXt's form
            crop_size = {"height": shortest_edge, "width": shortest_edge}
            shortest_edge = int(shortest_edge / processor.crop_pct)
        elif not getattr(processor, "do_center_crop", None):
            crop_size = {}
        target = crop_size or size
        if not processor.do_resize or "height" not in target or "width" not in target:
            raise ValueError(f"image processor with size {size}, crop {crop_size} is not supported")
        if crop_size and shortest_edge is None:
            raise ValueError(f"a crop of {crop_size} after a resize to {size} is not supported")
        resample = _RESAMPLE.get(int(processor.resample))
        if resample is None:
            raise ValueError(f"resample={processor.resample} is not supported; use 2 or 3")
        channels = (0.0,) * 3, (1.0,) * 3
        mean, std = (
            (processor.image_mean, processor.image_std) if processor.do_normalize else channels
        )
        return cls(
            height=int(target["height"]),
            width=int(target["width"]),
            shortest_edge=shortest_edge,
            resample=resample,
            image_mean=tuple(float(x) for x in mean),
            image_std=tuple(float(x) for x in std),
            rescale_factor=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        )

    def crop(self, image: np.ndarray) -> torch.Tensor:
        """uint8 (height, width, 3) of any size -> uint8 (3, self.height, self.width)."""
        if self.shortest_edge is None:
            return resize(image, self.height, self.width, self.resample)
        height, width = image.shape[:2]
        scale = self.shortest_edge / min(height, width)
        pixels = resize(
            image, *_short_side(height, width, scale, self.shortest_edge), self.resample
        )
        top, left = (pixels.shape[1] - self.height) // 2, (pixels.shape[2] - self.width) // 2
        if top < 0 or left < 0:
            raise ValueError(
                f"a crop of {self.height} x {self.width} is larger than the resized image"
            )
        return pixels[:, top : top + self.height, left : left + self.width]

    def normalize(self, pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """uint8 (batch, 3, height, width) -> `dtype` of the same shape, on the same device."""
        shape = (1, 3, 1, 1)
        std = torch.tensor(self.image_std, device=pixels.device).view(shape)
        mean = torch.tensor(self.image_mean, device=pixels.device).view(shape)
        return (pixels.float() * (self.rescale_factor / std) - mean / std).to(dtype)


def _short_side(height: int, width: int, scale: float, edge: int) -> tuple[int, int]:
    return (edge, int(width * scale)) if height <= width else (int(height * scale), edge)


def resize(image: np.ndarray, height: int, width: int, resample: str) -> torch.Tensor:
    """uint8 (h, w, 3) -> uint8 (3, height, width), antialiased as Pillow's resize is."""
    if not image.flags.writeable:  # Pillow's arrays are read-only; from_numpy would warn
        image = image.copy()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(
        pixels, size=(height, width), mode=resample, antialias=True, align_corners=False
    )[0]


# ---- the pipeline -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbered:
    """An item of a list, so that a complaint can say which one."""

    position: int
    source: Any


class FoodClassificationPipeline(ImageClassificationPipeline):
    """Image classification that owns image loading; task key `food-classification`.

    Construction and call take `top_k` (at least 1, default 5), `function_to_apply` (as the stock
    pipeline) and `max_image_pixels`; `batch_size`, `device` and `num_workers` as every pipeline.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preprocessing = Preprocessing.from_processor(self.image_processor)

    def _sanitize_parameters(self, top_k=None, function_to_apply=None, max_image_pixels=None):
        if top_k is not None and (
            isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1
        ):
            raise ValueError(f"top_k must be a whole number of at least 1, not {top_k!r}")
        _, forward, postprocess = super()._sanitize_parameters(top_k, function_to_apply)
        preprocess = {} if max_image_pixels is None else {"max_image_pixels": max_image_pixels}
        return preprocess, forward, postprocess

    def __call__(self, inputs: ImageSource | Sequence[ImageSource], **kwargs: Any) -> list:
        """Label one image, or each image of a list.

        Returns:
            For one image a list of at most `top_k` dictionaries, best first: `label` (as in
            `config.id2label`), `name` (readable) and `score`; for a list, a list of those.

        Raises:
            InvalidImageError: an input cannot be scored (its path or position is named).
        """
        if isinstance(inputs, (list, tuple)):
            if not inputs:
                raise InvalidImageError("the list of images is empty; give at least one")
            inputs = [_Numbered(i, source) for i, source in enumerate(inputs)]
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self, image: Any, max_image_pixels: int = MAX_IMAGE_PIXELS
    ) -> dict[str, torch.Tensor]:
        numbered = isinstance(image, _Numbered)
        source = image.source if numbered else image
        try:
            pixels = self.preprocessing.crop(decode_image(source, max_image_pixels))
        except InvalidImageError as error:
            where = f"image {image.position} of the list" if numbered else "the image"
            named = f"{os.fspath(source)}" if isinstance(source, (str, os.PathLike)) else where
            raise InvalidImageError(f"{named}: {error}") from error
        return {"pixel_values": pixels[None]}  # uint8 (1, 3, height, width)

    def _forward(self, model_inputs: dict[str, torch.Tensor]):
        pixels = self.preprocessing.normalize(model_inputs["pixel_values"], self.dtype)
        return self.model(pixel_values=pixels)

    def postprocess(self, model_outputs, function_to_apply=None, top_k=5) -> list[dict[str, Any]]:
        ranked = super().postprocess(model_outputs, function_to_apply, top_k)
        return [
            {"label": row["label"], "name": readable_name(row["label"]), "score": row["score"]}
            for row in ranked
        ]


def readable_name(label: str) -> str:
    """`baby_back_ribs` -> `Baby back ribs`."""
    return label.replace("_", " ").strip().capitalize()
