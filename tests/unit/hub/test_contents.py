# SPDX-License-Identifier: Apache-2.0
"""What belongs to a release: manifest, card, pipeline file."""

import hashlib
import json
from pathlib import Path

import pytest

from inference.food_classification import TRIED_WITH
from tests.unit.card_files import files, format_1
from training.common.errors import UserError
from training.hub.contents import (
    MANIFEST,
    card_text,
    check_release,
    code_of,
    code_sources,
    make_manifest,
    tried_with,
)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_changed_file_is_noticed(released):
    check_release(released)
    with (released / "README.md").open("a") as file:
        file.write("99.9 %\n")
    with pytest.raises(UserError, match=r"was changed since it was built \(README.md\)"):
        check_release(released)


def test_an_added_file_is_noticed(released):
    (released / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"\(notes.txt\): build it again"):
        check_release(released)


def test_a_removed_file_is_noticed(released):
    (released / "predictions.csv").unlink()
    with pytest.raises(UserError, match=r"\(predictions.csv\)"):
        check_release(released)


def test_a_folder_that_is_no_release(tiny_run, tmp_path):
    for folder in (tiny_run, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is not a release: make one with"):
            check_release(folder)


def test_the_card_is_a_function_of_the_files(tiny_run, released):
    text = card_text(released)
    assert text == card_text(released) == (released / "README.md").read_text(encoding="utf-8")
    named = card_text(released, "user/dishes", "v1.0")
    assert named == card_text(released, "user/dishes", "v1.0") != text
    assert "user/dishes" in named and "v1.0" in named
    report = read(tiny_run / "evaluation.json")
    assert f"{100 * report['metrics']['top1']['value']:.1f} %" in text


def test_a_gap_is_one_line(released):
    report = read(released / "evaluation.json")
    del report["metrics"]["top1"]
    (released / "evaluation.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match="the card of .* cannot be written: .*top1"):
        card_text(released)


def test_the_manifest_is_sorted_and_leaves_itself_out(toy):
    manifest = make_manifest(toy)
    assert list(manifest) == sorted(path.name for path in toy.iterdir() if path.name != MANIFEST)
    assert manifest["model.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    assert manifest == check_release(toy)


def test_the_card_shows_the_digest_of_the_released_pipeline_file(toy):
    """The installed file may be of a later version."""
    released = hashlib.sha256((toy / "food_classification.py").read_bytes()).hexdigest()
    installed = hashlib.sha256(code_sources()[0].read_bytes()).hexdigest()
    text = card_text(toy)
    assert f"SHA-256 of `food_classification.py`: `{released}`" in text and installed not in text
    (toy / "food_classification.py").unlink()  # as in a run folder, which gets the installed one
    text = card_text(toy)
    assert f"SHA-256 of `food_classification.py`: `{installed}`" in text and released not in text


def test_the_installed_code_is_found(tmp_path):
    assert code_of(tmp_path) == code_sources()
    pipeline, answers, distance, explaining, images, inputs = (
        path.read_text(encoding="utf-8") for path in code_sources()
    )
    assert "class FoodClassificationPipeline" in pipeline and "def decode_image" in images
    assert "class AnswerOptions" in answers and "class FoodDistance" in distance
    assert "def explain" in explaining and "def from_data_url" in inputs


def test_the_code_says_what_it_was_tried_with(toy, tmp_path):
    assert tried_with(tmp_path) == TRIED_WITH and len(TRIED_WITH) > 1
    assert f"tried with transformers {', '.join(TRIED_WITH)}, on" in card_text(
        tmp_run(toy, tmp_path)
    )
    assert tried_with(toy) == ()  # a release of before says nothing, and gets no claim of today
    assert "tried with" not in card_text(toy)
    (toy / "food_classification.py").write_text('TRIED_WITH = (\n    "4.1",\n    "5.0.1",\n)\n')
    assert tried_with(toy) == ("4.1", "5.0.1")


def tmp_run(toy: Path, tmp_path: Path) -> Path:
    """The facts of a release without its code, as in a run."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "evaluation.json"):
        (folder / name).write_bytes((toy / name).read_bytes())
    return folder


def test_a_release_of_one_file_is_shown_with_one(toy):
    """As releases were before decoding had a file of its own."""
    text = card_text(toy)
    assert text.count("SHA-256 of `food_") == 1 and "food_images" not in text
    (toy / "food_images.py").write_text("# the second")
    assert card_text(toy).count(
        "SHA-256 of `food_"
    ) == 2 and "imports `food_images.py`" in card_text(toy)


def test_an_older_release_has_the_card_that_it_had(toy):
    (toy / "evaluation.json").write_text(json.dumps(format_1()))
    assert card_text(toy) == (toy / "README.md").read_text(encoding="utf-8")


def test_an_unknown_format_is_one_line(toy):
    (toy / "evaluation.json").write_text(json.dumps({**files()["evaluation"], "format": 3}))
    with pytest.raises(UserError, match="evaluation.json is not of this format") as error:
        card_text(toy)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match="the card of .* cannot be written: .*run.json does not exist"
    ):
        card_text(tmp_path)
