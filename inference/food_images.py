# SPDX-License-Identifier: Apache-2.0
"""Images as vit-food101 sees them: decoding and preprocessing, uploaded beside the weights.

    from food_images import Preprocessing, decode_image
    pixels = decode_image("dinner.jpg")  # uint8 (height, width, 3)

Paths, `Path`, bytes, PIL images and uint8 arrays are accepted; EXIF orientation is applied,
transparency is laid on white, CMYK, palette and 16-bit images are converted; what could take more
than 1 GB or 8 s is refused by its header; URLs are never fetched. It runs on machines that know
nothing else of this project, with numpy, PIL and torch. Training uses the same code, so that
evaluation and inference see the same pixels.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin

try:  # optional and bit-exact: libjpeg-turbo straight into an array, without Pillow's copies
    import simplejpeg
except ImportError:
    simplejpeg = None
try:  # optional: HEIC, which Pillow does not know
    import pi_heif
except ImportError:
    pi_heif = None

# Together they bound what an image can take: 1 GB and 8 s of CPU (docs/images.md has the table).
MAX_IMAGE_PIXELS = 64_000_000  # about 0.2 GB as RGB; a 200-megapixel file can hide in 30 kB
MAX_FILE_BYTES = 2**28  # 64 megapixels of four bytes each, and a header; of DENSE formats a quarter
DENSE, HEAVY = rb"\xff\xd8|RIFF|....ftyp", rb"RIFF|....ftyp"  # how JPEG, and WebP, AVIF, HEIC begin
MAX_HEADER_BYTES = 2**23  # profiles, EXIF, tables: what stands in front of the pixels
MAX_SCANS = 50  # of a progressive JPEG, which has about ten; each goes through all pixels
MAX_RATIO = 200  # of the sides: resized by the shorter one, the longer one stays as long
# What Pillow may try: EPS runs Ghostscript, and the rare formats have the least tested decoders.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
ImageSource = str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray

# What is wrong with a file is said once, in the exception. These three are for the whole process,
# as ways to be quiet for one image only (catch_warnings, another stderr) are not thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with contextlib.suppress(AttributeError, OSError):  # linked in another way, as on Windows
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # libtiff writes to stderr, from C
    ctypes.CDLL(Image.core.__file__).TIFFSetWarningHandler(None)


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
        with _open(data, max_pixels) as image:
            return _decode(image, data, reduce)
    except InvalidImageError:
        raise
    except Exception as error:  # Pillow raises anything, and may name the address of a buffer
        reason = " ".join(str(error).split(" <_io")[0].split()) or type(error).__name__
        cure = "make it smaller" if "bomb" in reason else "give a JPEG, PNG or WebP"
        raise InvalidImageError(f"not a readable image ({reason}); {cure}") from error


class _Metered(io.BytesIO):
    """A file's bytes, which Pillow may read for so long; of a GIF, `gif` is the most pixels."""

    budget, reads, gif = MAX_HEADER_BYTES, 10**6, 0  # for each block or tag, some Python is run

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.budget, self.reads = self.budget - len(data), self.reads - 1
        if self.budget < 0 or self.reads < 0:
            most = f"{MAX_HEADER_BYTES:,} bytes or a million parts"
            raise InvalidImageError(f"over {most} besides pixels; save it as PNG")
        if self.gif and size == len(data) == 9 and self.getvalue()[self.tell() - 10] == ord(","):
            canvas = np.frombuffer(self.getvalue(), "<u2", 2, 6)  # grows with its first frame,
            frame = np.frombuffer(data[:8], "<u2").reshape(2, 2).sum(0, dtype=int)
            _check_size(np.maximum(canvas, frame).tolist(), self.gif)  # of which Pillow would warn
        return data


