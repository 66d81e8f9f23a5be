# SPDX-License-Identifier: Apache-2.0
"""Where a data set comes from, and which of its columns are read."""

from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value
from datasets.packaged_modules.parquet.parquet import ParquetConfig

from tests.unit.data.tables import FOOD101_ORDER, arguments, dishes, write_parquet
from tests.unit.toys import LABELS, write_image_folder
from training.common.errors import UserError
from training.data import sources
from training.data.arguments import DataArguments
from training.data.sources import load_source, one_line
from training.data.splits import Source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def everything(label_feature: object, labels: list, **names: str) -> DatasetDict:
    """Both splits of a data set in memory."""
    rows, features = dishes(label_feature, labels, **names)
    dataset = Dataset.from_dict(rows, features=features)
    return DatasetDict({"train": dataset, "validation": dataset})


# ---- places -----------------------------------------------------------------------------------


def test_a_folder_by_its_name_only(tmp_path, monkeypatch):
    """The path of this machine is nobody's business: it goes into what is released."""
    write_image_folder(tmp_path / "private" / "dishes", train=1, validation=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "private")
    for name in (tmp_path / "private" / "dishes", "./dishes", "dishes", "~/private/dishes"):
        source, found = load_source(arguments(name))
        assert source == Source("dishes", "local", None)
        assert {split: found.num_rows(split) for split in found.splits} == {
            "train": 3,
            "validation": 3,
        }


class Builder:
    """A data set of the Hub; `hash` is what datasets knows of its version."""

    config = None

    def __init__(self, hash: str | None, error: Exception | None = None) -> None:
        self.hash, self.error = hash, error

    def download_and_prepare(self) -> None:
        if self.error is not None:
            raise self.error

    def as_dataset(self) -> DatasetDict:
        return everything(ClassLabel(names=LABELS), [0, 1])


@pytest.mark.parametrize(
    ("hash", "revision"), [(COMMIT, COMMIT), ("default-1f", None), (None, None)]
)
def test_the_commit_of_a_hub_data_set(monkeypatch, hash, revision):
    asked = []

    def builder(name: str, revision: str | None) -> Builder:
        asked.append((name, revision))
        return Builder(hash)

    monkeypatch.setattr(sources, "load_dataset_builder", builder)
    source, found = load_source(arguments("user/food", dataset_revision="v2"))
    assert source == Source("user/food", "hub", revision) and found.num_rows("train") == 2
    assert asked == [("user/food", "v2")]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (datasets.exceptions.DatasetNotFoundError("gone\naway"), "is not on the Hub: gone away"),
        (ConnectionError("no route"), "cannot be loaded: no route; check the network"),
        (OSError(28, "No space left"), "cannot be loaded: .*No space left; check the network"),
        (datasets.exceptions.DatasetGenerationError("broken"), "cannot be loaded: broken; check"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, error, words):
    monkeypatch.setattr(sources, "load_dataset_builder", lambda *_, **__: Builder(None, error))
    with pytest.raises(UserError, match=f"^dataset user/food {words}") as refused:
        load_source(arguments("user/food"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "kind"), [("/nowhere", "does not exist"), ("../a/b", "does not exist"),
                                            ("a/b/c", "does not exist"), ("~/x", "does not exist")])  # fmt: skip
def test_what_is_no_hub_id_is_a_path(name, kind):
    with pytest.raises(UserError, match=kind):
        load_source(arguments(name))


def load(args: DataArguments) -> dict[str, Dataset]:
    """The first piece of each split."""
    return {split: pieces[0] for split, pieces in load_source(args)[1].splits.items()}


def test_an_error_says_what_caused_it():
    error = ValueError("while reading")
    error.__cause__ = OSError("a file\n  is " + "very " * 100 + "long")
    assert one_line(error).startswith("a file is very") and len(one_line(error)) == 300
    assert one_line(ValueError("itself")) == "itself"


def test_other_column_names(tmp_path):
    rows, features = dishes(
        ClassLabel(names=FOOD101_ORDER), [0, 1, 2] * 4, image="photo", label="dish"
    )
    rows["note"], features["note"] = ["x"] * 12, Value("string")
    folder = write_parquet(tmp_path / "data", rows, features)
    for keys in ({}, {"image_column": "photo"}, {"image_column": "photo", "label_column": "dish"}):
        assert load(arguments(folder, **keys))["train"].column_names == ["image", "label"]
    for wrong in ({"image_column": "pic"}, {"label_column": "food"}):
        with pytest.raises(UserError, match="it has photo, dish, note; set (image|label)_column"):
            load(arguments(folder, **wrong))
    with pytest.raises(UserError, match="column note of .* holds no images"):
        load(arguments(folder, image_column="note", label_column="dish"))


def test_missing_and_empty_places(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        load(arguments(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="dataset food101 does not exist.*user/name"):
        load(arguments("food101"))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="empty/ has no image"):
        load(arguments(tmp_path / "empty"))
    (tmp_path / "images.zip").write_bytes(b"x")
    with pytest.raises(UserError, match="images.zip cannot be unpacked: File is not a zip file"):
        load(arguments(tmp_path / "images.zip"))
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="broken.parquet cannot be read"):
        load(arguments(tmp_path / "broken.parquet"))


def test_a_hub_id_that_cannot_be_reached_says_what_to_do(no_network):
    with pytest.raises(UserError, match="dataset user/food cannot be loaded: .*--dataset PATH"):
        load(arguments("user/food"))
    assert no_network == []  # offline means that nobody was asked


# ---- names of the files' own ------------------------------------------------------------------


class TwoOrders(Builder):
    """train's files say a, b, c and validation's c, b, a; datasets casts both to the first."""

    def __init__(self, folder: Path, validation: list[list[str]]) -> None:
        super().__init__(COMMIT)
        files = {"train": [LABELS], "validation": validation}
        self.config = ParquetConfig()
        self.config.data_files = {split: [] for split in files}
        for split, lists in files.items():
            for i, names in enumerate(lists):
                path = folder / f"{split}-{i}.parquet"
                rows, features = dishes(ClassLabel(names=names), [0, 1])
                Dataset.from_dict(rows, features=features).to_parquet(path)
                self.config.data_files[split].append(str(path))


def test_each_split_of_the_hub_keeps_the_names_of_its_files(tmp_path, monkeypatch):
    builder = TwoOrders(tmp_path, [LABELS[::-1]])
    monkeypatch.setattr(sources, "load_dataset_builder", lambda *_, **__: builder)
    splits = load(arguments("user/food"))
    assert splits["train"].features["label"].names == LABELS
    assert splits["validation"].features["label"].names == LABELS[::-1]
    assert splits["validation"]["label"] == [0, 1]  # the ids are of those names


def test_files_of_one_split_that_disagree_are_refused(tmp_path, monkeypatch):
    builder = TwoOrders(tmp_path, [LABELS, LABELS[::-1]])
    monkeypatch.setattr(sources, "load_dataset_builder", lambda *_, **__: builder)
    with pytest.raises(UserError, match="split validation of user/food number the labels in label"):
        load_source(arguments("user/food"))
