"""The model card: python -m pytest tests/unit/test_model_card.py"""

import json
import math

import pytest
import yaml
from huggingface_hub import ModelCard

from model_card.facts import CardFacts, FactError, MissingFactError
from model_card.render import render_card, validate_card
from model_card.words import duration, hide_paths, many, percent
from tests.unit.card_files import COMMIT, DIGEST, files

UNUSED = {
    ("run", "recipe", "learning_rate"), ("evaluation", "dataset"), ("evaluation", "seconds"),
    ("evaluation", "images_per_second"), ("run", "training", "augmentation", "crop_scale"),
    ("run", "training", "augmentation", "horizontal_flip"),
}  # fmt: skip


def read(folder, both):
    for stem, content in both.items():
        (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    return CardFacts.from_folder(folder)


def paths(node, path=()):
    """Every path to a leaf, ("run", "seconds", "data") or ("evaluation", "per_class", 0, "n")."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from paths(value, (*path, key))
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        yield from paths(node[0], (*path, 0))
    else:
        yield path


NEEDED = [p for p in paths(files()) if p not in UNUSED and p[-1] != "f1"]


def at(both, path):
    for key in path:
        both = both[key]
    return both


@pytest.mark.parametrize("kind", ["hub", "sample", "local"])
def test_card_is_deterministic_valid_and_reads_back_the_same_floats(tmp_path, kind):
    facts = read(tmp_path, files(kind))
    text = render_card(facts, repo_id="me/food-vit", tag="v1.0", pipeline_sha256=DIGEST)
    assert text == render_card(facts, repo_id="me/food-vit", tag="v1.0", pipeline_sha256=DIGEST)
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


def test_hub_card_says_what_the_files_say(tmp_path):
    text = render_card(read(tmp_path, files()))
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
def test_other_data_are_not_linked_to_the_hub(tmp_path, kind):
    text = render_card(read(tmp_path, files(kind)))
    data = yaml.safe_load(text.split("---\n")[1])
    assert "datasets" not in data and ("base_model" in data) == (kind == "local")
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == f"vit-food101/{kind}"
    assert "Foodspotting" not in text and ("drawn by code" in text) == (kind == "sample")


def test_a_card_does_not_hide_that_training_images_were_encoded_again(tmp_path):
    both, reduced = files(), "quality 90, 4:2:0"
    assert reduced not in render_card(read(tmp_path, both))  # a run from before there was a cache
    both["run"]["data"]["train_cache"] = None
    assert reduced not in render_card(read(tmp_path, both))
    cache = {"short_side": 256, "jpeg_quality": 90, "subsampling": "4:2:0", "num_kept": 24}
    both["run"]["data"]["train_cache"] = cache
    text = render_card(read(tmp_path, both))
    validate_card(text)
    assert "short side of more than 256 pixels were reduced" in text and reduced in text
    del cache["jpeg_quality"]
    with pytest.raises(MissingFactError, match="run.json has no data.train_cache.jpeg_quality: "):
        read(tmp_path, both)
    both["run"]["data"]["train_cache"] = 256
    with pytest.raises(FactError, match="data.train_cache is 256, not an object"):
        read(tmp_path, both)


def test_a_card_says_what_was_trained(tmp_path):
    both = files()
    training = both["run"]["training"]
    assert "| Trained | all weights |" in render_card(read(tmp_path, both))  # an older run
    training |= {"num_trainable_parameters": 667493, "lora": None}
    assert "| all weights; 667,493 of 85,876,325 parameters |" in render_card(read(tmp_path, both))
    training["tune"] = "lora"
    with pytest.raises(MissingFactError, match="training.lora"):
        read(tmp_path, both)
    training["lora"] = {"rank": 16, "alpha": 8.0, "dropout": 0.1, "peft": "0.21.2"}
    with pytest.raises(MissingFactError, match="run.json has no training.lora.target_modules: "):
        read(tmp_path, both)
    training["lora"]["target_modules"] = ["q_proj", "v_proj"]
    text = render_card(read(tmp_path, both))
    validate_card(text)
    assert (
        "LoRA, rank 16, alpha 8, dropout 0.1, on `q_proj`, `v_proj`, and the head in full (peft "
        "0.21.2); 667,493 of 85,876,325 parameters." in text
    )
    training["lora"]["target_modules"] = []
    with pytest.raises(FactError, match="target_modules|training.lora"):
        read(tmp_path, both)


def test_other_models_and_licences(tmp_path):
    both = files("local")
    both["run"]["model"] |= {"id": "/home/me/cnn", "revision": None, "license": "My-Own"}
    both["run"]["model"] |= {"architecture": "ConvNextForImageClassification", "patch_size": None}
    both["evaluation"]["preprocessing"]["shortest_edge"] = 256
    text = render_card(read(tmp_path, both))
    validate_card(text)
    data = yaml.safe_load(text.split("---\n")[1])
    assert (data["license"], data["license_name"]) == ("other", "my-own")
    assert "base_model" not in data and "`.../cnn`, a local copy" in text
    assert "# ConvNext fine-tuned on food10" in text and "(shortest_edge 256)" in text
    both["run"]["model"]["license"] = None
    assert "license: unknown\n" in render_card(read(tmp_path, both))


def test_the_card_says_how_weights_began_and_what_is_not_known(tmp_path):
    both = files("sample")
    assert "none: weights drawn at random |" in render_card(read(tmp_path, both))
    both["run"]["model"]["weight_init"] = "mimetic"
    both["run"]["training"]["images_per_second"] = None
    text = render_card(read(tmp_path, both))
    assert "attention by mimetic initialisation (arXiv:2305.09828) |" in text
    assert "| Speed | not known: no step was left after a resume |" in text
    del both["run"]["model"]["weight_init"]  # a run of an older version
    assert "none: weights drawn at random |" in render_card(read(tmp_path, both))


def test_the_card_says_what_is_not_plain_fine_tuning(tmp_path):
    both = files()
    text = render_card(read(tmp_path, both))
    assert "| Further | none |" in text
    assert "| Length | 10 epochs, 1,400 optimiser steps |" in text
    both["run"]["model"]["head_init_scale"] = 0.0
    both["run"]["training"] |= {
        "stopped_early": True,
        "optimization": {
            "layer_decay": 0.75, "drop_path": 0.1, "ema_decay": 0.9999, "early_stopping_patience": 3,
        },
    }  # fmt: skip
    text = render_card(read(tmp_path, both))
    for words in (
        "| Length | stopped early after 1,400 optimiser steps of 10 epochs that were planned |",
        "| Further | layer-wise learning-rate decay 0.75, stochastic depth up to 0.1, moving average "
        "of the weights with decay 0.9999, early stopping after 3 scorings without a better one, "
        "new head's first weights times 0.0 |",
    ):
        assert words in text


def test_the_card_says_which_weights_were_trained(tmp_path):
    both = files()
    assert "| Trained | all weights |" in render_card(read(tmp_path, both))  # an older run
    rates = [{"learning_rate": rate, "top1": top1} for rate, top1 in ((0.01, 0.86), (1e9, None))]
    probe = {"learning_rate": 0.01, "epochs": 3.0, "selection_top1": rates}
    both["run"]["training"] |= {"tune": "linear_probe", "probe": probe, "augmentation": {}}
    text = render_card(read(tmp_path, both))
    validate_card(text)
    chosen = "learning rate 0.01 of 2, chosen on the selection slice |"
    assert f"| Trained | a linear head on frozen features; {chosen}" in text
    assert "| Augmentation | none |" in text and "1,234.5 features per second" in text
    assert "fine-tuned" not in text.split("## Load it")[0]
    both["run"]["training"]["tune"] = "probe_then_full"
    text = render_card(read(tmp_path, both))
    assert (
        f"| Trained | all weights, after 3 epochs of a linear head on frozen features; its {chosen}"
        in text
    )
    assert "1,234.5 images per second" in text
    both["run"]["training"]["probe"] = None
    with pytest.raises(MissingFactError, match="run.json has no training.probe: "):
        read(tmp_path, both)


@pytest.mark.parametrize("path", NEEDED, ids=lambda path: ".".join(map(str, path)))
def test_a_gap_is_named(tmp_path, path):
    both = files()
    del at(both, path[:-1])[path[-1]]
    with pytest.raises(MissingFactError) as error:
        read(tmp_path, both)
    key = ".".join(map(str, path[1:])).replace(".0.", "[0].")
    assert str(error.value).startswith(f"{path[0]}.json has no {key}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path, value", [
    (("run", "data", "source"), "web"), (("run", "data", "num_test"), 25249),
    (("run", "data", "num_train"), 1.5), (("run", "data", "label_names"), ["a", "b"]),
    (("run", "selection", "top1"), 86.2), (("run", "format"), 2), (("run", "command"), " "),
    (("evaluation", "metrics", "top1"), math.nan), (("evaluation", "metrics", "nll"), math.inf),
    (("evaluation", "metrics", "top1"), 0.95), (("evaluation", "intervals", "top1"), [0.9, 0.8]),
    (("evaluation", "dataset_fingerprint"), "cd34" * 16), (("evaluation", "split"), "train"),
    (("evaluation", "dataset_revision"), "main"), (("evaluation", "model_sha256"), "AB"),
    (("evaluation", "per_class", 0, "n"), 3), (("evaluation", "per_class", 0, "recall"), None),
    (("evaluation", "per_class", 0, "precision"), math.nan),
])  # fmt: skip
def test_what_cannot_be_true_is_refused(tmp_path, path, value):
    both = files()
    at(both, path[:-1])[path[-1]] = value
    with pytest.raises(FactError, match=r"^(run|evaluation)\.json[^\n]*$"):
        read(tmp_path, both)


def test_absent_and_broken_files_are_refused(tmp_path):
    with pytest.raises(MissingFactError, match=r"run\.json does not exist: train again"):
        CardFacts.from_folder(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(FactError, match="is not JSON"):
        CardFacts.from_folder(tmp_path)


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
def test_a_bad_card_is_refused(tmp_path, old, new, complaint):
    text = render_card(read(tmp_path, files()), repo_id="me/food-vit")
    assert old in text
    with pytest.raises(ValueError, match=f"not fit to publish: [^\n]*{complaint}"):
        validate_card(text.replace(old, new, 1))


def test_values_are_written_for_people():
    assert [many(n, "process") for n in (1, 2.0)] == ["1 process", "2 processes"]
    assert [duration(s) for s in (0.04, 59.96, 3599.6)] == ["0.0 s", "1 min 0 s", "1 h 0 min"]
    assert [percent(s, 100) for s in (1.0, 0.9999)] == ["100.0 %", "99.99 %"]
    assert hide_paths("-d ethz/food101 -o ~/x --a=C:\\Users\\me\\y ./z") == (
        "-d ethz/food101 -o .../x --a=.../y ./z"
    )
