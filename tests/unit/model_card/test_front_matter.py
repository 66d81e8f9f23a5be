# SPDX-License-Identifier: Apache-2.0
"""The card's YAML, and the check that a card must pass before it is published."""

import pytest
import yaml
from huggingface_hub import ModelCard

from model_card.front_matter import front_matter, license_of, validate_card
from model_card.render import render_card
from tests.unit.card_files import COMMIT, facts_of, files


def test_other_models_and_licences():
    both = files("local")
    both["run"]["model"] |= {"id": "/home/me/cnn", "revision": None, "license": "My-Own"}
    both["run"]["model"] |= {"architecture": "ConvNextForImageClassification", "patch_size": None}
    both["evaluation"]["preprocessing"]["shortest_edge"] = 256
    text = render_card(facts_of(both))
    validate_card(text)
    data = yaml.safe_load(text.split("---\n")[1])
    assert (data["license"], data["license_name"]) == ("other", "my-own")
    assert "base_model" not in data and "`.../cnn`, a local copy" in text
    assert "# ConvNext fine-tuned on food10" in text and "(shortest_edge 256)" in text
    both["run"]["model"]["license"] = None
    assert "license: unknown\n" in render_card(facts_of(both))


@pytest.mark.parametrize("old, new, complaint", [
    ("---\n", "", "no front matter"), ("license: apache-2.0", "license: free", "licence id"),
    ("license: apache-2.0", "license: other", "without a license_name"),
    ("pipeline_tag: image", "pipeline_tag: food", "pipeline_tag is"),
    ("library_name: transformers", "library_name: timm", "library_name is"),
    ("license: ", "license: {", "is not YAML"), ("model-index", "results", "no result"),
    ("value: 0.98", "value: '0.98'", "not a number"), ("value: 0.98", "value: .nan", "not a num"),
    ("      split: validation\n", "", "no dataset_split"),
    (f"      revision: {COMMIT}\n", "", "no dataset_revision"),
    ("value: 0.98", "value: !!python/tuple [0.98]", "Python object"),
    ("  results:", "  result:", "cannot be read"), ("12 min 12 s", "None", "'None'"),
    ("12 min 12 s", "nan", "'nan'"), ("12 min 12 s", "/home/me", "home folder"),
    ("12 min 12 s", "hf_" + "a1B2" * 6, "token"), ("## Limits", "## Costs\n\n## Limits", "'Costs'"),
    ("12 min 12 s", "[More Information Needed]", "More information needed"),
])  # fmt: skip
def test_a_bad_card_is_refused(old, new, complaint):
    text = render_card(facts_of(files()), repo_id="me/food-vit")
    assert old in text
    with pytest.raises(ValueError, match=f"not fit to publish: [^\n]*{complaint}"):
        validate_card(text.replace(old, new, 1))


def yaml_of(both):
    return yaml.safe_load(front_matter(facts_of(both), model_name="vit", dataset_name="Food-101"))


def test_every_metric_has_a_result():
    results = yaml_of(files())["model-index"][0]["results"][0]["metrics"]
    assert [(row["type"], row["name"], row["value"]) for row in results] == [
        ("accuracy", "Top-1 accuracy", 0.896436),
        ("top_5_accuracy", "Top-5 accuracy", 0.98),
        ("f1", "Macro F1", 0.896),
        ("nll", "Negative log-likelihood (nats per image)", 0.41234),
        ("ece", "Expected calibration error", 0.0231),
    ]


def test_a_new_metric_needs_no_code_here():
    both = files()
    metrics = both["evaluation"]["metrics"]
    metrics["brier"] = {**metrics["ece"], "name": "Brier score", "hub_type": "brier_score"}
    assert yaml_of(files())["metrics"] == ["accuracy", "f1"]  # those that the Hub has by this name
    assert yaml_of(both)["metrics"] == ["accuracy", "f1", "brier_score"]
    text = render_card(facts_of(both))
    validate_card(text)
    assert [r.metric_type for r in ModelCard(text).data.eval_results][-1] == "brier_score"


def test_weights_from_scratch_have_the_licence_of_the_code():
    assert license_of(facts_of(files("sample"))) == "apache-2.0"
