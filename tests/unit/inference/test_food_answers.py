# SPDX-License-Identifier: Apache-2.0
"""`abstain` and `coverage` of the food pipeline: what is answered, what is refused, and in which words."""

import copy
import json
import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from transformers import pipeline

from inference.food_answers import AnswerOptions, answer, options_of, probabilities
from inference.food_classification import FoodClassificationPipeline
from tests.unit.pictures import LABELS, assert_one_line, encode, photo
from training.evaluation.classification import log_softmax
from training.evaluation.trust.abstention import COVERAGES
from training.model.config_block import merge_block
from training.model.names import names_of

IMAGES = [encode(photo(seed=seed), "PNG") for seed in range(12)]
STORED = {
    "thresholds": {"0.8": 0.3, "0.85": 0.4, "0.9": 0.5, "0.95": 0.55, "0.98": None, "0.99": None},
    "sets": {f"{coverage:g}": round(1 - coverage, 3) for coverage in COVERAGES},
    "held_out": {"n": 200, "source": "selection"},
}


@pytest.fixture(scope="module")
def sure_model(model):
    known = copy.deepcopy(model)
    merge_block(known.config, **names_of(LABELS), **STORED)
    return known


@pytest.fixture(scope="module")
def sure(sure_model, processor):
    return FoodClassificationPipeline(model=sure_model, image_processor=processor, device="cpu")


# ---- what comes back ----------------------------------------------------------------------------


def test_without_options_nothing_changes(sure, classify):
    plain = classify(IMAGES)
    for options in ({}, {"abstain": None, "coverage": None}, {"abstain": False}):
        assert sure(IMAGES, **options) == plain


def test_the_dictionary(sure):
    whole = sure(IMAGES, top_k=7)
    found = sure(IMAGES, top_k=2, abstain=True, coverage=0.9)
    answered = 0
    for rows, each in zip(whole, found, strict=True):
        assert list(each) == ["labels", "answered", "set", "not_food"]
        assert each["labels"] == rows[:2] and each["not_food"] is None
        assert each["answered"] is (rows[0]["score"] >= 0.55)
        assert each["set"] == [row for row in rows if row["score"] >= 0.1]  # of all labels
        answered += each["answered"]
    assert 0 < answered < len(IMAGES) and max(len(each["set"]) for each in found) > 2


def test_each_option_alone(sure):
    for each in sure(IMAGES[:3], abstain=0.8):
        assert each["answered"] in (True, False) and each["set"] is None
    for each in sure(IMAGES[:3], coverage=0.5):
        assert each["answered"] is None and isinstance(each["set"], list)
        assert all(row["score"] >= 0.5 for row in each["set"])


def test_a_set_may_be_empty(sure):
    unsure = next(data for data in IMAGES if sure(data)[0]["score"] < 0.5)
    assert sure(unsure, coverage=0.5)["set"] == []


def test_one_many_and_iterators(sure, tmp_path):
    options = {"abstain": 0.8, "coverage": 0.9}
    one = [sure(data, **options) for data in IMAGES]
    assert sure(IMAGES, **options) == sure(tuple(IMAGES), **options) == one
    assert [type(each) for each in one] == [dict] * len(IMAGES)
    stream = sure((data for data in IMAGES), **options)
    assert not isinstance(stream, (list, dict)) and list(stream) == one
    for batched in (sure(IMAGES, batch_size=5, **options), sure(Shown(), batch_size=5, **options)):
        assert [each["answered"] for each in batched] == [each["answered"] for each in one]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda data: sure(data, **options), IMAGES)) == one


class Shown(torch.utils.data.Dataset):
    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, position):
        return IMAGES[position]


def test_construction_and_call(sure, sure_model, processor):
    parts = {"model": sure_model, "image_processor": processor, "device": "cpu"}
    built = FoodClassificationPipeline(**parts, abstain=0.8, coverage=0.9)
    wanted = sure(IMAGES[0], abstain=0.8, coverage=0.9)
    assert built(IMAGES[0]) == wanted
    assert built(IMAGES[0], abstain=False)["answered"] is None
    assert built(IMAGES[0], coverage=0.5) == sure(IMAGES[0], abstain=0.8, coverage=0.5)
    assert built(IMAGES[0]) == wanted  # the call's options were of the call


