# SPDX-License-Identifier: Apache-2.0
"""The forms of inputs that the food pipeline takes beyond paths and images, and what it does with bad ones."""

import base64
import inspect
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset
from transformers import ImageClassificationPipeline, pipeline
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import KeyDataset

from inference import food_classification
from inference.food_classification import FoodClassificationPipeline
from inference.food_images import InvalidImageError
from tests.unit.pictures import assert_one_line, encode, photo, scores
from training.hub.contents import CODE, CUSTOM_PIPELINES

PNG = [encode(photo(seed=seed), "PNG") for seed in range(5)]


@pytest.fixture(scope="module")
def expected(classify):
    answers = [classify(data) for data in PNG]
    assert len({rows[0]["score"] for rows in answers}) == 5
    return answers


@pytest.fixture(scope="module")
def dataset():
    rows = [{"image": {"bytes": data, "path": None}, "label": i} for i, data in enumerate(PNG)]
    return Dataset.from_list(rows).cast_column("image", Image())


# ---- one image ------------------------------------------------------------------------------------


def test_open_files(classify, expected, file):
    written = io.BytesIO()
    photo().save(written, "PNG")  # its position is the end, as after any writing
    assert classify(written) == classify(written) == expected[0]
    with file.open("rb") as opened, file.open("rb", buffering=0) as raw:
        assert classify(opened) == classify(raw) == expected[0]
        assert not opened.closed
    with pytest.raises(InvalidImageError) as error:
        classify(opened)
    assert_one_line(error, str(file), "cannot be read", "closed file")


def test_a_pipe_is_read_to_its_end(classify, expected):
    reading, writing = os.pipe()
    os.write(writing, PNG[0])
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert classify(pipe) == expected[0]


def test_base64_and_data_urls(classify, expected, no_network):
    text = base64.b64encode(PNG[0]).decode()
    kinds = "image/png", "IMAGE/PNG", "image/x-icon", "image/png;charset=utf-8"
    for source in (text, *(f"data:{kind};base64,{text}" for kind in kinds)):
        assert classify(source) == expected[0]
        assert classify([PNG[1], source]) == [expected[1], expected[0]]
    assert classify(memoryview(PNG[0])) == classify([memoryview(PNG[0])])[0] == expected[0]
    assert no_network == []


def test_a_damaged_base64_is_named_by_its_position(classify):
    with pytest.raises(InvalidImageError) as error:
        classify([PNG[0], base64.b64encode(PNG[0][:48]).decode() * 2])
    assert_one_line(error, "image 1 of the list, read as base64: not a readable image")


def test_undecoded_rows_of_datasets(classify, expected, dataset, file):
    column = dataset.cast_column("image", Image(decode=False))["image"]
    assert classify(column) == expected
    assert classify({"bytes": None, "path": str(file)}) == expected[0]


# ---- several --------------------------------------------------------------------------------------


def test_arrays_of_images(classify, expected):
    pixels = np.stack([np.asarray(photo(seed=seed)) for seed in range(5)])
    assert classify(pixels) == classify(pixels, batch_size=1) == expected
    clear = np.concatenate([pixels, np.full((5, 48, 64, 1), 255, np.uint8)], axis=3)
    assert classify(clear) == expected
    assert classify(pixels[:1]) == expected[:1]


def test_a_column_is_read_one_by_one(classify, expected, dataset, monkeypatch):
    column = dataset["image"]
    assert not isinstance(column, list)
    asked = []
    real = type(column).__getitem__
    monkeypatch.setattr(
        type(column), "__getitem__", lambda self, key: asked.append(key) or real(self, key)
    )
    assert classify(column) == expected
    assert asked == [0, 1, 2, 3, 4]


def test_key_dataset_as_in_transformers_documentation(classify, expected, dataset):
    answers = classify(KeyDataset(dataset, "image"), batch_size=2)
    assert iter(answers) is answers  # as the stock pipeline: one after the other
    found = list(answers)
    assert [[row["label"] for row in rows] for rows in found] == [
        [row["label"] for row in rows] for rows in expected
    ]


