# SPDX-License-Identifier: Apache-2.0
"""A linear probe, alone and before fine-tuning, on two gloo ranks: the same run as one process.

python -m pytest tests/distributed/test_probe_ranks.py -q
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.test_ranks import RECIPE as BACKBONE
from tests.distributed.test_ranks import (
    environment,  # noqa: F401
    largest_difference,
    launch,
    record,
)
from tests.unit.toys import write_image_folder

pytestmark = pytest.mark.slow

RECIPE = """
total_train_batch_size: 8
num_train_epochs: 1
selection_fraction: 0.25
logging_steps: 1
dataloader_num_workers: 1
tune: linear_probe
probe_learning_rates: [0.01, 1.0, 30.0]
"""
LPFT = ("--probe_epochs", "2", "--learning_rate", "1e-3", "--num_train_epochs", "2")


@pytest.fixture(scope="module")
def probe(environment, tmp_path_factory):  # noqa: F811
    """probe(ranks, *overrides) -> run folder, what was printed, and the features that were kept.

    135 images to train on, three batches of features: two for the first rank, one for the second.
    """
    data = write_image_folder(tmp_path_factory.mktemp("data") / "dishes", train=60, validation=4)
    scratch = tmp_path_factory.mktemp("backbone")
    (scratch / "tiny.yaml").write_text(BACKBONE)
    backbone = scratch / "run"
    launch(1, scratch / "tiny.yaml", data, backbone, environment, "--max_steps", "4")
    recipe = tmp_path_factory.mktemp("recipe") / "probe.yaml"
    recipe.write_text(f"model: {backbone / 'model'}\n{RECIPE}")

    def call(ranks: int, *words: str) -> tuple[Path, str, list[np.ndarray]]:
        folder = tmp_path_factory.mktemp("runs")
        env = {**environment, "HF_DATASETS_CACHE": str(folder / "cache")}
        printed = launch(ranks, recipe, data, folder / "run", env, *words)
        kept = sorted((folder / "cache" / "vit-food101").glob("features-*.npy"))
        return folder / "run", printed, [np.load(path) for path in kept]

    return call


def test_two_ranks_probe_as_one(probe):
    (one, _, kept), (two, printed, shared) = probe(1), probe(2)
    assert len(kept) == len(shared) == 2
    for ours, theirs in zip(kept, shared, strict=True):
        assert np.array_equal(ours, theirs)  # the same batches, wherever they are computed
    results = [record(folder, "probe.json") for folder in (one, two)]
    assert results[0]["learning_rate"] == results[1]["learning_rate"]
    assert results[0]["selection_top1"] == results[1]["selection_top1"]
    assert largest_difference(one, two) < 1e-5
    losses = [
        [row["loss"] for row in record(folder, "log_history.json") if "loss" in row]
        for folder in (one, two)
    ]
    assert [len(features) for features in kept] in ([135, 45], [45, 135])
    assert len(losses[0]) == 16 and losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert printed.count(", chosen") == 1  # by one of the ranks


LOGISTIC = ("--probe_learning_rates", "null", "--probe_solver", "logistic_regression")


def test_two_ranks_fit_the_logistic_regression_of_one(probe):
    """Their folds are the same, and the head is fitted by one of them."""
    (one, *_), (both, printed, _) = probe(1, *LOGISTIC), probe(2, *LOGISTIC)
    results = [record(folder, "probe.json") for folder in (one, both)]
    assert results[0] == results[1] and results[0]["num_images"] == 180
    assert largest_difference(one, both) == 0.0
    outs = [load_file(folder / "out_of_fold.safetensors") for folder in (one, both)]
    assert all(torch.equal(outs[0][name], outs[1][name]) for name in outs[0])
    assert printed.count(", chosen") == 1


@pytest.fixture(scope="module", params=["probe_then_full", "probe_then_lora"])
def tune(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def two(probe, tune):
    return probe(2, "--tune", tune, *LPFT)


def test_two_ranks_probe_then_fine_tune_as_one(probe, tune, two):
    (one, *_), (both, printed, _) = probe(1, "--tune", tune, *LPFT), two
    # The rates that the grid is widened by make weights in the hundreds: float32's last bits.
    largest = max(
        each.abs().max() for each in load_file(one / "model" / "model.safetensors").values()
    )
    assert largest_difference(one, both) < 1e-6 * max(100, largest)
    results = [record(folder / "probe", "probe.json") for folder in (one, both)]
    assert results[0]["learning_rate"] == results[1]["learning_rate"]
    assert printed.count(", chosen") == 1


@pytest.mark.parametrize("checkpoint", ["checkpoint-16", "probe/checkpoint-16"])
def test_two_ranks_resume_either_phase(probe, tune, two, checkpoint):
    part = two[0] / checkpoint
    resumed, *_ = probe(2, "--tune", tune, *LPFT, "--resume_from_checkpoint", str(part))
    assert largest_difference(two[0], resumed) == 0.0
