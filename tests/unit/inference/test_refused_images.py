"""Inputs that are refused, in one line, before anything is decoded."""

import base64
import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch._utils import ExceptionWrapper

from inference import food_images as food
from inference.food_classification import FoodClassificationPipeline
from inference.food_images import InvalidImageError, decode_image
from tests.unit.pictures import (
    assert_one_line,
    encode,
    photo,
    png_header,
)

# ---- what is refused ----------------------------------------------------------------------------

BASE64 = base64.b64encode(encode(photo(), "PNG")).decode()

NOT_IMAGES = {
    "empty bytes": (b"", "0 bytes"),
    "text": (b"hello, I am a text", "not a readable image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a readable image"),
    "postscript": (encode(photo(), "EPS"), "not a readable image"),  # would run Ghostscript
    "url": ("https://example.org/a.jpg", "URLs are not fetched"),
    "http": ("HTTP://127.0.0.1:1/a.jpg", "URLs are not fetched"),
    "file url": ("file:///etc/passwd", "URLs are not fetched"),
    "data uri of a text": ("data:text/plain;base64,aGVsbG8=", "not an image in base64"),
    "data uri, not base64": ("data:image/svg+xml,<svg/>", "not an image in base64"),
    "data uri, cut": (f"data:image/png;base64,{BASE64[:-3]}", "not strictly base64"),
    "data uri, a space": (f"data:image/png;base64, {BASE64}", "not strictly base64"),
    "data uri, nothing": ("data:image/png;base64,", "0 bytes"),
    "base64 of half an image": (BASE64[: len(BASE64) // 8 * 4], "read as base64: not a readable"),
    "base64 of a text": (base64.b64encode(b"hello " * 20).decode(), "read as base64: not a read"),
    "base64, cut": (BASE64[:-3], "no such file"),
    "base64 in lines": (base64.encodebytes(encode(photo(), "PNG")).decode(), "no such file"),
    "a path in the letters of base64": ("photos/dinner/pizza1", "no such file"),
    "empty string": ("", "no such file"),
    "null byte": ("a\0b.jpg", "no such file"),
    "line break": ("a\nb.jpg", "no such file"),
    "None": (None, "None"),
    "int": (7, "a int is not an image"),
    "dict": ({"image": "a.jpg"}, "a dict is not an image"),
    "tensor": (torch.zeros(3, 8, 8, dtype=torch.uint8), "a Tensor is not an image"),
    "file of no image": (io.BytesIO(b"x"), "not a readable image"),
    "empty file": (io.BytesIO(), "0 bytes"),
    "text file": (io.StringIO("x"), "reading a StringIO gives no bytes; open the file with mode"),
    "row": ({"image": "a.jpg", "label": 1}, "of a data set give one column"),
    "float array": (np.zeros((8, 8, 3)), "float64"),
    "bool array": (np.zeros((8, 8), bool), "bool"),
    "channels first": (np.zeros((3, 8, 8), np.uint8), "(3, 8, 8)"),
    "two channels": (np.zeros((8, 8, 2), np.uint8), "(8, 8, 2)"),
    "one axis": (np.zeros(8, np.uint8), "(8,)"),
    "no rows": (np.zeros((0, 8, 3), np.uint8), "no pixels"),
    "no columns": (np.zeros((8, 0), np.uint8), "no pixels"),
    "empty PIL image": (Image.new("RGB", (0, 5)), "no pixels"),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_refused_in_one_line(classify, name):
    source, part = NOT_IMAGES[name]
    with pytest.raises(InvalidImageError) as error:
        classify(source)
    assert_one_line(error, part)
    with pytest.raises(InvalidImageError) as error:
        classify([photo(), source])
    named = isinstance(source, str) and "base64" not in part and "data:" not in source
    assert_one_line(error, part, source[:1].strip("\0") if named else "image 1 of the list")


@pytest.mark.parametrize(
    "name, content, part",
    [
        ("missing.jpg", None, "no such file"),
        ("empty.jpg", b"", "0 bytes"),
        ("notes.txt", b"one apple pie, please", "not a readable image"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a readable image"),
    ],
)
def test_refused_file_is_named(classify, tmp_path, name, content, part):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for source in (path, str(path)):
        for inputs in (source, [photo(), source]):
            with pytest.raises(InvalidImageError) as error:
                classify(inputs)
            assert_one_line(error, str(path), part)


def test_folder_is_refused(classify, tmp_path):
    with pytest.raises(InvalidImageError) as error:
        classify(tmp_path)
    assert_one_line(error, str(tmp_path), "a folder")


def test_position_in_a_generator(classify):
    with pytest.raises(InvalidImageError) as error:
        list(classify(source for source in (photo(), photo(), b"bad")))
    assert_one_line(error, "image 2")


def test_one_line_from_a_worker_process():
    # How a DataLoader brings home what was raised in a worker (the real one takes seconds to end).
    try:
        raise InvalidImageError("image 1 of the list: 0 bytes")
    except InvalidImageError:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(InvalidImageError) as error:
        wrapper.reraise()
    assert str(error.value) == "image 1 of the list: 0 bytes"


def test_nested_and_empty_lists(classify):
    for empty in ([], ()):
        with pytest.raises(InvalidImageError, match="empty"):
            classify(empty)
    with pytest.raises(InvalidImageError, match="the list of images is empty"):
        classify(np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(
        InvalidImageError, match=r"image 1 of the list: array of shape \(1, 8, 8, 3\)"
    ):
        classify([photo(), np.zeros((1, 8, 8, 3), np.uint8)])
    with pytest.raises(InvalidImageError, match="image 0 of the list: a list is not an image"):
        classify([["a.jpg"]])


CUTS = [20, 0.05, 0.3, 0.5, 0.7, 0.9, 0.99]


@pytest.mark.parametrize("decoder", ["simplejpeg", "pillow"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_files(kind, decoder, monkeypatch):
    if decoder == "pillow":
        monkeypatch.setattr(food, "simplejpeg", None)
    data = encode(photo(200, 300), kind)
    for cut in CUTS:
        short = data[: cut if isinstance(cut, int) else int(len(data) * cut)]
        with pytest.raises(InvalidImageError, match="not a readable image") as error:
            decode_image(short)
        assert_one_line(error)
        assert "0x" not in str(error.value)  # no address of a buffer


def test_lazily_opened_pil_image_that_is_truncated(classify):
    image = Image.open(io.BytesIO(encode(photo(200, 300))[:2000]))
    with pytest.raises(InvalidImageError, match="the image: not a readable image"):
        classify(image)


def test_damaged_bytes_raise_nothing_else():
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        data = encode(photo(16, 24), kind)
        for _ in range(60):
            bad = bytearray(data)
            for position in rng.integers(0, min(len(bad), 400), 3):
                bad[position] = rng.integers(256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    pixels = decode_image(bytes(bad), max_pixels=1_000_000)
                except InvalidImageError as error:
                    assert "\n" not in str(error)
                else:
                    assert pixels.dtype == np.uint8 and pixels.ndim == 3


@pytest.mark.parametrize("width, height", [(20_000, 10_000), (10_000, 9_500), (8_000, 8_001)])
@pytest.mark.parametrize("strict_warnings", [False, True])
def test_too_many_pixels(classify, monkeypatch, width, height, strict_warnings):
    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict_warnings else "ignore")
        with pytest.raises(InvalidImageError) as error:
            classify(png_header(width, height))
    assert_one_line(error, "ake it smaller")
    if width == 8_000:
        assert_one_line(error, "64,008,000 pixels are over the limit of 64,000,000")


def test_pixel_limit_of_arrays_and_pil_images(classify):
    for source in (photo(48, 64), np.asarray(photo(48, 64))):
        with pytest.raises(InvalidImageError, match="64 x 48"):
            classify(source, max_image_pixels=48 * 64 - 1)
        classify(source, max_image_pixels=48 * 64)


def test_max_image_pixels_at_construction_and_call(model, processor):
    pipe = FoodClassificationPipeline(
        model=model, image_processor=processor, device="cpu", max_image_pixels=1000
    )
    with pytest.raises(InvalidImageError, match="raise max_image_pixels"):
        pipe(encode(photo()))
    assert pipe(encode(photo()), max_image_pixels=48 * 64)
    assert pipe(encode(photo(10, 100)))


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "3"])
@pytest.mark.parametrize("name", ["top_k", "max_image_pixels"])
def test_bad_numbers(classify, model, processor, name, value):
    with pytest.raises(ValueError, match=name) as error:
        classify(photo(), **{name: value})
    assert_one_line(error, repr(value))
    with pytest.raises(ValueError, match=name):
        FoodClassificationPipeline(
            model=model, image_processor=processor, device="cpu", **{name: value}
        )


def test_top_k(classify, model, processor):
    assert [len(classify(photo(), top_k=k)) for k in (1, 3, 7, 100, None)] == [1, 3, 7, 7, 5]
    pipe = FoodClassificationPipeline(model=model, image_processor=processor, device="cpu", top_k=2)
    assert len(pipe(photo())) == 2 and len(pipe(photo(), top_k=4)) == 4
    assert len(pipe(photo(), top_k=None)) == 2  # None: what construction said


def test_unknown_arguments(classify, model, processor):
    with pytest.raises(TypeError, match="nonsense"):
        classify(photo(), nonsense=1)
    with pytest.raises(ValueError, match="on_error must be .raise. or .return., not 'skip'"):
        classify(photo(), on_error="skip")
    with pytest.raises(TypeError, match="nonsense"):
        FoodClassificationPipeline(model=model, image_processor=processor, nonsense=1)