class Shown(TorchDataset):
    """A map-style data set that notes what is asked of it, and fails at one image."""

    def __init__(self, bad=None):
        self.asked, self.bad = [], bad

    def __len__(self):
        return len(PNG)

    def __getitem__(self, i):
        self.asked.append(i)
        if i == self.bad:
            raise OSError("cannot identify image file <_io.BytesIO object at 0x7f>")
        return PNG[i]


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(PNG)


def test_datasets_are_lazy(classify, expected):
    data = Shown()
    answers = iter(classify(data))
    assert len(data.asked) == 0 and next(answers) == expected[0]
    assert len(data.asked) < len(PNG)
    assert list(classify(Streamed())) == expected


def test_every_other_iterable(classify, expected, dataset):
    for inputs in (
        iter(PNG),
        map(bytes, PNG),
        (data for data in PNG),
        dict(enumerate(PNG)).values(),
        dataset.to_iterable_dataset()["image"],
    ):
        assert list(classify(inputs)) == expected
    endless = (PNG[i % 5] for i in iter(int, 1))
    assert next(iter(classify(endless))) == expected[0]


def test_a_whole_data_set_is_no_list_of_images(classify, dataset):
    with pytest.raises(InvalidImageError) as error:
        list(classify(dataset))
    assert_one_line(error, "image 0 of the list", "give one column, as dataset['image']")


# ---- arguments of the stock pipeline ------------------------------------------------------------


def test_timeout_has_no_effect(classify, model, processor, expected):
    assert classify(PNG[0], timeout=0.001) == classify(PNG[0], timeout=None) == expected[0]
    built = FoodClassificationPipeline(
        model=model, image_processor=processor, device="cpu", timeout=5
    )
    assert built(PNG[0]) == expected[0]
    with pytest.raises(InvalidImageError, match="URLs are not fetched"):
        built("http://127.0.0.1:9/a.jpg", timeout=1)


def test_every_argument_of_the_stock_pipeline_is_taken(classify, expected):
    stock = inspect.signature(ImageClassificationPipeline._sanitize_parameters).parameters
    ours = inspect.signature(FoodClassificationPipeline._sanitize_parameters).parameters
    assert set(stock) <= set(ours)
    every = {"batch_size": 2, "num_workers": 0, "top_k": 5, "function_to_apply": "SoftMax"}
    base = inspect.signature(Pipeline.__call__).parameters
    assert {"num_workers", "batch_size"} <= set(base)
    for inputs in (PNG[0], PNG[:1]):
        found = classify(inputs, timeout=None, **every)
        assert found == (expected[0] if inputs is PNG[0] else expected[:1])
    assert classify(images=PNG[0]) == classify(inputs=PNG[0]) == expected[0]
    with pytest.raises(InvalidImageError, match="None is not an image"):
        classify()


# ---- on_error -------------------------------------------------------------------------------------