@pytest.mark.parametrize("off", [None, False])
def test_a_call_takes_back_what_construction_asked(sure, sure_model, processor, off):
    parts = {"model": sure_model, "image_processor": processor, "device": "cpu"}
    built = FoodClassificationPipeline(**parts, abstain=0.8, coverage=0.9)
    for images in (IMAGES[0], IMAGES[:3]):
        assert built(images, abstain=off, coverage=None) == sure(images)
        assert built(images, abstain=off) == sure(images, coverage=0.9)
        assert built(images, coverage=None) == sure(images, abstain=0.8)
        # Nothing is asked that other scores would not go with.
        sigmoid = {"function_to_apply": "sigmoid", "abstain": off, "coverage": None}
        assert built(images, **sigmoid) == sure(images, function_to_apply="sigmoid")
        assert built(images) == sure(images, abstain=0.8, coverage=0.9)  # it was of the call
    assert list(built(iter(IMAGES), abstain=off, coverage=None)) == sure(IMAGES)
    with pytest.raises(ValueError, match="abstain is about softmax"):
        built(IMAGES[0], function_to_apply="sigmoid", coverage=None)


def test_an_image_that_cannot_be_scored(sure):
    found = sure([b"", IMAGES[0]], abstain=True, on_error="return")
    error = found[0].pop("error")
    assert found[0] == {"labels": [], "answered": None, "set": None, "not_food": None}
    assert "0 bytes" in error and "\n" not in error
    assert "error" not in found[1] and found[1]["labels"]


def test_names_in_a_language(sure):
    found = sure(IMAGES[0], abstain=True, coverage=0.99, language="ko")
    korean = names_of(LABELS)["names"]["ko"]
    rows = found["labels"] + found["set"]
    assert found["set"] and all(row["name"] == korean[row["label"]] for row in rows)


def test_saved_and_loaded(sure, tmp_path):
    sure.save_pretrained(tmp_path)
    again = pipeline(model=str(tmp_path), trust_remote_code=True, device="cpu", abstain=True)
    assert again(IMAGES[0], coverage=0.9) == sure(IMAGES[0], abstain=True, coverage=0.9)
    stock = pipeline("image-classification", model=str(tmp_path), device="cpu")
    rows = stock(photo())
    assert [set(row) for row in rows] == [{"label", "score"}] * 5


def test_half_precision(sure_model, processor):
    half = copy.deepcopy(sure_model).to(torch.bfloat16)
    pipe = FoodClassificationPipeline(model=half, image_processor=processor, device="cpu")
    for each in pipe(IMAGES, abstain=0.8, coverage=0.9):
        assert each["answered"] is (each["labels"][0]["score"] >= 0.3)


# ---- how it is decided --------------------------------------------------------------------------


def test_probabilities_are_those_of_the_evaluation():
    logits = np.random.default_rng(0).normal(0, 5, (300, 101)).astype(np.float32)
    whole = np.exp(log_softmax(logits.astype(np.float64)))
    assert [probabilities(row) for row in logits] == whole.tolist()


def test_at_the_threshold_is_answered():
    rows = [{"label": "pho"}, {"label": "ramen"}]
    chances = {"pho": 0.6, "ramen": 0.4}
    for least, answered in ((0.6, True), (math.nextafter(0.6, 1), False)):
        assert answer(rows, chances, AnswerOptions(least, None), 1)["answered"] is answered
    found = answer(rows, chances, AnswerOptions(None, 0.4), 1)
    assert found["set"] == rows and found["labels"] == rows[:1]


def test_a_score_that_is_no_number_is_not_answered():
    chances = dict.fromkeys(LABELS, float("nan"))
    rows = [{"label": label} for label in LABELS]
    found = answer(rows, chances, AnswerOptions(0.0, 0.0), 5)
    assert found["answered"] is False and found["set"] == []


# ---- bad values ---------------------------------------------------------------------------------

