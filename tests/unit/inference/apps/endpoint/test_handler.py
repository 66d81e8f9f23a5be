# SPDX-License-Identifier: Apache-2.0
"""The endpoint's handler, imported as the endpoint's toolkit does: what a request gets."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from inference.apps.endpoint import handler as module
from inference.food_classification import FoodClassificationPipeline
from tests.unit.pictures import LABELS, assert_one_line, encode, exif, photo, png_header, scores
from training.hub.contents import CODE, CUSTOM_PIPELINES, code_sources, handler_sources
from training.hub.release import endpoint_handler
from training.model.names import names_of

PNG = [encode(photo(seed=seed), "PNG") for seed in range(3)]


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "custom_pipelines": CUSTOM_PIPELINES})
    )
    for path in (*code_sources(), *handler_sources()):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def handler(folder):
    with endpoint_handler(folder) as handler:
        yield handler


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def same(rows, expected):
    assert [row["label"] for row in rows] == [row["label"] for row in expected]
    assert [set(row) for row in rows] == [{"label", "name", "score"}] * len(rows)
    assert scores(rows) == pytest.approx(scores(expected), abs=1e-6)


def test_it_is_the_file_of_the_release(handler, folder):
    assert type(handler).__module__ == "handler.py"
    assert Path(type(handler)._pixels.__code__.co_filename).parent == folder
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".json") == sorted(
        [*CODE, "handler.py", "model.safetensors", "requirements.txt"]
    )


def test_one_image_in_every_form(handler, classify):
    expected = classify(PNG[0])
    for inputs in (
        text(PNG[0]),
        f"data:image/png;base64,{text(PNG[0])}",
        Image.open(io.BytesIO(PNG[0])).convert("RGB"),  # as the toolkit hands over a raw body
        PNG[0],
        bytearray(PNG[0]),
    ):
        same(handler({"inputs": inputs}), expected)
    assert json.loads(json.dumps(handler({"inputs": PNG[0]})))  # plain numbers


def test_a_list(handler, classify, monkeypatch):
    inputs = [text(PNG[0]), Image.open(io.BytesIO(PNG[1])), f"data:image/png;base64,{text(PNG[2])}"]
    for answer, data in zip(handler({"inputs": inputs}), PNG, strict=True):
        same(answer, classify(data))
    many = handler({"inputs": [text(PNG[i % 3]) for i in range(module.BATCH + 3)]})
    assert len(many) == module.BATCH + 3
    same(many[-1], classify(PNG[(module.BATCH + 2) % 3]))
    assert len(handler({"inputs": [text(PNG[0])]})) == 1


def test_orientation_and_transparency(handler, classify):
    sideways = encode(photo(40, 90), quality=95, exif=exif(6))
    same(handler({"inputs": text(sideways)}), classify(sideways))
    body = Image.open(io.BytesIO(sideways)).convert("RGB")  # keeps its EXIF
    same(handler({"inputs": body}), classify(sideways))
    upright = Image.fromarray(np.rot90(np.asarray(Image.open(io.BytesIO(sideways))), -1))
    same(handler({"inputs": upright}), classify(sideways))
    clear = photo()
    clear.putalpha(photo(seed=7).convert("L"))
    same(handler({"inputs": text(encode(clear, "PNG"))}), classify(encode(clear, "PNG")))


def test_parameters(handler, classify):
    image = text(PNG[0])
    for top_k in (1, 3, 100, "3"):  # those of a query are text
        rows = handler({"inputs": image, "parameters": {"top_k": top_k}})
        same(rows, classify(PNG[0], top_k=int(top_k)))
    for function in ("softmax", "sigmoid", "none", "Sigmoid", None):
        options = {"function_to_apply": function, "top_k": len(LABELS)}
        same(handler({"inputs": image, "parameters": options}), classify(PNG[0], **options))
    assert handler({"inputs": image, "parameters": None}) == handler({"inputs": image})


def test_names_in_a_language(handler, monkeypatch):
    rows = handler({"inputs": PNG[0], "parameters": {"top_k": 7}})
    assert {row["name"] for row in rows} == {
        row["label"].replace("_", " ").capitalize() for row in rows
    }
    with pytest.raises(
        ValueError, match="language 'ko': the model has no names in it: it has none"
    ):
        handler({"inputs": PNG[0], "parameters": {"language": "ko"}})
    block = {"format": 1, **names_of(LABELS)}
    monkeypatch.setattr(handler.model.config, "food_classification", block, raising=False)
    for language in ("en", "ko"):
        rows = handler({"inputs": PNG[0], "parameters": {"top_k": 7, "language": language}})
        assert {row["label"]: row["name"] for row in rows} == block["names"][language]
    for bad in ("de", 5, ["ko"]):
        with pytest.raises(ValueError, match="has no names in it: give en or ko") as error:
            handler({"inputs": PNG[0], "parameters": {"language": bad}})
        assert_one_line(error)


STORED = {
    "format": 1,
    "thresholds": {"0.8": 0.3, "0.95": 0.5, "0.99": None},
    "sets": {"0.5": 0.4, "0.9": 0.1},
    "held_out": {"n": 200, "source": "selection"},
}


def test_sure_or_not(handler, classify, monkeypatch):
    for each in (handler, classify):
        monkeypatch.setattr(each.model.config, "food_classification", STORED, raising=False)
    for options in (
        {"abstain": True},
        {"coverage": 0.9},
        {"abstain": 0.8, "coverage": 0.5, "top_k": 2},
    ):
        for data in PNG:
            found = handler({"inputs": text(data), "parameters": options})
            expected = classify(data, **options)
            for key in ("labels", "set"):
                if expected[key] is not None:
                    same(found.pop(key), expected.pop(key))
            assert found == expected
    (first,) = handler({"inputs": PNG[:1], "parameters": {"abstain": "TRUE", "coverage": "0.9"}})
    assert first == handler({"inputs": PNG[0], "parameters": {"abstain": True, "coverage": 0.9}})
    assert json.loads(json.dumps(first)) == first
    assert isinstance(handler({"inputs": PNG[0], "parameters": {"abstain": "false"}}), list)
    for bad, said in (
        ({"abstain": "0.7"}, "abstain=0.7: give True"),
        ({"abstain": "sure"}, "abstain='sure': give True"),
        ({"coverage": "true"}, "coverage=True: give a number"),
        ({"abstain": 0.99}, "at least 299 held-out images"),
        ({"abstain": True, "function_to_apply": "Sigmoid"}, "function_to_apply is 'sigmoid'"),
    ):
        with pytest.raises(ValueError) as error:
            handler({"inputs": PNG[0], "parameters": bad})
        assert_one_line(error, said)


def test_sure_or_not_needs_the_numbers(handler):
    with pytest.raises(ValueError, match="config.json of this model has no thresholds: train it"):
        handler({"inputs": PNG[0], "parameters": {"abstain": True}})


@pytest.fixture(scope="module")
def told(told_folder):
    """A handler whose model tells what may be no food, with the food pipeline of the same folder."""
    for path in handler_sources():
        (told_folder / path.name).write_bytes(path.read_bytes())
    classify = pipeline(
        "food-classification", str(told_folder), trust_remote_code=True, device="cpu"
    )
    with endpoint_handler(told_folder) as handler:
        yield handler, classify


PICTURES = [encode(photo(seed=seed), "PNG") for seed in range(9)]  # those of `told_folder`


def test_no_food(told):
    handler, classify = told
    block = classify.model.config.food_classification
    for each in (handler, classify):
        each.model.config.food_classification = {**block, **STORED}
    for options in (
        {"not_food": True},
        {"not_food": 0.1, "top_k": 2, "function_to_apply": "sigmoid"},
        {"not_food": 0.02, "abstain": True, "coverage": 0.9},
    ):
        request = {"inputs": [text(data) for data in PICTURES], "parameters": options}
        found, expected = handler(request), classify(PICTURES, **options)
        for one, other in zip(found, expected, strict=True):
            for key in ("labels", "set"):
                if other[key] is not None:
                    same(one.pop(key), other.pop(key))
        assert found == expected and json.loads(json.dumps(found)) == found
        assert (
            sum(one["not_food"] for one in found) == {True: 4, 0.1: 7, 0.02: 0}[options["not_food"]]
        )
    for query, meant in (("TRUE", True), ("0.10", 0.1)):
        found = [
            handler({"inputs": PICTURES, "parameters": {"not_food": each}})
            for each in (query, meant)
        ]
        assert found[0] == found[1]
    (alone,) = handler({"inputs": PICTURES[:1], "parameters": {"not_food": True}})
    assert handler({"inputs": PICTURES[0], "parameters": {"not_food": True}}) == alone
    for off in (None, False, "false"):
        same(
            handler({"inputs": PNG[0], "parameters": {"not_food": off}}),
            handler({"inputs": PNG[0]}),
        )


@pytest.mark.parametrize("bad", [0.03, "0.03", 1, "yes", [0.05] * 999, {"a": 1}, "x\n" * 999])
def test_a_bad_share_of_food(told, bad):
    with pytest.raises(ValueError) as error:
        told[0]({"inputs": "no image", "parameters": {"not_food": bad}})
    assert_one_line(
        error, "not_food ", " is not known: give True, False, or a share", "0.02, 0.05, 0.1"
    )


def test_no_food_needs_the_numbers_and_the_file(handler, told, monkeypatch, tmp_path):
    with pytest.raises(
        ValueError, match="not_food True: the model has nothing to tell it by: train"
    ):
        handler({"inputs": PNG[0], "parameters": {"not_food": True}})
    with pytest.raises(
        ValueError, match="0.01: its threshold needs more selection images than the"
    ):
        told[0]({"inputs": PNG[0], "parameters": {"not_food": 0.01}})
    monkeypatch.setattr(told[0].model.config, "_name_or_path", str(tmp_path))
    with pytest.raises(ValueError, match="not_food.safetensors is not beside the weights") as error:
        told[0]({"inputs": "no image", "parameters": {"not_food": True}})
    assert_one_line(error)


def test_a_network_of_several_labels_at_once(handler, classify, monkeypatch):
    monkeypatch.setattr(handler.model.config, "problem_type", "multi_label_classification")
    same(handler({"inputs": PNG[0]}), classify(PNG[0], function_to_apply="sigmoid"))


URL = "https://example.org/a.jpg?x=1"
BAD = {
    "url": (URL, f"'{URL}': URLs are not fetched"),
    "local url": ("file:///etc/passwd", "'file:///etc/passwd': URLs are not fetched"),
    "path": ("/etc/passwd", "'/etc/passwd' is not an image in base64"),
    "path of the release": ("config.json", "'config.json' is not an image in base64"),
    "a path in the letters of base64": ("etc/passwd01", "not a readable image"),
    "empty": ("", "'' is not an image in base64"),
    "long garbage": ("?" * 10_000, "is not an image in base64"),
    "base64 in lines": (base64.encodebytes(PNG[0]).decode(), "without line breaks"),
    "base64 of text": (text(b"hello, I am a text"), "not a readable image"),
    "half": (text(PNG[0][: len(PNG[0]) // 2]), "not a readable image"),
    "bomb": (text(png_header(20_000, 10_000)), "ake it smaller"),
    "data url of a text": ("data:text/plain;base64,aGVsbG8=", "not an image in base64"),
    "data url, cut": (f"data:image/png;base64,{text(PNG[0])[:-1]}", "not strictly base64"),
    "number": (7, "a int is not an image"),
    "dict": ({"url": URL}, "a dict is not an image"),
    "nested list": ([text(PNG[0])], "a list is not an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_in_one_line(handler, no_network, name):
    inputs, part = BAD[name]
    if name != "nested list":
        with pytest.raises(ValueError) as error:
            handler({"inputs": inputs})
        assert_one_line(error, "the image: ", part)
    with pytest.raises(ValueError) as error:
        handler({"inputs": [text(PNG[0]), inputs]})
    assert_one_line(error, "image 1 of the list: ", part)
    assert no_network == []


@pytest.mark.parametrize(
    "data, part",
    [
        ({}, 'the request has no "inputs"'),
        ({"inputs": None}, 'the request has no "inputs"'),
        ([], 'the request has no "inputs"'),
        ({"inputs": []}, "the list of images is empty"),
        ({"parameters": {"top_k": 0}}, "top_k must be a whole number of at least 1, not 0"),
        ({"parameters": {"top_k": "all"}}, "not 'all'"),
        ({"parameters": {"top_k": True}}, "not True"),
        ({"parameters": {"top_k": 2.0}}, "not 2.0"),
        ({"parameters": {"function_to_apply": "log"}}, "one of softmax, sigmoid, none, not 'log'"),
        ({"parameters": {"function_to_apply": 1}}, "not 1"),
        ({"parameters": {"topk": 1, "top_k": 1}}, "parameters ['topk']: unknown; give top_k"),
        ({"parameters": [3]}, "parameters [3]: unknown"),
    ],
)
def test_requests_that_are_none(handler, data, part):
    if isinstance(data, dict) and "parameters" in data:
        data = {"inputs": PNG[0], **data}
    with pytest.raises(ValueError) as error:
        handler(data)
    assert_one_line(error, part)


def test_what_the_container_installs():
    """Nothing that would exchange what it has: with a newer Hub client its own code breaks."""
    (path,) = [path for path in handler_sources() if path.name == "requirements.txt"]
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [re.split(r"[^\w-]", line)[0] for line in lines if line]
    assert names == ["pillow"] and not any("==" in line for line in lines)


def test_the_pipeline_class_is_not_needed(handler):
    assert not isinstance(handler.model, FoodClassificationPipeline)
    assert "FoodClassificationPipeline" not in Path(module.__file__).read_text(encoding="utf-8")