def only_error(answer):
    (row,) = answer
    assert set(row) == {"error"} and "\n" not in row["error"]
    return row["error"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_errors_take_the_place_of_answers(classify, expected, batch_size):
    inputs = [b"", PNG[0], "https://example.org/a.jpg", b"no", PNG[1], PNG[2], {}, None]
    given = inputs, tuple(inputs), (each for each in inputs)
    for each in given:
        answers = list(classify(each, on_error="return", batch_size=batch_size))
        assert len(answers) == 8
        for position, seed in ((1, 0), (4, 1), (5, 2)):
            exact = pytest.approx(scores(expected[seed]), abs=1e-5)
            assert scores(answers[position]) == exact
        for position, part in ((0, "0 bytes"), (2, "URLs are"), (3, "not a readable"), (6, "dict")):
            assert part in only_error(answers[position])
        assert only_error(answers[3]).startswith("image 3 of the list: ")
        assert only_error(answers[2]).startswith("https://example.org/a.jpg: ")


def test_whole_batches_of_errors_and_of_none(classify, expected):
    answers = classify([b"", b"", PNG[0], PNG[1], b""], on_error="return", batch_size=2)
    assert [set(rows[0]) == {"error"} for rows in answers] == [True, True, False, False, True]
    assert classify(PNG, on_error="return") == expected


def test_on_error_for_one_image_at_construction_and_call(classify, model, processor, expected):
    assert "0 bytes" in only_error(classify(b"", on_error="return"))
    built = FoodClassificationPipeline(
        model=model, image_processor=processor, device="cpu", on_error="return"
    )
    assert "not an image" in only_error(built(7)) and built(PNG[0]) == expected[0]
    with pytest.raises(InvalidImageError, match="0 bytes"):
        built(b"", on_error="raise")


def test_an_image_that_a_data_set_cannot_give(classify, expected, dataset):
    answers = list(classify(Shown(bad=2), on_error="return"))
    assert answers[:2] + answers[3:] == expected[:2] + expected[3:]
    message = only_error(answers[2])
    assert message.startswith("image 2 of the list: cannot be read (cannot identify image file)")
    with pytest.raises(InvalidImageError, match="image 2 of the list: cannot be read"):
        list(classify(Shown(bad=2)))
    rows = [{"image": {"bytes": data, "path": None}} for data in (PNG[0], b"damaged", PNG[2])]
    column = Dataset.from_list(rows).cast_column("image", Image())["image"]
    answers = classify(column, on_error="return")
    assert [answers[0], answers[2]] == [expected[0], expected[2]]
    assert "image 1 of the list: cannot be read" in only_error(answers[1])


# ---- saving, threads ------------------------------------------------------------------------------


def test_a_saved_pipeline_loads_again_with_its_code(classify, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert food_classification.CUSTOM_PIPELINES == CUSTOM_PIPELINES
    classify.save_pretrained(tmp_path / "one")
    again = pipeline(model=str(tmp_path / "one"), trust_remote_code=True, device="cpu")
    assert type(again).__module__.startswith("transformers_modules.")
    again.save_pretrained("two")  # loaded with its code: transformers alone leaves it out
    third = pipeline(
        "food-classification", model="two", trust_remote_code=True, device="cpu", top_k=5
    )
    for loaded in (again, third):  # the same weights elsewhere in memory: 1e-8 measured
        for rows, exact in zip(loaded(PNG), expected, strict=True):
            assert scores(rows) == pytest.approx(scores(exact), abs=1e-6)
    for name in CODE:
        code = Path(food_classification.__file__).with_name(name).read_bytes()
        assert (tmp_path / "two" / name).read_bytes() == code
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["custom_pipelines"] == CUSTOM_PIPELINES
    third.save_pretrained("two")  # over what it was loaded from
    stock = pipeline("image-classification", model="two", device="cpu")
    assert type(stock) is ImageClassificationPipeline
    with pytest.raises(ValueError, match="call push_to_hub"):
        third.save_pretrained("three", push_to_hub=True)
    assert not Path("three").exists()


def test_eight_threads_give_the_answers_of_one(classify, expected):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(classify, PNG * 16))
        batches = list(pool.map(lambda data: classify(data, on_error="return"), [PNG] * 16))
    assert found == expected * 16 and batches == [expected] * 16


@pytest.mark.slow
def test_workers_decode_in_processes_of_their_own(tmp_path):
    """In a process of its own, which a fork out of this one with its threads could hang."""
    script = (
        "import torch, transformers\n"
        "from inference.food_classification import FoodClassificationPipeline as Food\n"
        "from tests.unit.toys import tiny_network\n"
        "from tests.unit.pictures import encode, photo\n"
        "network = tiny_network()\n"
        "classify = Food(model=network.model, image_processor=network.processor, device='cpu')\n"
        "data = [encode(photo(seed=i)) for i in range(4)] + [b'']\n"
        "alone = classify(data, on_error='return', batch_size=2)\n"
        "assert classify(data, on_error='return', batch_size=2, num_workers=2) == alone\n"
        "print(len(alone), *alone[4][0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "5 error\n", done.stderr
