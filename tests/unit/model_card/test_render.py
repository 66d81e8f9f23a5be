# SPDX-License-Identifier: Apache-2.0
"""The whole card: what it says, and that equal facts give equal bytes."""

import pytest
import yaml
from huggingface_hub import ModelCard

from model_card.front_matter import validate_card
from model_card.render import render_card
from tests.unit.card_files import COMMIT, DIGEST, facts_of, files


@pytest.mark.parametrize("kind", ["hub", "sample", "local"])
def test_card_is_deterministic_valid_and_reads_back_the_same_floats(kind):
    facts = facts_of(files(kind))
    text = render_card(
        facts, repo_id="me/food-vit", tag="v1.0", code_sha256={"food_classification.py": DIGEST}
    )
    assert text == render_card(
        facts, repo_id="me/food-vit", tag="v1.0", code_sha256={"food_classification.py": DIGEST}
    )
    validate_card(text)
    results = ModelCard(text).data.eval_results
    assert {r.metric_type: r.metric_value for r in results} == {
        "accuracy": 0.896436, "top_5_accuracy": 0.98, "f1": 0.896, "nll": 0.41234, "ece": 0.0231,
    }  # fmt: skip
    assert {r.dataset_split for r in results} == {"validation"}
    assert {r.dataset_revision for r in results} == {COMMIT if kind == "hub" else DIGEST}
    assert "/home" not in text and ".../first" in text
    assert text.count('"me/food-vit"') == text.count('revision="v1.0"') == 2
    assert "user/repo" not in text


def test_hub_card_says_what_the_files_say():
    text = render_card(facts_of(files()))
    for value in (
        "# ViT fine-tuned on Food-101",
        "accuracy on 25,250 test images: **89.64 %** (Wilson score, 95 %: 89.26 to 90.01 %)",
        "| Top-5 accuracy | 98.00 % | 97.82 to 98.17 % | 25,250 | `validation` |",
        "`ethz/food101`, revision `0123456789ab`",
        "25,250 images were scored, each once; none were left out",
        "step 1,260 (epoch 9), with a top-1 accuracy of 86.2 % there",
        "512 = 2 processes x 128 images x 2 accumulation steps",
        "12 min 12 s of training, 3.1 s of preparing the data, 3 h 12 min in all",
        "random crop of 8 to 100 % of the area, horizontal flip with probability 0.5",
        "warm-up over 10 % of the steps",
        "| `cheesecake` | 50.0 % | never given | 5,250 |",
        "Without a test image: 1 of 3.",
        "| `cheesecake` | `cheese_plate` | 12 |",
        "food101 evaluate user/repo --dataset ethz/food101",
        "7 of `train`, 0 of `validation`",
        "Foodspotting",
        "by 2.31 percentage points on average",
        "licence of the base model `google/vit-base-patch16-224-in21k`: `apache-2.0`",
        "`food101 push` replaces `user/repo`",
    ):
        assert value in text, value
    data = yaml.safe_load(text.split("---\n")[1])
    assert data["license"] == "apache-2.0" and data["datasets"] == ["ethz/food101"]
    assert data["base_model"] == "google/vit-base-patch16-224-in21k"


@pytest.mark.parametrize("kind", ["sample", "local"])
def test_other_data_are_not_linked_to_the_hub(kind):
    text = render_card(facts_of(files(kind)))
    data = yaml.safe_load(text.split("---\n")[1])
    assert "datasets" not in data and ("base_model" in data) == (kind == "local")
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == f"vit-food101/{kind}"
    assert "Foodspotting" not in text and ("drawn by code" in text) == (kind == "sample")


def test_the_digest_of_the_pipeline_is_shown_or_refused():
    facts = facts_of(files())
    assert "SHA-256 of `food_classification.py`" not in render_card(facts)
    assert f"`food_classification.py`: `{DIGEST}`" in render_card(
        facts, code_sha256={"food_classification.py": DIGEST}
    )
    with pytest.raises(ValueError, match="code_sha256 of x.py is .abc., not 64"):
        render_card(facts, code_sha256={"x.py": "abc"})


def test_the_versions_that_the_code_was_tried_with_are_named():
    facts = facts_of(files())
    assert "tried with" not in render_card(facts)
    text = render_card(facts, tried_with=("4.51.3", "5.23.0"))
    assert (
        "- a readable name beside each label.\n\nThis code was tried with transformers 4.51.3, 5.23.0,"
        in text
    )
    new = "tried with", "- open files, base64", "`on_error="
    without = [line for line in text.splitlines() if not any(part in line for part in new)]
    assert len(without) < len(text.splitlines()) - 2
    assert [w for w in without if w] == [line for line in render_card(facts).splitlines() if line]


def test_a_sentence_about_a_metric_needs_the_metric():
    both = files()
    assert "by 2.31 percentage points on average" in render_card(facts_of(both))
    del both["evaluation"]["metrics"]["ece"], both["evaluation"]["calibration"]
    text = render_card(facts_of(both))
    validate_card(text)
    assert "calibration error" not in text and "percentage points" not in text
    assert "- Its scores are not exact probabilities.\n- It does not see ingredients." in text
