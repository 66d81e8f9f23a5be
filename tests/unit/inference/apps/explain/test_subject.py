# SPDX-License-Identifier: Apache-2.0
"""One network and one photograph: what it answers, what is not sure, and what is refused."""

import base64
import copy
import io
import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from inference.apps.explain.subject import (
    SMALL,
    Subject,
    answers,
    read_photo,
    seen_input,
    shown_photo,
)
from inference.food_classification import FoodClassificationPipeline
from inference.food_explain import explain
from inference.food_images import Preprocessing
from tests.unit.explained import draw, save_vit, unpacked, vit
from tests.unit.pictures import LABELS, photo, square
from training.common.errors import UserError
from training.model.config_block import merge_block

REPORT = {
    "format": 2,
    "metrics": {"top1": {"value": 0.8, "interval": [0.7, 0.9]}},
    "n": 50,
    "dataset": "dishes",
    "split": "test",
}


@pytest.fixture
def folder(tmp_path):
    return save_vit(tmp_path / "model")


@pytest.fixture
def subject(folder):
    return Subject.load(str(folder))


def told(folder, **block) -> Subject:
    """A network with something in its block of config.json."""
    subject = Subject.load(str(folder))
    merge_block(subject.network.model.config, **block)
    return subject


def refusal(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# ---- a network -----------------------------------------------------------------------------------


def test_a_run_and_its_model_folder_are_found(tmp_path):
    save_vit(tmp_path / "run" / "model")
    for name in ("run", "run/model"):
        subject = Subject.load(str(tmp_path / name))
        assert subject.is_vit and subject.folder == tmp_path / name


def test_accuracy_is_that_of_its_own_report(subject, folder):
    assert subject.accuracy() is None
    (folder / "evaluation.json").write_text(json.dumps(REPORT))
    assert subject.accuracy() == {
        "value": 0.8, "interval": [0.7, 0.9], "n": 50, "dataset": "dishes", "split": "test",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"metrics": {"top1": 0.8}}'])
def test_a_report_that_is_none_is_not_passed_over(subject, folder, text):
    (folder / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match="is no report of a test split") as error:
        subject.accuracy()
    assert str(folder) in refusal(error)


# ---- a photograph --------------------------------------------------------------------------------


def test_a_photograph_is_decoded(tmp_path):
    path = draw(tmp_path / "dinner.png")
    assert np.array_equal(read_photo(str(path)), np.asarray(photo()))
    height, width = read_photo(str(path), 10**9).shape[:2]
    assert read_photo(str(path), height * width).shape[:2] == (height, width)
    with pytest.raises(UserError, match="dinner.png: .* over the limit of"):
        read_photo(str(path), height * width - 1)


def test_what_is_no_photograph_is_refused(tmp_path):
    draw(tmp_path / "dinner.png")
    (tmp_path / "text.jpg").write_text("no image")
    for name, said in (
        ("", "is a folder: give one image file"),
        ("diner.png", "no such file; give the path of an image file; did you mean"),
        ("text.jpg", "text.jpg: "),
    ):
        with pytest.raises(UserError) as error:
            read_photo(str(tmp_path / name))
        assert said in refusal(error)


def steps_of(processor) -> Preprocessing:
    return Preprocessing.from_processor(processor)


def test_a_photograph_that_is_squeezed_is_seen_whole():
    steps = steps_of(transformers.ViTImageProcessorPil(size=square(32)))
    shown = shown_photo(np.asarray(photo(48, 64)), steps)
    assert (shown["width"], shown["height"], shown["edge"]) == (64, 48, None)
    assert shown["crop"] == {"height": 1, "width": 1} and shown["lost"] == 0
    assert not shown["keeps_shape"]


def test_what_is_cut_off_is_told():
    crop = {"crop_size": square(32)}
    steps = steps_of(transformers.BitImageProcessorPil(size={"shortest_edge": 40}, **crop))
    shown = shown_photo(np.asarray(photo(48, 96)), steps)  # resized to 40 x 80
    assert shown["keeps_shape"] and shown["edge"] == 40
    assert shown["crop"] == {"height": 32 / 40, "width": 32 / 80}
    assert shown["lost"] == pytest.approx(1 - 32 * 32 / (40 * 80))
    # The frame is where the network's pixels come from.
    kept = np.asarray(photo(48, 96).resize((80, 40), Image.Resampling.BICUBIC))[4:36, 24:56]
    assert np.abs(kept.astype(int) - steps.crop(np.asarray(photo(48, 96))).permute(1, 2, 0).numpy()
                  ).mean() < 3  # fmt: skip


def test_what_the_network_gets_is_described(subject):
    steps = subject.network.preprocessing
    pixels = steps.crop(np.asarray(photo()))
    values = steps.normalize(pixels[None])
    seen = seen_input(np.asarray(photo()), values, steps)
    assert np.array_equal(opened(seen["src"]), pixels.permute(1, 2, 0))
    assert seen["numbers"] == 3 * 32 * 32
    assert (seen["least"], seen["most"]) == (float(values.min()), float(values.max()))
    by_hand = (float(pixels.max()) * seen["rescale"] - 0.5) / 0.5
    assert seen["most"] == pytest.approx(by_hand, abs=1e-5)
    assert seen["image_mean"] == seen["image_std"] == [0.5] * 3


def opened(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


CUT = {"size": {"shortest_edge": 40}, "crop_size": square(32)}
PCT = {"size": {"shortest_edge": 32}, "crop_pct": 0.8}


@pytest.mark.parametrize(
    "kind, values, times",
    [
        ("ViT", {"size": square(32)}, 6),
        ("ViT", {"size": {"height": 32, "width": 64}}, 3),
        ("Bit", CUT, 5),
        ("ConvNext", PCT, 5),
    ],
)
def test_what_maps_are_drawn_on_is_the_same_part_with_more_pixels(kind, values, times):
    steps = steps_of(getattr(transformers, f"{kind}ImageProcessorPil")(**values))
    picture = np.asarray(photo(200, 260))
    seen = seen_input(picture, torch.zeros(1, 3, 1, 1), steps)
    small, sharp = opened(seen["src"]).astype(int), opened(seen["sharp"])
    assert sharp.shape[:2] == (times * steps.height, times * steps.width)
    again = Image.fromarray(sharp).resize((steps.width, steps.height), Image.Resampling.BOX)
    assert np.abs(np.asarray(again) - small).mean() < 6


def test_a_small_photograph_is_not_enlarged():
    steps = steps_of(transformers.ViTImageProcessorPil(size=square(32)))
    seen = seen_input(np.asarray(photo(40, 30)), torch.zeros(1, 3, 1, 1), steps)
    assert opened(seen["sharp"]).shape == (32, 32, 3)


# ---- answers -------------------------------------------------------------------------------------


def asked(subject, labels=(), language=None):
    return answers(subject, np.asarray(photo()), list(labels), language)


def test_answers_are_the_pipelines(subject):
    answer, values = asked(subject)
    model = subject.network.model
    classify = FoodClassificationPipeline(model=model, image_processor=subject.network.processor)
    rows = classify(photo(), top_k=5)
    assert [{k: row[k] for k in ("label", "name", "score")} for row in answer["ranked"]] == rows
    assert answer["decision"] is None and answer["temperature"] is None
    assert [row["before"] for row in answer["ranked"]] == pytest.approx(
        [row["score"] for row in rows], rel=1e-4
    )
    numbers = [model.config.label2id[row["label"]] for row in rows[:2]]
    with torch.no_grad():
        logits = model(pixel_values=values).logits
    maps, method = explain(model, values, torch.tensor([numbers]), logits)
    assert answer["method"] == method and answer["grid"] == {"rows": 4, "columns": 4}
    for each, expected in zip(answer["why"], maps[0].numpy(), strict=True):
        assert np.abs(unpacked(each["map"]) - expected).max() <= expected.max() / 255
        assert each["small"] == (each["score"] < SMALL) and not each["asked"]


def test_labels_that_are_asked_for_come_after_the_first_two_and_once(subject):
    answer = asked(subject)[0]
    first, second, third = (row["label"] for row in answer["ranked"][:3])
    again = asked(subject, [third, first, third.replace("_", " ").upper()])[0]
    assert [each["label"] for each in again["why"]] == [first, second, third]
    assert [each["asked"] for each in again["why"]] == [True, False, True]


def test_an_unknown_label_is_named_with_its_nearest(subject):
    with pytest.raises(UserError) as error:
        asked(subject, ["hotdog"])
    assert "label 'hotdog' is not known to this model: is it hot_dog?" in refusal(error)


def test_one_label_has_no_runner_up(tmp_path):
    answer = asked(Subject.load(str(save_vit(tmp_path / "one", labels=["pho"]))))[0]
    assert [each["label"] for each in answer["why"]] == ["pho"]


def test_scores_before_calibration_are_those_of_the_undivided_head(folder):
    plain = asked(Subject.load(str(folder)))[0]
    subject = told(folder, temperature=2.5)
    with torch.no_grad():
        for parameter in subject.network.model.classifier.parameters():
            parameter /= 2.5
    answer = asked(subject)[0]
    assert answer["temperature"] == 2.5
    before = {row["label"]: row["score"] for row in plain["ranked"]}
    for row in answer["ranked"]:
        if row["label"] in before:
            assert row["before"] == pytest.approx(before[row["label"]], rel=1e-3)
    assert answer["ranked"][0]["score"] < answer["ranked"][0]["before"]


@pytest.mark.parametrize("threshold, answered", [(0.0, True), (0.9999, False)])
def test_whether_it_is_sure_is_told_where_the_model_can(folder, threshold, answered):
    answer = asked(told(folder, thresholds={"0.95": threshold}))[0]
    assert answer["decision"] == {"answered": answered, "not_food": None}


def test_a_model_without_a_threshold_says_nothing_of_it(folder):
    assert asked(told(folder, thresholds={"0.8": 0.1, "0.95": None}))[0]["decision"] is None


def test_names_in_the_language_are_the_models(folder):
    names = {"en": {label: f"en {label}" for label in LABELS}}
    names["ko"] = {label: f"ko {label}" for label in LABELS}
    subject = told(folder, names=names)
    assert all(row["name"] == f"ko {row['label']}" for row in asked(subject, (), "ko")[0]["ranked"])
    label = asked(subject)[0]["ranked"][4]["label"]
    assert asked(subject, [f"ko {label}"], "ko")[0]["why"][2]["label"] == label


def test_a_network_that_cannot_be_explained_is_refused(subject):
    other = copy.deepcopy(subject)
    with torch.no_grad():
        object.__setattr__(other.network, "model", vit(kind="Dinov2", mlp_ratio=2))
    with pytest.raises(UserError) as error:
        asked(other)
    assert "cannot be explained" in refusal(error)


def test_what_may_be_no_food_is_told_where_the_model_can(told_folder):
    subject = Subject.load(str(told_folder))
    said = {
        answers(subject, np.asarray(photo(seed=seed)), [], None)[0]["decision"]["not_food"]
        for seed in range(9)
    }
    assert said == {True, False}
