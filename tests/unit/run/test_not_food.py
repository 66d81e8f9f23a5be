# SPDX-License-Identifier: Apache-2.0
"""The stage that fits what tells pictures without food: in a run, its release and its pipeline."""

import base64
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, pipeline

from inference.apps.images import Asked
from inference.apps.predict import predict_images
from inference.food_distance import FILE
from tests.unit.toys import (
    LABELS,
    TINY_VIT,
    tiny_network,
    train,
    write_image_folder,
    write_recipe,
)
from training.common.errors import UserError
from training.common.files import sha256_file
from training.config.recipe import parse_recipe
from training.data.arguments import DataArguments
from training.data.loading import load_splits
from training.evaluation.features import image_features
from training.evaluation.report import evaluate_model
from training.hub.release import endpoint_handler, release_run
from training.hub.staging import stage_files
from training.model.network import load_network
from training.run.not_food import _said, check_not_food


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One test image is a selection image too."""
    root = write_image_folder(
        tmp_path_factory.mktemp("not_food") / "dishes", train=70, validation=4
    )
    splits = load_splits(DataArguments(dataset=str(root), selection_fraction=0.5))
    twin = root / splits.selection.paths[0]
    (root / "validation" / twin.parent.name / "twin.jpg").write_bytes(twin.read_bytes())
    return root


@pytest.fixture(scope="module")
def run(data):
    recipe = write_recipe(
        data.parent / "r.yaml", dataset=data, num_train_epochs=1, selection_fraction=0.5
    )
    train(recipe, "--output_dir", data.parent / "run", "--not_food", "true")
    return data.parent / "run"


def facts_of(folder) -> dict:
    return json.loads((folder / "config.json").read_text())["food_classification"]["not_food"]


def test_it_is_fitted_on_training_images_and_its_thresholds_on_others(run, data):
    facts = facts_of(run / "model")
    assert (facts["n_fitted"], facts["n_train"], facts["n_held_out"]) == (105, 105, 104)
    assert facts["sha256"] == sha256_file(run / "model" / FILE)
    splits = load_splits(DataArguments(dataset=str(data), selection_fraction=0.5))
    assert len(splits.selection) == 105  # one of them is a test image
    record = json.loads((run / "run.json").read_text())
    assert record["seconds"]["not_food"] > 0
    assert record["recipe"]["not_food"] is True


def test_the_temperature_has_no_say(run, data):
    """Features are before the head, which the temperature divides."""
    network = load_network(run / "model")
    block = network.model.config.food_classification
    assert block["temperature"] != 1 and block["not_food"]["head"] == "classifier"
    splits = load_splits(DataArguments(dataset=str(data), selection_fraction=0.5))
    before = image_features(network, splits.test, 0, 0)
    network.model.classifier.weight.data *= 3
    assert np.array_equal(before, image_features(network, splits.test, 0, 0))


def test_the_release_has_it_and_the_card_says_what_it_is(run):
    release = run / "release"
    manifest = json.loads((release / "release.json").read_text())
    assert manifest[FILE] == sha256_file(run / "model" / FILE) == facts_of(release)["sha256"]
    assert "food_distance.py" in manifest
    assert FILE in [file.name for file in stage_files(release, "me/dishes", "v1")]
    card = (release / "README.md").read_text()
    assert "### Not food" in card and "is not recognised as unknown" in card
    strange = pipeline(model=str(release), trust_remote_code=True, device="cpu")
    answer = strange(str(run / "example.jpg"), not_food=True)
    assert set(answer) == {"labels", "answered", "set", "not_food"}


def test_a_handler_of_the_release_says_it_too(run, tmp_path):
    out = tmp_path / "out"
    release_run(run, out, handler=True)
    assert "`not_food` is a parameter too" in (out / "README.md").read_text()
    image = base64.b64encode((run / "example.jpg").read_bytes()).decode()
    with endpoint_handler(out) as handler:
        answer = handler({"inputs": image, "parameters": {"not_food": 0.1}})
    strange = pipeline(model=str(out), trust_remote_code=True, device="cpu")
    assert answer["not_food"] is strange(str(run / "example.jpg"), not_food=0.1)["not_food"]


def test_what_is_reported_is_what_the_pipeline_says(run, data):
    section = json.loads((run / "evaluation.json").read_text())["not_food"]
    splits = load_splits(DataArguments(dataset=str(data), selection_fraction=0.5))
    strange = pipeline(model=str(run / "release"), trust_remote_code=True, device="cpu")
    images = [str(row["image"]["path"]) for row in splits.test.dataset]
    assert [row["promised"] for row in section["shares"]] == [0.01, 0.02, 0.05, 0.1]
    for row in section["shares"]:
        said = [each["not_food"] for each in strange(images, not_food=row["promised"])]
        assert row["refused"] == sum(said) / len(splits.test)
    again, _ = evaluate_model(run / "release", splits.source, splits.test, batch_size=5)
    assert again["not_food"] == section


def test_predict_says_it_too(run, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    asked = [Asked(str(path)) for path in (run / "example.jpg", bad, run / "example.jpg")]
    found = list(predict_images(str(run), asked, 2, None, 8, not_food=0.1))
    strange = pipeline(model=str(run / "release"), trust_remote_code=True, device="cpu")
    answer = strange(str(run / "example.jpg"), not_food=0.1)
    assert [each.more and each.more["not_food"] for each in found] == [
        answer["not_food"],
        None,
        answer["not_food"],
    ]
    with pytest.raises(
        UserError, match=r"not_food 0\.3 is not known: give True, False, or a share"
    ):
        list(predict_images(str(run), asked, 2, None, 8, not_food=0.3))


def test_without_the_file_a_model_is_not_scored_as_if_it_had_none(run, data, tmp_path):
    for path in (run / "model").iterdir():
        if path.name != FILE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    splits = load_splits(DataArguments(dataset=str(data), selection_fraction=0.5))
    with pytest.raises(UserError, match=f"{FILE} is not beside the weights"):
        evaluate_model(tmp_path, splits.source, splits.test)


def test_a_probe_reuses_its_features(data, tmp_path, run, caplog):
    words = ["--model", run / "model", "--selection_fraction", 0.5, "--not_food", "true"]
    with caplog.at_level(logging.INFO):
        train(write_probe(tmp_path, data), *words, "--output_dir", tmp_path / "p")
    said = [line for line in caplog.messages if "features of" in line]
    assert [line.split(":")[0] for line in said if "from " in line] == [
        "features of 105 training images",
        "features of 105 selection images",
    ]
    assert facts_of(tmp_path / "p" / "model")["n_held_out"] == 104


def write_probe(folder, data):
    path = folder / "probe.yaml"
    path.write_text(
        f"dataset: {data}\ntune: linear_probe\nnum_train_epochs: 1\ntotal_train_batch_size: 8\n"
        "use_cpu: true\nreport_to: [none]\ndataloader_num_workers: 0\n"
    )
    return path


def test_too_few_images_are_refused_before_training(data, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", dataset=data, selection_fraction=0.1)
    with pytest.raises(UserError, match=r"at least 59 selection images, there are \d+: give more"):
        train(recipe, "--output_dir", tmp_path / "r", "--not_food", "true")
    assert not (tmp_path / "r").exists()


def test_a_network_without_a_linear_head_is_refused_before_training(data, tmp_path):
    words = [str(write_recipe(tmp_path / "r.yaml", dataset=data)), "--output_dir", str(tmp_path)]
    network = network_with_two_heads()
    splits = load_splits(DataArguments(dataset=str(data), selection_fraction=0.5))
    with pytest.raises(
        UserError, match="not_food of DeiTFor.* is not known: .* leave not_food out"
    ):
        check_not_food(parse_recipe([*words, "--not_food", "true"]), network, splits)
    check_not_food(parse_recipe(words), network, splits)


def network_with_two_heads():
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    return replace(
        tiny_network(),
        model=DeiTForImageClassificationWithTeacher(DeiTConfig(**TINY_VIT, **labels)),
    )


def test_what_is_said_of_few_images():
    facts = {
        "n_fitted": 300, "n_train": 300, "n_held_out": 60, "shrinkage": 0.25,
        "thresholds": {"0.01": None, "0.02": 9.0},
    }  # fmt: skip
    said = _said(facts, width=384)
    assert "too few of them to refuse only 0.01 of food" in said
    assert "features 384 wide: covariance shrunk by 25.0%" in said
    said = _said({**facts, "n_train": 75_750, "n_fitted": 20_000, "thresholds": {}}, width=768)
    assert said.startswith('"not food" fitted on 20,000 of 75,750 training images')
    assert "few" not in said
