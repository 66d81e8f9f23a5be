"""The uploaded pipeline file: what it accepts and gives back, and that training sees the same."""

import ast
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import ViTForImageClassification
from transformers.dynamic_module_utils import get_imports

from inference.food_classification import FoodClassificationPipeline
from tests.unit.pictures import (
    FOOD10,
    LABELS,
    SOURCE,
    encode,
    exif,
    photo,
    scores,
    vector,
)
from training.input.batch import collate, to_model_input
from training.input.eval_images import EvalImages

# ---- what is accepted, and what comes back ------------------------------------------------------


def sources(file):
    pixels = np.asarray(photo())
    return [
        str(file), file, file.read_bytes(), bytearray(file.read_bytes()), photo(), pixels,
        np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
    ]  # fmt: skip


def test_every_kind_of_input_gives_the_same_flat_list(classify, file):
    expected = classify(photo())
    assert [set(row) for row in expected] == [{"label", "name", "score"}] * 5
    assert [row["score"] for row in expected] == sorted(scores(expected).values(), reverse=True)
    assert all(row["name"] == row["label"].replace("_", " ").capitalize() for row in expected)
    assert all(isinstance(row["score"], float) for row in expected)
    for source in sources(file):
        assert classify(source) == expected, type(source)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1)])
def test_gray_arrays(classify, shape):
    gray = photo().convert("L")
    assert classify(np.asarray(gray).reshape(shape)) == classify(gray.convert("RGB"))


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, lambda a: a[..., ::-1], np.asfortranarray])
def test_arrays_with_any_strides(classify, turn):
    # OpenCV users write image[..., ::-1]; torch.from_numpy refuses negative strides.
    view = turn(np.asarray(photo()).copy())
    assert classify(view) == classify(view.copy(order="C"))


def test_array_is_left_alone(classify):
    pixels = np.asarray(photo(32, 32)).copy()
    before = pixels.copy()
    classify(pixels)
    assert (pixels == before).all()


def test_lists_tuples_and_generators(classify, file):
    every = sources(file)
    one = classify(photo())
    assert classify(every) == classify(tuple(every)) == [one] * len(every)
    assert list(classify(source for source in every)) == [one] * len(every)
    assert classify([file]) == [one]
    assert list(classify(source for source in ())) == []


def test_batch_size_does_not_matter(classify):
    images = [photo(seed=seed) for seed in range(6)]
    by_one, by_four = classify(images, batch_size=1), classify(images, batch_size=4)
    # Another batch shape takes other matrix kernels: 1e-7 in float32, measured.
    for a, b in zip(by_one, by_four, strict=True):
        np.testing.assert_allclose([r["score"] for r in a], [r["score"] for r in b], atol=1e-5)
    assert by_one == classify(images)
    assert len({tuple(scores(rows)) for rows in by_one}) > 1  # the toy model tells images apart


def test_pixels_stay_uint8_until_the_device(classify):
    pixels = classify.preprocess(photo())["pixel_values"]
    assert pixels.dtype == torch.uint8 and pixels.shape == (1, 3, 32, 32)


def test_path_with_a_colon(classify, tmp_path, monkeypatch):
    # A file that exists is read, whatever its name looks like; nothing is ever fetched.
    monkeypatch.chdir(tmp_path)
    for name in ("http:photo.png", "C:foo", "data:x"):
        Path(name).write_bytes(encode(photo(), "PNG"))
        assert classify(name) == classify(photo())


def test_bfloat16_model_on_cpu(model, processor, classify):
    half = ViTForImageClassification(model.config).to(torch.bfloat16).eval()
    half.load_state_dict(model.state_dict())
    pipe = FoodClassificationPipeline(model=half, image_processor=processor, device="cpu")
    ours, theirs = pipe(photo(), top_k=7), classify(photo(), top_k=7)
    # 8 bits of mantissa through two layers: 0.005 measured.
    np.testing.assert_allclose(vector(ours), vector(theirs), atol=0.03)


# ---- stock pipeline, food pipeline and training: one truth --------------------------------------


