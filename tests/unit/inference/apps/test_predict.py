# SPDX-License-Identifier: Apache-2.0
"""Labels of image files by a run or release, as `food101 predict` gives them."""

import itertools
import json
import logging
import shutil

import pytest

from inference.apps import predict as predict_module
from inference.apps.images import Asked
from inference.apps.predict import Answer, predict_images
from tests.unit.toys import LABELS, jpeg
from training.common.errors import UserError
from training.common.progress import Progress
from training.model.config_block import merge_block


def labelled(model, images, top_k=2, batch_size=2, **options) -> list[Answer]:
    asked = [each if isinstance(each, Asked) else Asked(str(each)) for each in images]
    return list(predict_images(str(model), asked, top_k, None, batch_size, **options))


def test_each_image_gets_its_ranked_labels(tiny_run, tiny_data):
    images = [str(tiny_data / "validation" / label / "0.jpg") for label in LABELS]
    found = labelled(tiny_run, images)
    assert [answer.image for answer in found] == images
    for answer in found:
        rows = answer.labels
        assert answer.error is None and len(rows) == 2 and rows[0]["score"] >= rows[1]["score"]
        assert {row["label"] for row in rows} <= set(LABELS)
        assert rows[0]["name"] == rows[0]["label"].replace("_", " ").capitalize()
    for image, answer in zip(images, found, strict=True):
        (alone,) = labelled(tiny_run, [image], batch_size=8)
        assert alone.labels[0]["label"] == answer.labels[0]["label"]
        assert alone.labels[0]["score"] == pytest.approx(answer.labels[0]["score"], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_what_cannot_be_read_is_told_in_its_place(tiny_run, tmp_path, batch_size):
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    (tmp_path / "notes.txt").write_text("no image")
    good, bad = tmp_path / "good.jpg", tmp_path / "notes.txt"
    images = [bad, good, Asked("nowhere", "no such file"), bad, good, good]
    found = labelled(tiny_run, images, batch_size=batch_size)
    assert [answer.error is None for answer in found] == [False, True, False, False, True, True]
    assert found[0].error.startswith("not a readable image") and found[0].labels == []
    assert found[2] == Answer("nowhere", [], "no such file")
    scores = [answer.labels[0]["score"] for answer in found if answer.labels]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-5)


def test_the_model_is_looked_for_at_once_and_loaded_for_the_first_image(tiny_run, monkeypatch):
    with pytest.raises(UserError, match="does not exist"):
        predict_images("./nowhere", [], 1, None, 1)
    monkeypatch.setattr(predict_module, "load_network", lambda *_: pytest.fail("loaded"))
    assert labelled(tiny_run, [Asked("x", "gone")] * 3) == [Answer("x", [], "gone")] * 3
    assert labelled(tiny_run, []) == []


def test_what_is_no_food_needs_a_model_that_tells_it(tiny_run, tmp_path):
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    with pytest.raises(
        UserError, match="not_food True: the model has nothing to tell it by: train"
    ):
        labelled(tiny_run, [tmp_path / "good.jpg"], not_food=True)
    (answer,) = labelled(tiny_run, [tmp_path / "good.jpg"], not_food=False)
    assert answer.more is None


def test_no_more_than_a_batch_is_read_ahead(tiny_run, tmp_path):
    """So that memory does not grow with the number of images."""
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    taken = itertools.count()
    endless = (Asked(str(tmp_path / "good.jpg")) for _ in taken)
    answers = predict_images(str(tiny_run), endless, 1, None, 4)
    for _ in range(9):
        assert next(answers).error is None
    assert next(taken) <= 12
    answers.close()


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (None, ["labelled 2 images", "labelled 3 images"]),
        (3, ["labelled 2 of 3 images", "labelled 3 images"]),
    ],
)
def test_how_far_it_has_come(tiny_run, tmp_path, monkeypatch, caplog, total, said):
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    counted = []
    monkeypatch.setattr(predict_module, "Progress", lambda total: Progress(total, -1.0))
    with caplog.at_level(logging.INFO, "inference"):
        labelled(tiny_run, [tmp_path / "good.jpg"] * 3, count=lambda: counted.append(1) or total)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(", ")[0] for line in lines] == said
    assert all("images/s" in line for line in lines)
    assert lines[0].endswith("s left") == bool(total)
    assert len(counted) == (1 if total else 2)


def test_names_in_a_language(tiny_run, tmp_path):
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    (found,) = labelled(tiny_run, [tmp_path / "good.jpg"], top_k=3, language="ko")
    names = {row["label"]: row["name"] for row in found.labels}
    assert names == {"cheese_plate": "치즈 플레이트", "cheesecake": "치즈케이크", "pizza": "피자"}
    with pytest.raises(UserError, match="language 'de': .* give en or ko"):
        labelled(tiny_run, [tmp_path / "good.jpg"], language="de")


@pytest.fixture
def sure_run(tiny_run, tmp_path):
    """The model of the run, as if there had been held-out images enough."""
    folder = shutil.copytree(tiny_run / "release", tmp_path / "sure")
    config = json.loads((folder / "config.json").read_text())
    merge_block(config, thresholds={"0.9": 0.2, "0.95": 0.999, "0.99": None}, sets={"0.9": 0.01})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_sure_or_not(sure_run, tiny_data):
    images = [str(tiny_data / "validation" / label / "0.jpg") for label in LABELS]
    plain = labelled(sure_run, images)
    assert all(answer.more is None for answer in plain)
    for abstain, answered in ((0.9, True), (True, False)):
        found = labelled(sure_run, images, abstain=abstain, coverage=0.9)
        assert [answer.labels for answer in found] == [answer.labels for answer in plain]
        for answer in found:
            assert answer.more["answered"] is answered and answer.more["not_food"] is None
            assert len(answer.more["set"]) == 3
    found = labelled(sure_run, ["nowhere.jpg", images[0]], coverage=0.9)
    assert found[0].more is None and found[0].error and found[1].more["answered"] is None


@pytest.mark.parametrize("options", [{"abstain": 0.5}, {"abstain": 0.99}, {"coverage": 2.0}])
def test_what_the_model_cannot_keep(sure_run, tiny_data, options):
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"{name}={value}: "):
        labelled(sure_run, [tiny_data / "validation" / "pizza" / "0.jpg"], **options)


def test_quick_work_says_nothing(tiny_run, tmp_path, caplog):
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    with caplog.at_level(logging.INFO, "inference"):
        labelled(tiny_run, [tmp_path / "good.jpg"], count=lambda: pytest.fail("counted"))
    assert caplog.records == []
