# SPDX-License-Identifier: Apache-2.0
"""The same small photographs, laid out in every way in which people keep them."""

import csv
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image

from training.data.arguments import DataArguments
from training.data.found import Found
from training.data.labels import name_labels
from training.data.sources import load_source

# Split words stand inside these names on purpose.
LABELS = ["bullet_train", "crème brûlée", "test kitchen"]
COUNTS = {"train": 5, "validation": 3, "test": 2}

# {split: {label: [encoded bytes]}}
Photos = dict[str, dict[str, list[bytes]]]


def photo(seed: int, kind: str = "JPEG") -> bytes:
    """An image of its own for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    options = (
        {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if kind == "MPO" else {}
    )
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def photos(splits: tuple[str, ...] = ("train", "test"), kind: str = "JPEG") -> Photos:
    """Photographs for each split and label."""
    seeds = iter(range(1_000_000))
    return {
        split: {label: [photo(next(seeds), kind) for _ in range(COUNTS[split])] for label in LABELS}
        for split in splits
    }


def counts_of(each: Photos) -> dict[str, dict[str, int]]:
    return {split: {label: len(i) for label, i in by.items()} for split, by in each.items()}


def found_counts(path: object, **keys: object) -> dict[str, dict[str, int]]:
    """Load a data set; count its images by split and label, by the names that they get."""
    args = DataArguments(dataset=str(path), **keys)
    return count(load_source(args)[1], args)


def count(found: Found, args: DataArguments) -> dict[str, dict[str, int]]:
    splits = list(found.splits)
    splits.sort(key=lambda split: split != "train")
    labelled = name_labels(found, splits, args)
    return {
        split: dict(Counter(labelled.names[i] for i in dataset["label"][:]))
        for split, dataset in labelled.splits.items()
    }


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# ---- folders ------------------------------------------------------------------------------------


def folders(
    root: Path, each: Photos, words: dict[str, str] | None = None, ending: str = ".jpg"
) -> Path:
    """SPLIT/LABEL/N.jpg, with the words for splits that are given."""
    for split, by in each.items():
        for label, files in by.items():
            for i, data in enumerate(files):
                write(root / (words or {}).get(split, split) / label / f"{i}{ending}", data)
    return root


def label_folders(root: Path, each: Photos) -> Path:
    """LABEL/N.jpg."""
    for label, files in each["train"].items():
        for i, data in enumerate(files):
            write(root / label / f"{i}.jpg", data)
    return root


def labels_above(root: Path, each: Photos) -> Path:
    """LABEL/SPLIT/N.jpg."""
    for split, by in each.items():
        for label, files in by.items():
            for i, data in enumerate(files):
                write(root / label / split / f"{i}.jpg", data)
    return root


def deeper(root: Path, each: Photos) -> Path:
    """SPLIT/LABEL/camera and phone/N.jpg."""
    for split, by in each.items():
        for label, files in by.items():
            for i, data in enumerate(files):
                write(root / split / label / ("camera", "phone")[i % 2] / "2024" / f"{i}.jpg", data)
    return root


def wrapped(root: Path, each: Photos) -> Path:
    folders(root / "food dataset (v2)" / "inner", each)
    write(root / "README.txt", b"photographs")
    return root


def linked(root: Path, each: Photos) -> Path:
    """Links to files, to a label's folder and to a split."""
    real = folders(root.with_name(root.name + "-real"), each)
    root.mkdir(parents=True)
    (root / "test").symlink_to(real / "test")
    for label in LABELS[:2]:
        (root / "train").mkdir(exist_ok=True)
        (root / "train" / label).symlink_to(real / "train" / label)
    (root / "train" / LABELS[2]).mkdir()
    for file in (real / "train" / LABELS[2]).iterdir():
        (root / "train" / LABELS[2] / file.name).symlink_to(file)
    (root / "train" / LABELS[0] / "up").symlink_to(root)  # a circle
    return root


def food101_folder(root: Path, each: Photos, kind: str = "txt", wrapper: str = "") -> Path:
    """images/LABEL/ID.jpg, meta/train.txt and test.txt, or .json."""
    base, lists = root / wrapper, {"train": {}, "test": {}}
    for number, (split, by) in enumerate(each.items()):
        for label, files in by.items():
            for i, data in enumerate(files):
                write(base / "images" / label / f"{number}{i}.jpg", data)
                lists[split].setdefault(label, []).append(f"{label}/{number}{i}")
    for split, by in lists.items():
        text = json.dumps(by) if kind == "json" else "\n".join(sum(by.values(), [])) + "\n"
        write(base / "meta" / f"{split}.{kind}", text.encode())
    write(base / "meta" / "classes.txt", "\n".join(reversed(LABELS)).encode() + b"\n")
    return root


# ---- tables -------------------------------------------------------------------------------------


def rows_of(root: Path, each: Photos, below: str = "images") -> list[tuple[str, str, str]]:
    """Write the images in one folder; return (split, path, label) of each."""
    rows = []
    for split, by in each.items():
        for label, files in by.items():
            for data in files:
                name = f"{below}/{len(rows):04}.jpg"
                write(root / name, data)
                rows.append((split, name, label))
    return rows