_RAW = "a camera's raw file; develop it and save it as JPEG"
_NOT_READ = {  # how files begin -> what they are, and the cure
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL; save it as JPEG",
    rb"II\*\0....CR|....ftypcrx |IIU\0|IIR[OS]|MMOR|FUJIFILM": _RAW,
    rb"P[123]\s": "a PPM in plain text; save it as PNG",
}
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of a JPEG: of some length, or the end
_UPRIGHT = {  # EXIF orientation -> what turns it upright; from 5 on the image lies on its side
    2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE,
    6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90,
}  # fmt: skip
HEIC = rb"....ftyp(?!avi)(.{0,200}?(hei[cxms]|hev[cxms])|mif1.{0,2000}?hvc1)"


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read an image's header; not by Image.open, which warns of sizes other than ours."""
    max_bytes = MAX_FILE_BYTES // (4 if re.match(DENSE, data, re.S) else 1)
    if heavy := re.match(HEAVY, data, re.S):  # their decoders keep several copies of the pixels
        max_pixels = min(max_pixels, max(MAX_IMAGE_PIXELS, max_pixels) * 3 // 4)
    if len(data) > max_bytes:
        raise InvalidImageError(f"over the limit of {max_bytes:,} bytes; make it smaller")
    _refuse_by_name(data)
    if re.match(HEIC, data, re.S):
        if pi_heif is None:
            raise InvalidImageError("HEIC, as iPhones save: pip install pi-heif, or export a JPEG")
        image = pi_heif.open_heif(data)
        _check_size(image.size, max_pixels)
        return image.to_pillow()  # upright
    (Image.preinit if data[:2] == b"\xff\xd8" else Image.init)()  # the plugins: JPEG needs few
    for kind in FORMATS:
        factory, accepts = Image.OPEN.get(kind, (None, lambda _: False))
        if accepts(data[:16]) is True:
            metered = kind == "GIF" or (len(data) > 2**20 and not heavy)  # those are read whole
            file = _Metered(data) if metered else io.BytesIO(data)
            if kind == "GIF":
                file.gif = max_pixels
            image = factory(file, None)
            if metered:
                file.budget = len(data) + MAX_HEADER_BYTES
            _check_size(image.size, max_pixels)
            return image
    raise ValueError("no format that is known here")


def _refuse_by_name(data: bytes) -> None:
    for start, said in _NOT_READ.items():
        if re.match(start, data, re.S):
            raise InvalidImageError(said)
    if data[:4] in (b"II*\0", b"MM\0*"):
        file = _Metered(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        # DNGVersion; a sensor's mosaic (PEF); or a thumbnail, which Pillow would read
        thumbnail = tags.get(254, 0) & 1 and (330 in tags or 271 in tags)
        if 50706 in tags or tags.get(262) in (32803, 34892) or thumbnail:
            raise InvalidImageError(_RAW)


def _decode(image: Image.Image, data: bytes, reduce: Callable | None) -> np.ndarray:
    if image.format not in ("JPEG", "MPO"):  # MPO: what phones write, a JPEG with more behind it
        pixels = _to_rgb(image)
        if reduce is not None:
            reduce(*pixels.shape[:2])
        return pixels
    width, height = image.size
    # Small ones take no seconds; a film behind the photograph may look like scans.
    if width * height * len(data) > 2**36 and data.count(b"\xff\xda") > MAX_SCANS:
        _check_scans(data)
    orientation = _orientation(image)
    upright = (width, height) if orientation >= 5 else (height, width)
    factor = 1 if reduce is None else reduce(*upright)
    factor = factor if min(upright) >= 16 else 1  # the two decoders round tiny sizes differently
    if simplejpeg and len(data) < 2**25 and orientation == 1 and image.mode in ("RGB", "L"):
        at_least = {"min_height": -(-height // factor), "min_width": -(-width // factor)}
        with contextlib.suppress(ValueError):  # strict about damage: then Pillow does it all again
            return simplejpeg.decode_jpeg(data, "RGB", min_factor=factor, **at_least)
    if factor > 1:
        image.draft(None, (width // factor, height // factor))
    return _to_rgb(image)


def _check_scans(data: bytes) -> None:
    at = segments = scans = 0
    while (marker := _MARKER.search(data, at)) and marker[0] != b"\xff\xd9":
        segments, scans = segments + 1, scans + (marker[0] == b"\xff\xda")
        if scans > MAX_SCANS or segments > 100 * MAX_SCANS:
            raise InvalidImageError(f"a JPEG of over {MAX_SCANS} scans; save it again, baseline")
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1, upright, where there is none or the data is damaged."""
    exif = image.info.get("exif") or image.info.get("Raw profile type exif") or b""
    if len(exif) > MAX_HEADER_BYTES:  # behind the pixels
        raise InvalidImageError(f"{len(exif):,} bytes of EXIF; save it again without metadata")
    orientation = 1
    with contextlib.suppress(Exception):  # SyntaxError, struct.error ...: not the pixels' fault
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in _UPRIGHT else 1


def _read(source: str | os.PathLike | bytes | bytearray) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        if not os.path.isfile(source):
            what = "a folder" if os.path.isdir(source) else "no such file"
            if "://" in (path := os.fsdecode(source)) or path[:5].lower() == "data:":
                what = "URLs are not fetched"
            raise InvalidImageError(f"{what}; give the path or the bytes of an image file")
        with open(source, "rb") as file:
            data = file.read(min(os.path.getsize(source), MAX_FILE_BYTES + 1))
    elif isinstance(source, (bytes, bytearray)):
        data = bytes(source[: MAX_FILE_BYTES + 1])
    else:
        known = "a path, bytes, a PIL image or a uint8 array"
        raise InvalidImageError(f"a {type(source).__name__} is not an image; give {known}")
    if not data:
        raise InvalidImageError("0 bytes; give a whole image file")
    return data


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height == 0:
        raise InvalidImageError(f"{width} x {height} has no pixels; give a whole image")
    if width * height > max_pixels:
        pixels = f"{width} x {height} = {width * height:,} pixels"
        cure = "make it smaller or raise max_image_pixels"
        raise InvalidImageError(f"{pixels} are over the limit of {max_pixels:,}; {cure}")
    if max(size) > MAX_RATIO * min(size):
        raise InvalidImageError(f"{width} x {height} is over {MAX_RATIO} to 1; cut it into parts")


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Convert to RGB, upright and on white, a band of rows at a time: copies of a band are small."""
    raw = str(image.tile[0][3]) if getattr(image, "tile", None) else ""  # how pixels are stored
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    _check_pixels(image, raw, tags)
    image.load()  # first: of a TIFF, Pillow itself applies and then removes the orientation
    orientation = _orientation(image)
    flip = 65535 if image.mode.startswith("I;16") and tags.get(262) == 0 else 0  # white is 0
    key = None if image.mode in ("P", "PA") else image.info.get("transparency")  # one colour
    key = key * {"L;2": 85, "L;4": 17}.get(raw, 1) if isinstance(key, int) else key

    def convert(band: Image.Image) -> np.ndarray:
        band = band.transpose(_UPRIGHT[orientation]) if orientation != 1 else band
        if band.mode.startswith("I"):  # Pillow's own convert() clips at 255
            deep = np.asarray(band) ^ flip
            part = (deep >> (4 if "I;12" in raw else 8)).astype(np.uint8)
            return np.repeat(np.where(deep == key, np.uint8(255), part)[..., None], 3, axis=2)
        part = _on_white(band)
        if key is not None and band.mode in ("1", "L", "RGB"):
            return np.where((part == key).all(-1, keepdims=True), np.uint8(255), part)
        return part

    width, height = image.size
    rows = max(1, 2**18 // width)
    if height <= rows:
        pixels = convert(image)
    else:
        pixels = np.empty(((width, height) if orientation >= 5 else (height, width)) + (3,), "u1")
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            start = height - bottom if orientation in (3, 4, 6, 7) else top
            place = slice(start, start + bottom - top)
            part = convert(image.crop((0, top, width, bottom)))
            (pixels[:, place] if orientation >= 5 else pixels[place])[:] = part
    if image.format == "GIF" and image.tell() == 0:  # around the frame it is as good as transparent
        (left, top, right, bottom), pixels = image.dispose_extent, pixels.copy()
        pixels[:top] = pixels[bottom:] = pixels[:, :left] = pixels[:, right:] = 255
    return pixels


def _on_white(band: Image.Image) -> np.ndarray:
    if band.mode[-1] in "Aa" or (band.mode == "P" and "transparency" in band.info):
        band = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
    return np.asarray(band if band.mode == "RGB" else band.convert("RGB"))


def _check_pixels(image: Image.Image, raw: str, tags: Any) -> None:
    """Refuse pixels whose meaning is not known, and tiles that are larger than the image."""
    deep = image.mode == "F" or (image.mode == "I" and image.format != "PPM")  # PGM: up to 65535
    tile, area = int(tags.get(322, 0)) * int(tags.get(323, 0)), image.width * image.height
    runs = image.info.get("compression") in (1, 2)  # of a BMP, which Pillow unpacks in Python
    for wrong, what in (
        (deep or tags.get(339, (1,))[0] != 1, f"32-bit pixels or signed ones (mode {image.mode})"),
        ("transparency" in image.info and "RGB;16" in raw, "a transparent colour of 16 bits"),
        (tile > max(2**18, area), f"tiles of {tile:,} pixels, more than all"),
        (runs and area > 16_000_000, "over 16,000,000 pixels in runs (RLE)"),
    ):
        if wrong:
            raise InvalidImageError(f"{what}; save it as PNG with 8 bits a channel")


def _check_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    shape = array.shape
    if array.dtype != np.uint8:
        raise InvalidImageError(f"array of {array.dtype}; give uint8 values from 0 to 255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise InvalidImageError(f"array of shape {shape}; give (height, width[, 1 | 3 | 4])")
    _check_size((shape[1], shape[0]), max_pixels)
    if array.ndim == 2 or shape[2] == 1:
        return np.repeat(array.reshape((*shape[:2], 1)), 3, axis=2)
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
            ValueError: the processor does something that this class does not; the message names it.
        """
        if not getattr(processor, "do_resize", None):
            raise ValueError("do_resize=False is not supported; inputs would differ in size")
        if processor.resample not in _RESAMPLE:
            raise ValueError(f"resample={processor.resample} is not supported; use 2 or 3")
        moments = (processor.image_mean, processor.image_std) if processor.do_normalize else (0, 1)
        mean, std = (tuple(np.broadcast_to(np.float64(m), 3).tolist()) for m in moments)
        found = cls(
            **_sizes(processor),
            resample=_RESAMPLE[processor.resample],
            image_mean=mean,
            image_std=std,
            rescale_factor=float(processor.rescale_factor) if processor.do_rescale else 1.0,
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
            raise ValueError(f"{kind} fails on {shape}: {' '.join(str(error).split())}") from error
        ours = self.normalize(self.crop(image)[None])[0]
        if theirs.shape != ours.shape:
            raise ValueError(f"{kind} gives {tuple(theirs.shape)} where {tuple(ours.shape)} is due")
        levels = (theirs - ours).abs().mean() * min(self.image_std) / self.rescale_factor
        if not levels < 1:  # rounding is half a level of 255; one pixel's shift is 50
            more = f"{kind} does more than resize, crop, rescale and normalise"
            raise ValueError(f"{more}: its pixels differ by {levels:.0f} of 255")

    def crop(self, image: np.ndarray) -> torch.Tensor:
        """Resize and crop uint8 (height, width, 3), as decode_image takes it, to (3, height, width)."""
        height, width = self.resized or (self.height, self.width)
        _check_size(image.shape[1::-1], image.size)
        if (edge := self.shortest_edge) is not None:
            short = min(
                image.shape[:2]
            )  # whole numbers, cut off as transformers and torchvision do
            height, width = (edge * side // short for side in image.shape[:2])
            _check_size((width, height), MAX_IMAGE_PIXELS)
        pixels = resize(image, height, width, self.resample)
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return pixels[:, top : top + self.height, left : left + self.width]

    def normalize(self, pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Rescale and normalise uint8 (batch, 3, height, width) to `dtype`, on the same device."""
        scale, shift = _scale_and_shift(self, pixels.device)
        values = pixels.to(torch.float32, copy=True)  # in place: on a CPU the time is in the copies
        return values.mul_(scale).sub_(shift).to(dtype)


@functools.lru_cache(maxsize=16)  # made once: a copy to a GPU at every batch would wait for it
def _scale_and_shift(steps: Preprocessing, device: torch.device) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode(False):  # the first caller may be in it, the next one in training
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (steps.image_mean, steps.image_std))
        return (steps.rescale_factor / std).to(device), (mean / std).to(device)


def _sizes(processor: Any) -> dict[str, Any]:
    """Read the fields of `Preprocessing` that say how large things are; ValueError if none fit."""
    size = dict(processor.size or {})
    crop = dict(getattr(processor, "crop_size", None) or {})
    edge = size.get("shortest_edge")
    if edge is not None and getattr(processor, "crop_pct", None):
        crop = {"height": edge, "width": edge}  # ConvNeXt's form; no crop from 384 on
        size = {"shortest_edge": int(edge / processor.crop_pct)} if edge < 384 else crop
    elif not getattr(processor, "do_center_crop", None):
        crop = size
    both = {"height", "width"}
    if set(crop) != both or set(size) not in (both, {"shortest_edge"}):
        raise ValueError(f"a resize to {size} and a crop to {crop} is not supported")
    edge = size.get("shortest_edge")
    if crop["height"] > size.get("height", edge) or crop["width"] > size.get("width", edge):
        raise ValueError(f"a crop to {crop} is larger than the resize to {size}")
    resized = (size["height"], size["width"]) if edge is None and size != crop else None
    return {side: int(crop[side]) for side in both} | {"shortest_edge": edge, "resized": resized}


def resize(image: np.ndarray, height: int, width: int, resample: str) -> torch.Tensor:
    """Resize uint8 (h, w, 3) to uint8 (3, height, width) as Pillow does, "bilinear" or "bicubic"."""
    if not image.flags.writeable or min(image.strides) < 0:
        image = image.copy()  # from_numpy takes neither Pillow's read-only arrays nor image[::-1]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(
        pixels, size=(height, width), mode=resample, antialias=True, align_corners=False
    )[0]
