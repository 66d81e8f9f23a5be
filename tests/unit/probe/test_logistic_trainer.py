# SPDX-License-Identifier: Apache-2.0
"""A probe by logistic regression as a run sees it: which images it learns from, what it leaves behind."""

import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.unit.toys import jpeg, tiny_network, tiny_settings, write_image_folder
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.loading import load_splits
from training.evaluation.features import image_features
from training.model.head import head_of
from training.probe.arguments import ProbeArguments
from training.probe.logistic_trainer import LogisticTrainer, check_labels
from training.probe.phases import build_probe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets" / "vit-food101"


@pytest.fixture
def fit(splits, tmp_path):
    """fit(name) -> (trainer that is done, content of probe.json); of 24 images."""

    def fit(name: str = "run", images=splits, tune: str = "linear_probe", network=None, **values):
        network = network or tiny_network(labels=images.label_names)
        settings = tiny_settings(tmp_path / name, tune=tune, **values)
        trainer = build_probe(network, images, settings, ProbeArguments())
        assert isinstance(trainer, LogisticTrainer)
        trainer.train()
        return trainer, json.loads((tmp_path / name / "probe.json").read_text())

    return fit


def all_features(trainer: LogisticTrainer) -> np.ndarray:
    parts = [image_features(trainer.network, part, 0, 0) for part in trainer.parts]
    return torch.cat(parts).numpy()


def test_the_head_in_the_network_is_scikit_learns_on_all_labelled_images(fit):
    trainer, result = fit(total_train_batch_size=64)  # more than there are images
    features = all_features(trainer)
    assert result["fitted_on"] == "train and selection" and result["num_images"] == 24
    c = 1 / (result["strength"] * 24)
    witness = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-9, max_iter=9999))
    expected = witness.fit(features.astype(np.float64), trainer.labels).predict_proba(features)
    with torch.no_grad():
        found = torch.softmax(head_of(trainer.network.model)(torch.from_numpy(features)), 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert (found.argmax(1).numpy() == expected.argmax(1)).all()
    assert 0 <= result["rounding"] < 1e-4


def test_a_second_phase_keeps_its_selection_images_unseen(fit, splits):
    trainer, result = fit(tune="probe_then_full")
    assert (result["fitted_on"], result["num_images"]) == ("train", 18)
    assert trainer.parts == [splits.originals]
    assert not (Path(trainer.args.output_dir) / "out_of_fold.safetensors").exists()


def test_what_is_left_behind(fit, splits):
    trainer, result = fit()
    folder = Path(trainer.args.output_dir)
    kept = load_file(folder / "out_of_fold.safetensors")
    labels = splits.originals.dataset["label"][:] + splits.selection.dataset["label"][:]
    assert kept["row"].tolist() == list(range(24)) and kept["labels"].tolist() == labels
    assert kept["logits"].shape == (24, 3) and kept["logits"].dtype == torch.float32
    assert set(kept["fold"].tolist()) == set(range(5))
    top1 = (kept["logits"].argmax(1) == kept["labels"]).float().mean().item()
    assert result["top1"] == pytest.approx(top1) and result["metric"] == "nll"
    nll = torch.nn.functional.cross_entropy(kept["logits"], kept["labels"]).item()
    assert result["nll"] == pytest.approx(nll, abs=1e-5)
    assert min(row["nll"] for row in result["strengths"]) == result["nll"]
    head = load_file(folder / "head.safetensors")
    assert torch.equal(head["weight"], head_of(trainer.network.model).weight)
    history = json.loads((folder / "log_history.json").read_text())
    assert len(history) == len(result["strengths"]) and "out_of_fold_nll" in history[0]


def test_the_record_has_no_batches_and_rates(fit):
    trainer, result = fit()
    facts = trainer.facts()
    assert facts["learning_rate"] is facts["total_train_batch_size"] is None
    assert (facts["optimizer"], facts["mixed_precision"]) == ("lbfgs", "no")
    scores = trainer.kept_scores()
    assert scores["step"] == trainer.state.global_step == result["steps"] > 0
    assert scores["eval_top1"] == result["top1"] and trainer.chosen_by == "nll"
    assert (
        trainer.cross_validation == {"folds": 5, "images": 24} and len(trainer.eval_dataset) == 24
    )


def test_the_same_run_twice_is_the_same_head(fit):
    (one, _), (two, _) = fit("one"), fit("two")
    assert torch.equal(head_of(one.network.model).weight, head_of(two.network.model).weight)


def test_a_head_without_bias_has_none(fit):
    network = tiny_network()
    own = network.model.classifier
    network.model.classifier = torch.nn.Linear(own.in_features, 3, bias=False)
    trainer, result = fit(network=network)
    assert not result["bias"] and set(
        load_file(Path(trainer.args.output_dir) / "head.safetensors")
    ) == {"weight"}


def test_what_is_chosen_is_said(fit, caplog):
    caplog.set_level(logging.INFO)
    _, result = fit()
    said = "\n".join(caplog.messages)
    assert (
        "probe by logistic regression, since 24 images are no more than the 2,083,333 that" in said
    )
    assert said.count(", chosen") == 1 and said.count("out-of-fold top-1") == len(
        result["strengths"]
    )
    assert "5-fold cross-validation over 24 images chose strength" in said


def test_a_checkpoint_of_sgd_heads_is_refused(splits, tmp_path):
    settings = tiny_settings(tmp_path, tune="linear_probe")
    trainer = build_probe(tiny_network(), splits, settings, ProbeArguments())
    with pytest.raises(
        UserError, match="checkpoint x/checkpoint-3 is of heads that learned by SGD"
    ):
        trainer.train(resume_from_checkpoint="x/checkpoint-3")


def few(root: Path, **counts: int):
    """Splits of a folder with so many photographs a label to train on, one of the first to select."""
    write_image_folder(root, train=0, validation=1, labels=list(counts))
    for number, (label, count) in enumerate(counts.items()):
        for i in range(count):
            (root / "train" / label / f"{i}.jpg").write_bytes(jpeg(100 * number + i))
    (root / "validation").rename(root / "test")
    first = root / "validation" / next(iter(counts))
    first.mkdir(parents=True)
    (first / "0.jpg").write_bytes(jpeg(999))
    return load_splits(DataArguments(dataset=str(root), selection_split="validation"))


def test_three_photographs_of_two_labels(fit, tmp_path):
    trainer, result = fit(images=few(tmp_path / "few", apple=1, bread=1))
    assert (result["num_images"], result["num_scored"], result["folds"]) == (3, 2, 2)
    assert trainer.num_labels == 2 and np.isfinite(result["nll"])


def test_a_label_with_one_photograph_among_others(fit, tmp_path):
    _, result = fit(images=few(tmp_path / "few", apple=6, bread=1, corn=6))
    assert (result["num_images"], result["num_scored"]) == (14, 13)


def test_nothing_to_choose_by_is_refused(splits, tmp_path):
    images = few(tmp_path / "few", apple=2, bread=2)
    object.__setattr__(images.originals, "content", ("a",) * len(images.originals))
    object.__setattr__(images.selection, "content", ("a",) * len(images.selection))
    settings = tiny_settings(tmp_path / "run", tune="linear_probe")
    network = tiny_network(labels=images.label_names)
    with pytest.raises(UserError, match="no label has two different ones: add photographs"):
        build_probe(network, images, settings, ProbeArguments())


def test_a_label_without_a_photograph_is_named():
    with pytest.raises(UserError, match="^no photograph of corn to learn from"):
        check_labels(np.array([0, 1, 0]), ["apple", "bread", "corn"])
