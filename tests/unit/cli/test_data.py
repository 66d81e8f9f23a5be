# SPDX-License-Identifier: Apache-2.0
"""The verb cache."""

import re

import datasets

from tests.unit.toys import write_image_folder


def test_images_are_reduced_once(food101, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    root = write_image_folder(tmp_path / "dishes", train=3, validation=1)
    code, out, _ = food101("cache", root, "--short_side", "20")
    assert code == 0
    folder = out.splitlines()[0]
    assert folder.startswith(str(tmp_path / "hf" / "vit-food101" / "train-short-side-20-"))
    assert "9 images of split train" in out and "0 were no larger" in out
    assert re.search(r"^on disk, .*: 0\.\d MB$", out, re.M)
    assert out.endswith("to train on them: --train_short_side 20\n")
    code, again, _ = food101("cache", root, "--short_side", "20")
    assert code == 0 and again.startswith(f"{folder} was there already; nothing was done\n")
    assert "has no split more" in refused("cache", root, "--short_side=20", "--train_split=more")
    assert "--short_side" in refused("cache", root)