def csv_by_split(
    root: Path, each: Photos, header: tuple[str, str] = ("path", "dish"), sep: str = ","
) -> Path:
    """train.csv and test.csv."""
    rows = rows_of(root, each)
    for split in each:
        write_csv(
            root / f"{split}.{'tsv' if sep == chr(9) else 'csv'}",
            header,
            [r[1:] for r in rows if r[0] == split],
            sep,
        )
    return root


def csv_with_split(root: Path, each: Photos) -> Path:
    """One labels.csv with a column for the split, and one that is nobody's business."""
    rows = [(i, path, split, label) for i, (split, path, label) in enumerate(rows_of(root, each))]
    write_csv(root / "labels.csv", ("", "filename", "split", "category"), rows)
    return root


def metadata(
    root: Path, each: Photos, kind: str = "csv", columns: tuple[str, str] = ("file_name", "label")
) -> Path:
    """SPLIT/metadata.csv or .jsonl beside its images, as imagefolder has it."""
    for split, by in each.items():
        rows = []
        for label, files in by.items():
            for data in files:
                write(root / split / f"{len(rows)}.jpg", data)
                rows.append((f"{len(rows)}.jpg", label))
        path = root / split / f"metadata.{kind}"
        if kind == "csv":
            write_csv(path, columns, rows)
        else:
            lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
            write(path, "\n".join(lines).encode())
    return root


def write_csv(
    path: Path, header: tuple[str, ...] | None, rows: list[tuple], sep: str = ","
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=sep)
        if header is not None:
            writer.writerow(header)
        writer.writerows(rows)
    return path


def parquet(
    root: Path,
    each: Photos,
    kind: str = "image",
    columns: tuple[str, str] = ("image", "label"),
    shards: int = 1,
) -> Path:
    """SPLIT-N-of-M.parquet: `kind` is image, with names; bytes or struct, by pandas; or path."""
    for split, by in each.items():
        rows = [(data, label) for label, files in by.items() for data in files]
        for shard in range(shards):
            path = root / f"{split}-{shard:05}-of-{shards:05}.parquet"
            write_parquet(path, rows[shard::shards], kind, columns)
    return root


def write_parquet(
    path: Path, rows: list[tuple[bytes, object]], kind: str, columns: tuple[str, str]
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image, label = columns
    labels = [row[1] for row in rows]
    if kind == "image":
        features = Features({image: datasets.Image(), label: ClassLabel(names=LABELS)})
        cells = [{"bytes": row[0], "path": None} for row in rows]
        Dataset.from_dict({image: cells, label: labels}, features=features).to_parquet(path)
        return path
    if kind == "path":
        cells = []
        for i, row in enumerate(rows):
            write(path.parent / "photos" / f"{path.stem}-{i}.jpg", row[0])
            cells.append(f"photos/{path.stem}-{i}.jpg")
    elif kind == "struct":
        cells = [{"bytes": row[0], "path": "x.jpg"} for row in rows]
    else:
        cells = [row[0] for row in rows]
    pd.DataFrame({image: cells, label: labels, "width": 20}).to_parquet(path)
    return path


def saved(root: Path, each: Photos, names: dict[str, list[str]] | None = None) -> Path:
    """`save_to_disk` of a DatasetDict, or of a Dataset where there is one split."""
    made = {}
    for split, by in each.items():
        order = (names or {}).get(split, LABELS)
        features = Features({"image": datasets.Image(), "label": ClassLabel(names=order)})
        rows = [(data, label) for label, files in by.items() for data in files]
        columns = {
            "image": [{"bytes": data, "path": None} for data, _ in rows],
            "label": [label for _, label in rows],
        }
        made[split] = Dataset.from_dict(columns, features=features)
    whole = DatasetDict(made) if len(made) > 1 else next(iter(made.values()))
    whole.save_to_disk(root)
    return root


# ---- archives -----------------------------------------------------------------------------------


def webdataset(root: Path, each: Photos, kind: str = "cls") -> Path:
    """SPLIT-N.tar with KEY.jpg and KEY.cls, KEY.txt or KEY.json."""
    root.mkdir(parents=True)
    for split, by in each.items():
        with tarfile.open(root / f"{split}-000000.tar", "w") as tar:
            rows = [(data, label) for label, files in by.items() for data in files]
            for i, (data, label) in enumerate(rows):
                text = json.dumps({"label": label}) if kind == "json" else label
                for name, content in ((f"{i:06}.jpg", data), (f"{i:06}.{kind}", text.encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return root


def zipped(root: Path, folder: Path) -> Path:
    """All of a folder as one zip."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return root


def tarred(root: Path, folder: Path) -> Path:
    """All of a folder as one tar.gz."""
    with tarfile.open(root, "w:gz") as tar:
        tar.add(folder, arcname="photos")
    return root


TEXT = Features({"image": datasets.Image(), "label": Value("string")})
