# SPDX-License-Identifier: Apache-2.0
"""A run knows its images, and does not go on with others."""

import csv
import json
from pathlib import Path

import pytest

from tests.unit.data.tables import arguments
from tests.unit.toys import jpeg, write_image_folder
from training.common.errors import UserError
from training.data.loading import load_splits
from training.run.images import compare_images, refuse_changed, run_of, write_images


@pytest.fixture
def root(tmp_path) -> Path:
    return write_image_folder(tmp_path / "dishes", train=8, validation=2)


@pytest.fixture
def run(tmp_path, root) -> Path:
    """The folder of a run that was begun with `root`."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_images(folder, load_splits(arguments(root)))
    return folder


def rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_written_down(run, root):
    found = rows(run / "images.csv")
    assert [
        sum(row["split"] == split for row in found) for split in ("train", "selection", "test")
    ] == [18, 6, 6]
    assert {row["path"] for row in found} == {
        p.relative_to(root).as_posix() for p in root.rglob("*.jpg")
    }
    assert all(row["label"] == row["path"].split("/")[1] for row in found)
    assert not (run / "left_out.csv").exists()


def test_what_was_left_out_is_written_down(run, root):
    (root / "train" / "notes.txt").write_text("x")
    (root / "train" / "pizza" / "bad.jpg").write_text("x")
    write_images(run, load_splits(arguments(root, undecodable_images="skip")))
    assert {row["path"]: row["kind"] for row in rows(run / "left_out.csv")} == {
        "train/notes.txt": ".txt", "train/pizza/bad.jpg": ".jpg",
    }  # fmt: skip
    (root / "train" / "notes.txt").unlink()
    (root / "train" / "pizza" / "bad.jpg").unlink()
    write_images(run, load_splits(arguments(root)))
    assert not (run / "left_out.csv").exists()


def change(root: Path, what: str) -> None:
    one = root / "train" / "pizza" / "3.jpg"
    if what == "added":
        one.with_name("new.jpg").write_bytes(jpeg(4711))
    elif what == "removed":
        one.unlink()
    elif what == "replaced":
        one.write_bytes(jpeg(4711))
    elif what == "renamed":
        one.rename(one.with_name("33.jpg"))
    else:
        one.rename(root / "train" / "cheesecake" / "moved.jpg")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("added", r"1 added \(train/pizza/new.jpg\)"),
        ("removed", r"1 removed \(train/pizza/3.jpg\)"),
        ("replaced", r"1 replaced \(train/pizza/3.jpg\)"),
        ("relabelled", r"1 added \(train/cheesecake/moved.jpg\); 1 removed \(train/pizza/3.jpg\)"),
        ("renamed", r"1 added \(train/pizza/33.jpg\); 1 removed \(train/pizza/3.jpg\)"),
    ],
)
def test_a_change_is_refused_and_named(what, words, run, root):
    refuse_changed(run, load_splits(arguments(root)))
    before = (run / "images.csv").read_bytes()
    change(root, what)
    with pytest.raises(UserError, match=f"begun with other images: .*{words}"):
        refuse_changed(run, load_splits(arguments(root)))
    assert (run / "images.csv").read_bytes() == before


def test_another_label_for_the_same_file():
    """As in a table: the path stays."""
    before = [("train", "a", "x", "1.jpg"), ("test", "a", "y", "")]
    assert compare_images(before, list(before)) == []
    assert compare_images(before, [("train", "b", "x", "1.jpg"), before[1]]) == [
        "1 relabelled (1.jpg (a, now b))"
    ]
    assert compare_images(before, [before[0], ("train", "a", "y", "")]) == [
        "1 moved to another split (image y)"
    ]
    assert compare_images(before, before[::-1]) == [
        "they are in another order, or there are other copies of them"
    ]


def test_a_run_of_an_older_version_knows_its_fingerprints(run, root):
    splits = load_splits(arguments(root))
    (run / "images.csv").unlink()
    refuse_changed(run, splits)  # nothing is known of it
    data = {"fingerprint": splits.test.fingerprint, "train_fingerprint": splits.train_fingerprint}
    (run / "run.json").write_text(json.dumps({"data": data}))
    refuse_changed(run, splits)
    (root / "validation" / "pizza" / "0.jpg").write_bytes(jpeg(4711))
    with pytest.raises(UserError, match="begun with other images: the images changed"):
        refuse_changed(run, load_splits(arguments(root)))


def test_the_run_of_a_checkpoint(tmp_path):
    assert run_of(str(tmp_path / "run" / "checkpoint-3")) == (tmp_path / "run").resolve()
    assert run_of(str(tmp_path / "run" / "probe" / "checkpoint-3")) == (tmp_path / "run").resolve()


def test_names_of_two_lines_are_read_again(tmp_path, root):
    for name in ("a\rb.jpg", "a\nb.jpg", 'a",b.jpg'):
        (root / "train" / "pizza" / name).write_bytes(jpeg(500 + len(name) + ord(name[1])))
    run = tmp_path / "odd"
    run.mkdir()
    write_images(run, load_splits(arguments(root)))
    refuse_changed(run, load_splits(arguments(root)))
    (root / "train" / "pizza" / "a\rb.jpg").unlink()
    with pytest.raises(UserError, match=r"1 removed \(train/pizza/a\\rb.jpg\)") as error:
        refuse_changed(run, load_splits(arguments(root)))
    assert "\n" not in str(error.value) and "\r" not in str(error.value)