STORED_TARGETS = "give True (for 0.95) or one of 0.8, 0.85, 0.9, 0.95, 0.98, 0.99"
GRID = "give a number from 0.5 to 0.99 in steps of 0.01"
BAD = [
    ({"abstain": 0.7}, f"abstain=0.7: {STORED_TARGETS}"),
    ({"abstain": 1}, f"abstain=1: {STORED_TARGETS}"),
    ({"abstain": 0}, f"abstain=0: {STORED_TARGETS}"),
    ({"abstain": 95}, f"abstain=95: {STORED_TARGETS}"),
    ({"abstain": "0.95"}, f"abstain='0.95': {STORED_TARGETS}"),
    ({"abstain": float("nan")}, f"abstain=nan: {STORED_TARGETS}"),
    ({"abstain": [0.95]}, f"abstain=[0.95]: {STORED_TARGETS}"),
    ({"abstain": "x" * 999}, STORED_TARGETS),
    ({"abstain": np.eye(3)}, "abstain=array([[1., 0., 0.], [0., 1., 0.]"),
    ({"abstain": 0.98}, "no threshold keeps that on the 200 held-out images of this model: give 0.8 or"),
    ({"abstain": 0.99}, "abstain=0.99: that needs at least 299 held-out images and there were 200: "
     "train again with more (selection_fraction), or give 0.8 or 0.85 or 0.9 or 0.95"),
    ({"coverage": 0.4}, f"coverage=0.4: {GRID}"),
    ({"coverage": 0.995}, f"coverage=0.995: {GRID}"),
    ({"coverage": 1.0}, f"coverage=1.0: {GRID}"),
    ({"coverage": 90}, f"coverage=90: {GRID}"),
    ({"coverage": 10**400}, GRID),
    ({"coverage": True}, f"coverage=True: {GRID}"),
    ({"coverage": False}, f"coverage=False: {GRID}"),
    ({"coverage": "0.9"}, f"coverage='0.9': {GRID}"),
    ({"abstain": True, "coverage": -1}, f"coverage=-1: {GRID}"),
    ({"abstain": True, "function_to_apply": "sigmoid"}, "abstain is about softmax probabilities, and "
     "function_to_apply is 'sigmoid': leave one"),
    ({"coverage": 0.9, "function_to_apply": "none"}, "coverage is about softmax"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), BAD)
def test_a_bad_value_is_named(sure, sure_model, processor, options, said):
    def build():
        return FoodClassificationPipeline(
            model=sure_model, image_processor=processor, device="cpu", **options
        )

    for make in (lambda: sure(IMAGES[0], **options), lambda: sure(iter(()), **options), build):
        with pytest.raises(ValueError) as error:
            make()
        assert_one_line(error, said)


def test_function_and_option_from_different_places(sure, sure_model, processor):
    parts = {"model": sure_model, "image_processor": processor, "device": "cpu"}
    raw = FoodClassificationPipeline(**parts, function_to_apply="none")
    with pytest.raises(ValueError, match="function_to_apply is 'none'"):
        raw(IMAGES[0], abstain=True)
    assert raw(IMAGES[0], abstain=True, function_to_apply="Softmax")["labels"]


def test_scores_that_are_no_softmax_by_the_config(sure_model, processor):
    several = copy.deepcopy(sure_model)
    several.config.problem_type = "multi_label_classification"
    pipe = FoodClassificationPipeline(model=several, image_processor=processor, device="cpu")
    with pytest.raises(ValueError, match="function_to_apply is 'sigmoid'"):
        pipe(IMAGES[0], coverage=0.9)


@pytest.mark.parametrize(
    "value", [0.9, 0.8 + 0.1, np.float32(0.9), np.float64(0.9), Fraction(9, 10)]
)
def test_any_number_that_is_meant(value):
    assert options_of(STORED, value, value, "softmax") == AnswerOptions(0.5, 0.1)


def test_every_coverage_is_found():
    for coverage in np.arange(50, 100) / 100:
        found = options_of(STORED, None, coverage, "softmax").least_in_set
        assert found == pytest.approx(1 - coverage, abs=1e-9)


FEW = {
    "thresholds": dict.fromkeys(STORED["thresholds"]),
    "sets": {"0.5": 0.2, "0.9": 0.1},
    "held_out": {"n": 12, "source": "selection"},
}


@pytest.mark.parametrize(
    ("block", "options", "said"),
    [
        ({}, (True, None), "abstain=True: config.json of this model has no thresholds: train it again "),
        ({}, (None, 0.9), "coverage=0.9: config.json of this model has no sets: train it again with "),
        (FEW, (True, None), "abstain=True: that needs at least 59 held-out images and there were 12: "
         "train again with more (selection_fraction), or leave abstain out"),
        (FEW, (None, 0.95), "coverage=0.95: give a number from 0.5 to 0.9 in steps of 0.01; others are "
         "not stored with this model, which had 12 held-out images"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_say_it(block, options, said):
    with pytest.raises(ValueError) as error:
        options_of(block, *options, "softmax")
    assert_one_line(error, said)


def test_an_older_release_answers_as_it_did(classify):
    assert isinstance(classify(IMAGES[0]), list)
    with pytest.raises(ValueError, match="train it again with vit-food101"):
        classify(IMAGES[0], abstain=True)


def test_an_answer_is_json(sure):
    found = sure(IMAGES[0], abstain=True, coverage=0.9)
    assert json.loads(json.dumps(found)) == found
