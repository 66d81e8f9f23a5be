# SPDX-License-Identifier: Apache-2.0
"""What `food101 check` says of a data set, and the command that it gives."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from inference.food_answers import TARGET, images_needed
from tests.unit.data.layouts import made
from tests.unit.toys import jpeg, write_image_folder
from training.cli import main as cli
from training.data import check as check_module
from training.data.arguments import DataArguments
from training.data.check import check, recipe_for, render
from training.evaluation.trust.calibration import MIN_IMAGES


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder of labels with something wrong in it."""
    root = (write_image_folder(tmp_path / "raw", train=10, validation=1) / "train").rename(
        tmp_path / "my dishes"
    )
    (root / "pizza" / "11.jpg").write_bytes(jpeg(1))
    (root / "pizza" / "copy.jpg").write_bytes(jpeg(1))
    (root / "pizza" / "phone.HEIC").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    return root


def test_everything_is_said(root, capsys):
    assert cli.main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    for words in (
        "layout     a folder for each label",
        "20 % of train, kept back: there is no test split",
        "labels     3, the smallest first (train, selection, test)",
        "32 JPEG; 32 RGB",
        "left out   2 of 34 found",
        "       1 .txt, no image: notes.txt",
        "training stops at 1 of them unless --undecodable_images is skip:",
        "  pizza/phone.HEIC: not a readable image",
        "test images tell an accuracy of 80 % to within",
        "below 100 one image more or less decides",
    ):
        assert words in out
    last = out.splitlines()[-1]
    assert last == (f"  food101 train linear_probe --dataset '{root}' --undecodable_images skip")


def test_loaded_and_left_out_are_what_was_found(root, capsys):
    assert cli.main(["check", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    counts = [sum(part["labels"].values()) for part in told["splits"].values()]
    assert sum(counts) + len(told["left_out"]) == told["num_found"] == 34
    assert {each["path"] for each in told["left_out"]} == {"pizza/phone.HEIC", "notes.txt"}
    assert [key.split()[0] for key in told["copies"]] == ["within"]
    assert told["formats"] == {"JPEG": 32}


def test_the_keys_that_were_given_are_in_the_command(tmp_path):
    path = made.parquet(tmp_path / "d", made.photos(), "bytes", ("jpeg", "n"))
    args = DataArguments(
        str(path), label_column="n", selection_fraction=0.3, undecodable_images="skip"
    )
    command = check(args, str(path)).command
    assert command.endswith("--label_column n --selection_fraction 0.3")


def test_many_labels_are_shortened(tmp_path):
    labels = [f"dish {i:02}" for i in range(13)]
    root = write_image_folder(tmp_path / "d", train=3, validation=1, labels=labels)
    checked = check(DataArguments(str(root), undecodable_images="skip"), "d")
    assert "  and 3 more, up to 2 to train on" in render(checked)


@pytest.mark.parametrize(
    ("photographs", "recipe"),
    [
        (1, "linear_probe"),
        (7, "linear_probe"),
        (8, "small_data"),
        (499, "small_data"),
        (750, "vit_base_food101"),
    ],
)
def test_a_recipe_for_a_number_of_photographs(photographs, recipe):
    assert recipe_for(photographs) == recipe


def test_what_cannot_be_trained_on_is_one_line(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_only_what_training_stops_at_is_called_so(root, capsys):
    (root / "pizza" / "phone.HEIC").unlink()
    os.mkfifo(root / "pipe")
    (root / "pizza" / "gone").symlink_to(root / "nowhere")
    assert cli.main(["check", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["left_out"]) == 3 and told["num_unusable"] == 0
    assert "--undecodable_images" not in told["command"]
    (root / "pizza" / "gone.jpg").symlink_to(root / "nowhere")
    assert cli.main(["check", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_unusable"] == 1 and told["command"].endswith("--undecodable_images skip")


def test_what_pi_heif_decodes_is_counted_as_heic(monkeypatch):
    """Pillow does not know it, and the scan let it pass."""
    found = check_module._header(jpeg(1))
    assert found == ("JPEG", "RGB", 36)
    monkeypatch.setattr(check_module, "decode_image", lambda _: np.zeros((30, 40, 3), np.uint8))
    assert check_module._header(b"\0\0\0\x18ftypheic") == ("HEIC", "RGB", 30)


def test_what_too_few_selection_images_cannot_give(tmp_path):
    words = {}
    for number in (2, 30, 50):
        root = write_image_folder(tmp_path / str(number), train=number, validation=1)
        args = DataArguments(dataset=str(root), selection_fraction=0.5)
        words[number] = render(check(args, str(root)))
    assert 'too few for calibrated scores (from 100) and "not sure" (from 59)\n' in words[2]
    assert 'too few for calibrated scores (from 100) and "not sure" (from 59)\n' in words[30]
    assert "too few for calibrated scores (from 100), but for a linear probe" in words[50]


def test_the_numbers_that_are_needed_are_those_of_the_evaluation():
    assert check_module.TO_CALIBRATE == MIN_IMAGES and check_module.TO_BE_SURE == images_needed(
        TARGET
    )