def logits_three_ways(classify, stock, model, encoded):
    options = {"top_k": len(LABELS), "function_to_apply": "none"}
    ours = np.array([vector(rows) for rows in classify(encoded, **options)])
    images = [Image.open(io.BytesIO(data)) for data in encoded]
    theirs = np.array([vector(rows) for rows in stock(images, **options)])
    rows = [{"image": {"bytes": data, "path": None}, "label": 0} for data in encoded]
    dataset = EvalImages(Dataset.from_list(rows), classify.preprocessing)
    batch = collate(dataset.__getitems__(list(range(len(rows)))))
    with torch.inference_mode():
        pixels = to_model_input(batch, classify.preprocessing)["pixel_values"]
        trained = model(pixel_values=pixels).logits.numpy()
    return ours, theirs, trained


def assert_one_truth(ours, theirs, trained, tolerance):
    """`tolerance` between food and stock is a share of how much the logits differ by image."""
    spread = ours.std(axis=0).mean()
    assert spread > 0.5 and len(set(ours.argmax(1))) > 2  # logits that say something
    # The same pixels in another batch size: 5e-7 measured.
    np.testing.assert_allclose(ours, trained, atol=1e-5)
    # Stock resizes with Pillow: a level of 255 here and there.
    assert np.abs(ours - theirs).max() < tolerance * spread


def test_stock_food_and_training_agree(classify, stock, model):
    encoded = [encode(photo(90 + 20 * i, 180 - 10 * i, i), quality=90) for i in range(8)]
    encoded.append(encode(photo(120, 90), exif=exif(6)))
    # 0.1 measured, of two tall images (see MAX_LEVELS), 0.003 of the others.
    assert_one_truth(*logits_three_ways(classify, stock, model, encoded), tolerance=0.25)
    wide = [data for data in encoded if Image.open(io.BytesIO(data)).size >= (130, 0)]
    assert_one_truth(*logits_three_ways(classify, stock, model, wide), tolerance=0.02)


def test_stock_food_and_training_agree_on_photographs(classify, stock, model):
    if not FOOD10.is_dir():
        pytest.skip(f"no photographs at {FOOD10}")
    files = sorted((FOOD10 / "validation").rglob("*.jpg"))[::5]
    ours, theirs, trained = logits_three_ways(
        classify, stock, model, [path.read_bytes() for path in files]
    )
    assert_one_truth(ours, theirs, trained, tolerance=0.03)  # 0.006 measured
    assert (ours.argmax(1) == theirs.argmax(1)).all()


@pytest.mark.parametrize("function", ["none", "softmax", "sigmoid", None])
def test_function_to_apply_works_as_in_stock(classify, stock, model, processor, function):
    options = {"function_to_apply": function, "top_k": len(LABELS)}
    ours, theirs = classify(photo(32, 32), **options), stock(photo(32, 32), **options)
    # 32 x 32 needs no resize: the same pixels, and only normalisation rounds differently.
    np.testing.assert_allclose(vector(ours), vector(theirs), atol=1e-5)
    built = FoodClassificationPipeline(
        model=model, image_processor=processor, device="cpu", **options
    )
    assert built(photo(32, 32)) == ours


def test_none_returns_raw_logits(classify, model):
    pixels = classify.preprocessing.crop(np.asarray(photo()))[None]
    with torch.inference_mode():
        logits = model(pixel_values=classify.preprocessing.normalize(pixels)).logits[0]
    rows = classify(photo(), function_to_apply="none", top_k=7)
    np.testing.assert_allclose(vector(rows), logits, atol=1e-6)
    assert min(vector(rows)) < 0


def test_unknown_function(classify):
    with pytest.raises(ValueError, match="nonsense"):
        classify(photo(), function_to_apply="nonsense")


# ---- the file itself ----------------------------------------------------------------------------


def imports(node):
    """Top-level package names imported anywhere under `node` but inside a `try`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield "." * child.level + (child.module or "").split(".")[0]
        elif not isinstance(child, ast.Try):
            yield from imports(child)


def test_imports_are_what_every_user_has():
    found = set(imports(ast.parse(SOURCE.read_text(encoding="utf-8"))))
    allowed = {"numpy", "PIL", "torch", "transformers"}
    assert found - set(sys.stdlib_module_names) <= allowed
    # And what transformers itself will demand before it runs the file.
    assert set(get_imports(SOURCE)) - set(sys.stdlib_module_names) <= allowed
