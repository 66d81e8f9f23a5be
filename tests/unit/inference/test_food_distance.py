# SPDX-License-Identifier: Apache-2.0
"""The distance from food in the pipeline: `not_food=`, from the file beside the weights."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from inference import food_distance
from inference.food_classification import FoodClassificationPipeline
from inference.food_distance import FILE, FoodDistance, distance_of, entering, threshold_of
from tests.unit.pictures import LABELS, assert_one_line, photo
from training.hub.contents import CODE

IMAGES = [photo(seed=seed) for seed in range(9)]


@pytest.fixture
def told(told_folder):
    """As a stranger loads it, but for the code, which is that of this project."""
    return FoodClassificationPipeline(
        model=AutoModelForImageClassification.from_pretrained(told_folder),
        image_processor=AutoImageProcessor.from_pretrained(told_folder),
        device="cpu",
    )


def verdicts(answers) -> list[bool]:
    return [each["not_food"] for each in answers]


def test_the_answer_is_a_dict_and_its_labels_are_those_of_the_list(told):
    plain = told(IMAGES[0])
    answer = told(IMAGES[0], not_food=True)
    assert answer == {
        "labels": plain,
        "answered": None,
        "set": None,
        "not_food": answer["not_food"],
    }
    assert isinstance(answer["not_food"], bool)
    assert told(IMAGES[0], not_food=False) == plain == told(IMAGES[0])
    json.dumps(answer)


def test_shares_and_their_thresholds(told):
    counts = {share: sum(verdicts(told(IMAGES, not_food=share))) for share in (0.02, 0.05, 0.1)}
    assert counts == {0.02: 0, 0.05: 4, 0.1: 7}
    assert verdicts(told(IMAGES, not_food=True)) == verdicts(told(IMAGES, not_food=0.05))


def test_batches_iterators_threads_and_construction_say_the_same(told):
    one = [told(image, not_food=True) for image in IMAGES]
    assert verdicts(told(IMAGES, not_food=True, batch_size=4)) == verdicts(one)
    assert verdicts(told(iter(IMAGES), not_food=True)) == verdicts(one)
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda image: told(image, not_food=True), IMAGES * 4))
    assert verdicts(many) == verdicts(one) * 4
    with ThreadPoolExecutor(8) as pool:  # some ask and some do not
        mixed = list(pool.map(lambda i: told(IMAGES[0], not_food=bool(i % 2)), range(24)))
    assert all(isinstance(each, dict if i % 2 else list) for i, each in enumerate(mixed))
    built = FoodClassificationPipeline(
        model=told.model, image_processor=told.image_processor, device="cpu", not_food=0.1
    )
    assert built(IMAGES[0])["not_food"] == told(IMAGES[0], not_food=0.1)["not_food"]


@pytest.mark.parametrize("off", [None, False])
def test_a_call_takes_back_what_construction_asked(told, off):
    parts = {"model": told.model, "image_processor": told.image_processor, "device": "cpu"}
    built = FoodClassificationPipeline(**parts, not_food=0.1)
    for images in (IMAGES[0], IMAGES[:3]):
        assert built(images, not_food=off) == told(images)
        assert built(images) == told(images, not_food=0.1)  # it was of the call
    assert list(built(iter(IMAGES), not_food=off)) == told(IMAGES)


def test_an_image_that_cannot_be_read_is_an_error_among_them(told):
    answers = told([IMAGES[0], b"no image", IMAGES[1]], not_food=True, on_error="return")
    assert [("error" in each) for each in answers] == [False, True, False]
    assert answers[1].keys() == {*answers[0], "error"} and answers[1]["not_food"] is None
    batched = told(
        [IMAGES[0], b"no image", IMAGES[1]], not_food=True, on_error="return", batch_size=3
    )
    assert batched[1] == answers[1] and verdicts(batched[::2]) == verdicts(answers[::2])


@pytest.mark.parametrize("bad", [0.03, 0, 1, 1.5, -0.05, "yes", "0.05", [0.05], float("nan")])
def test_a_bad_value_is_named_with_what_is_good(told, bad):
    with pytest.raises(ValueError, match=r"True, False, or a share .* 0.02, 0.05, 0.1") as raised:
        told(IMAGES[0], not_food=bad)
    assert str(raised.value).startswith(f"not_food {bad!r}")


@pytest.mark.parametrize("bad", ["x" * 999, [0.05] * 999, np.eye(30)])
def test_a_bad_value_is_one_line(told, bad):
    with pytest.raises(ValueError) as raised:
        told(IMAGES[0], not_food=bad)
    assert_one_line(raised, "not_food ", "... is not known: give True, False")


@pytest.mark.parametrize("share", [0.04 + 0.01, np.float32(0.05), Fraction(1, 20)])
def test_any_number_that_is_meant(told, share):
    block = told.model.config.food_classification
    assert threshold_of(block, share) == threshold_of(block, True)


def test_a_share_that_has_no_threshold_says_why(told):
    with pytest.raises(ValueError, match="not_food 0.01: its threshold needs more .* than the 60"):
        told(IMAGES[0], not_food=0.01)


def test_a_model_without_it_has_the_cure(classify):
    with pytest.raises(ValueError, match=r"nothing to tell it by: train with `--not_food true`"):
        classify(IMAGES[0], not_food=True)
    assert isinstance(classify(IMAGES[0], not_food=False), list)


def test_another_format_is_not_guessed_at():
    block = {"not_food": {"format": 2, "score": "other", "thresholds": {"0.05": 1.0}}}
    with pytest.raises(ValueError, match="has format 2 and score 'other'"):
        threshold_of(block, True)


def test_a_missing_file_and_another_one(told, tmp_path):
    facts = dict(told.model.config.food_classification["not_food"])
    config = copy.deepcopy(told.model.config)
    config._name_or_path = str(tmp_path)
    facts["sha256"] = "0" * 64
    with pytest.raises(ValueError, match=f"{FILE} is not beside the weights in"):
        distance_of(config, facts)
    (tmp_path / FILE).write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the file that config.json speaks of"):
        distance_of(config, facts)


@pytest.mark.parametrize("spoil", [
    lambda a: a.pop("means"),
    lambda a: a.update(whitening=a["whitening"][:-1]),
    lambda a: a.update(more=a["centre"]),
    lambda a: a["centre"].__setitem__(0, np.inf),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(spoil):
    arrays = {"centre": np.zeros(3), "whitening": np.eye(3), "means": np.zeros((2, 3))}
    FoodDistance(arrays)
    spoil(arrays)
    with pytest.raises(ValueError, match=FILE):
        FoodDistance(arrays)


def test_a_distance_does_not_depend_on_the_batch_dtype_or_device():
    rng = np.random.default_rng(0)
    arrays = {
        "centre": rng.normal(size=8), "whitening": 30 * rng.normal(size=(8, 8)),
        "means": rng.normal(size=(3, 8)),
    }  # fmt: skip
    distance, features = FoodDistance(arrays), torch.randn(5, 8)
    together = distance(features)
    assert np.allclose([distance(each[None])[0] for each in features], together, rtol=1e-12)
    assert np.allclose(distance(features.numpy()), together, rtol=1e-12)
    assert np.allclose(distance(features.bfloat16()), together, rtol=0.2)
    assert np.isfinite(distance(torch.zeros(1, 8))).all()


def test_the_hook_is_one_and_keeps_nothing(told):
    told(IMAGES[0], not_food=True)
    told(IMAGES[0], not_food=True)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(told.model)))
    for model in (told.model, twin):
        with entering(model, "classifier") as seen, torch.inference_mode():
            model(pixel_values=torch.zeros(2, 3, *[model.config.image_size] * 2))
        assert [each.shape for each in seen] == [(2, model.config.hidden_size)]
        assert len(model.classifier._forward_pre_hooks) == 1
    assert not hasattr(food_distance._SEEN, "list")


def test_it_is_saved_with_the_pipeline_and_loads_as_a_strangers(told, told_folder, tmp_path):
    told.save_pretrained(tmp_path)
    assert (tmp_path / FILE).read_bytes() == (told_folder / FILE).read_bytes()
    assert {path.name for path in tmp_path.glob("*.py")} == set(CODE)
    strange = pipeline(model=str(tmp_path), trust_remote_code=True, device="cpu")
    assert strange(IMAGES, not_food=True) == told(IMAGES, not_food=True)
    assert len(LABELS) >= len(strange(IMAGES[0], not_food=True)["labels"])


def test_nothing_is_saved_that_speaks_of_a_file_that_is_not_there(told, tmp_path):
    told.model.config._name_or_path = str(tmp_path / "gone")
    with pytest.raises(ValueError, match=f"{FILE} is not beside the weights"):
        told.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_on_the_hub_is_that_of_the_models_commit(told, tmp_path, monkeypatch):
    asked = []

    def cached_file(*words, **options):
        asked.append((words, options))
        raise OSError("no network")

    monkeypatch.setattr(food_distance, "cached_file", cached_file)
    config = copy.deepcopy(told.model.config)
    config._name_or_path, config._commit_hash = "user/repo", "abc"
    with pytest.raises(ValueError, match="'user/repo', or cannot be fetched"):
        food_distance.file_of(config)
    assert asked == [(("user/repo", FILE), {"revision": "abc"})]
