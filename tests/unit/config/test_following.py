# SPDX-License-Identifier: Apache-2.0
"""Keys of a file that follow a key of the command line."""

import pytest

from training.config.following import follow


@pytest.mark.parametrize(
    ("epochs", "off"), [(5, 4), (15, 13), (1, 0), (2, 1), (0.5, 0), (300, 260), (1.5, 1)]
)
def test_the_end_of_mixing_keeps_its_share_of_the_epochs(epochs, off):
    file = {"num_train_epochs": 150.0, "mix_off_epoch": 130, "mixup": 0.8}
    left, (said,) = follow(file, {"num_train_epochs": epochs})
    assert left == {**file, "mix_off_epoch": off}
    assert said.startswith(f"--num_train_epochs {epochs:g} gives mix_off_epoch {off}")
    assert said.endswith(": the same share as 130 of 150 epochs")
    assert ("mixing to the end" in said) == (off == 0)
    assert file["mix_off_epoch"] == 130


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ({"num_train_epochs": 150.0, "mix_off_epoch": 130}, {}),
        ({"num_train_epochs": 150.0, "mix_off_epoch": 130}, {"num_train_epochs": 150.0}),
        (
            {"num_train_epochs": 150.0, "mix_off_epoch": 130},
            {"num_train_epochs": 5.0, "mix_off_epoch": 130},
        ),
        (
            {"num_train_epochs": 150.0, "mix_off_epoch": 130},
            {"num_train_epochs": 5.0, "mix_off_epoch": None},
        ),
        ({"num_train_epochs": 150.0, "mix_off_epoch": 0}, {"num_train_epochs": 5.0}),
        ({"num_train_epochs": 150.0, "mix_off_epoch": None}, {"num_train_epochs": 5.0}),
        ({"num_train_epochs": 150.0}, {"num_train_epochs": 5.0}),
        ({"num_train_epochs": 150.0, "mix_off_epoch": 150}, {"num_train_epochs": 5.0}),  # refused
        ({"mix_off_epoch": 130}, {"num_train_epochs": 5.0}),  # of the default 3 epochs
        ({"num_train_epochs": 0.0, "mix_off_epoch": 2}, {"num_train_epochs": 6.0}),  # of steps
        ({"num_train_epochs": 150.0, "mix_off_epoch": 130}, {"num_train_epochs": None}),
        ({"num_train_epochs": 150.0, "mix_off_epoch": 130}, {"num_train_epochs": -3.0}),
    ],
)
def test_nothing_else_changes_it(file, line):
    assert follow(file, line) == (file, [])


def test_another_model_leaves_out_what_is_said_of_the_files_own():
    file = {"model_config": {"hidden_size": 48}, "weight_init": "mimetic", "seed": 1}
    left, (said,) = follow(file, {"model": "user/vit"})
    assert left == {"seed": 1}
    assert said == "--model user/vit leaves out model_config, weight_init"
    left, _ = follow(file, {"model": "user/vit", "model_config": {}})
    assert left == {"model_config": {"hidden_size": 48}, "seed": 1}  # the line's own comes over it
    assert follow(file, {"model": None}) == (file, [])
    file = {"model": "user/one", "model_revision": "abc"}
    assert follow(file, {"model": "user/two"})[0] == {"model": "user/one"}
    assert follow(file, {"model": None})[0] == {"model": "user/one"}
    assert follow(file, {}) == (file, [])


def test_a_network_from_scratch_is_a_vit_already():
    file = {"model": "user/one", "as_vit": True, "image_size": 224}
    left, (said,) = follow(file, {"model": None})
    assert left == {"model": "user/one", "image_size": 224}
    assert said == "--model None leaves out as_vit"
    assert follow(file, {"model": "user/two"}) == (file, [])


@pytest.mark.parametrize(
    ("tune", "left"),
    [
        ("full", set()),
        (None, set()),
        ("lora", {"lora_rank"}),
        ("linear_probe", {"probe_learning_rates", "probe_epochs"}),  # the second is refused
        ("probe_then_full", {"probe_learning_rates", "probe_epochs"}),
        ("probe_then_lora", {"lora_rank", "probe_learning_rates", "probe_epochs"}),
    ],
)
def test_another_method_leaves_out_the_keys_of_the_files_own(tune, left):
    file = {"lora_rank": 8, "probe_learning_rates": [0.1], "probe_epochs": 3.0, "tune": "lora"}
    kept, notes = follow(file, {"tune": tune})
    assert kept.keys() == left | {"tune"} and len(notes) == (left != file.keys() - {"tune"})
