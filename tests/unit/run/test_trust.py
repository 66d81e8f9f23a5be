# SPDX-License-Identifier: Apache-2.0
"""The stage between saving and scoring: which images it sees, and what it says."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inference.food_classification import FoodClassificationPipeline
from tests.unit.toys import train, write_image_folder, write_recipe
from training.data.arguments import DataArguments
from training.data.loading import load_splits
from training.evaluation.trust.held_out import HeldOut
from training.evaluation.trust.promises import score_held_out
from training.model.network import load_network
from training.run.trust import _said


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a calibrated model and one without; one test image is a selection image too."""
    root = tmp_path_factory.mktemp("trust")
    data = write_image_folder(root / "dishes", train=70, validation=4)
    splits = load_splits(DataArguments(dataset=str(data), selection_fraction=0.5))
    twin = data / splits.selection.paths[0]
    other = data / "validation" / twin.parent.name / "twin.jpg"
    other.write_bytes(twin.read_bytes())
    for name in ("true", "false"):
        recipe = write_recipe(
            root / f"{name}.yaml", dataset=data, num_train_epochs=1, selection_fraction=0.5
        )
        train(recipe, "--output_dir", root / name, "--calibrate", name)
    return root


def block(folder) -> dict:
    return json.loads((folder / "config.json").read_text())["food_classification"]


def test_what_is_fitted_and_what_is_reported_share_no_image(runs):
    rows = (runs / "true" / "images.csv").read_text().splitlines()[1:]
    content = {name: {row.split(",")[2] for row in rows if row.startswith(name)} for name in (
        "selection", "test")}  # fmt: skip
    fitted = set(HeldOut.load(runs / "true" / "selection.npz").content)
    assert len(content["selection"] & content["test"]) == 1
    assert fitted == content["selection"] - content["test"]
    assert block(runs / "true" / "model")["held_out"] == {"n": len(fitted), "source": "selection"}


def test_the_weights_are_divided_and_nothing_else(runs):
    plain, divided = (
        load_file(runs / name / "model" / "model.safetensors") for name in ("false", "true")
    )
    temperature = block(runs / "true" / "model")["temperature"]
    assert "temperature" not in block(runs / "false" / "model") and temperature != 1
    for name, value in plain.items():
        scale = temperature if name.startswith("classifier") else 1
        assert torch.allclose(divided[name] * scale, value, rtol=1e-6, atol=0), name


def test_no_answer_changes_and_the_release_says_the_same(runs):
    answers = [
        [row.split(",")[2] for row in (runs / name / "predictions.csv").read_text().splitlines()]
        for name in ("false", "true")
    ]
    assert answers[0] == answers[1]
    evaluation = json.loads((runs / "true" / "release" / "evaluation.json").read_text())
    assert evaluation["calibration"]["held_out"]["source"] == "selection"
    assert block(runs / "true" / "release") == block(runs / "true" / "model")
    assert "### Calibration" in (runs / "true" / "release" / "README.md").read_text()
    plain = json.loads((runs / "false" / "evaluation.json").read_text())
    assert plain["calibration"] is None and plain["abstention"]["targets"]


def test_kept_scores_are_those_of_the_finished_model(runs):
    kept = HeldOut.load(runs / "true" / "selection.npz")
    network = load_network(runs / "true" / "model")
    weight = network.model.classifier.weight
    assert kept.logits.shape == (len(kept), len(weight)) and np.isfinite(kept.logits).all()


@pytest.mark.parametrize(
    ("values", "wanted", "said"),
    [
        ({"temperature": 2.0, "thresholds": {"0.95": 0.6}}, True,
         "scores divided by the temperature 2.000; answers above 60.0% are right in 95% "
         "(120 selection images, 1 left out that are test images too)"),
        ({"temperature": None, "thresholds": {"0.95": None}, "n": 40}, True,
         "scores not calibrated: a temperature needs at least 100 images; "
         '"not sure" at 95% needs at least 59, there are 40 (40 selection images, 1 left out'),
        ({"temperature": None, "thresholds": {"0.95": None}}, False,
         "scores not calibrated (calibrate false); no threshold keeps 95% right (120 selection"),
    ],
)  # fmt: skip
def test_what_is_said(values, wanted, said):
    values = dict(values)
    values["held_out"] = {"n": values.pop("n", 120), "source": "selection"}
    assert _said(values, 1, wanted).startswith(said)


@pytest.mark.parametrize("name", ["true", "false"])
def test_the_pipeline_answers_as_many_test_images_as_the_evaluation_counted(runs, name):
    """Of the same logits, to the image; thresholds and sets are those of the released config."""
    folder = runs / name
    report = json.loads((folder / "evaluation.json").read_text())
    network = load_network(folder / "release")
    data = DataArguments(dataset=str(runs / "dishes"), selection_fraction=0.5)
    scored = score_held_out(network, load_splits(data).test, report["batch_size"], 0, 0)
    food = FoodClassificationPipeline(model=network.model, image_processor=network.processor)

    def answers(**options) -> list[dict]:
        rows = torch.from_numpy(scored.logits).split(1)
        return [food.postprocess({"logits": row}, **options) for row in rows]

    kept = [row for row in report["abstention"]["targets"] if row["threshold"] is not None]
    assert kept and report["sets"]["sets"] and len(scored) == report["n"]
    for row in kept:
        assert sum(each["answered"] for each in answers(abstain=row["target"])) == row["n"]
    for row in report["sets"]["sets"]:
        sets = [each["set"] for each in answers(coverage=row["promised"])]
        assert np.mean([len(each) for each in sets]) == pytest.approx(row["mean_size"], abs=1e-12)
        assert np.mean([not each for each in sets]) == pytest.approx(row["empty"], abs=1e-12)
