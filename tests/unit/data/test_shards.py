# SPDX-License-Identifier: Apache-2.0
"""One image, one shard and many: what is written, and what a damaged file says."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image, JpegImagePlugin

from tests.unit.pictures import encode, exif, photo
from tests.unit.toys import LABELS, images, jpeg
from training.common.errors import UserError
from training.data import shards
from training.data.shards import (
    Shard,
    join_shards,
    plan_shards,
    reduce_short_side,
    schema_of,
    write_shard,
    write_shards,
)

SHORT = 20  # the pictures are 40 x 36


@pytest.fixture
def dataset() -> Dataset:
    """Ten encoded images; the last is too small to be reduced."""
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=LABELS)})
    encoded = [*(jpeg(i) for i in range(9)), jpeg(9, (18, 30))]
    rows = [{"bytes": data, "path": f"/private/{i}.jpg"} for i, data in enumerate(encoded)]
    labels = [i % 3 for i in range(10)]
    return Dataset.from_dict({"image": rows, "label": labels}, features=features)


@pytest.fixture
def planned(tmp_path, monkeypatch) -> list[Shard]:
    """Three shards, of 4, 4 and 2 rows, written in groups of 3."""
    monkeypatch.setattr(shards, "SHARD_ROWS", 4)
    monkeypatch.setattr(shards, "GROUP_ROWS", 3)
    return plan_shards(tmp_path, 10)


# ---- one image --------------------------------------------------------------------------------


def difference(a: Image.Image, b: Image.Image) -> float:
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).mean()


# ---- one image --------------------------------------------------------------------------------


def test_what_is_written_for_an_image():
    picture = photo(48, 64)
    written = Image.open(io.BytesIO(reduce_short_side(encode(picture, "PNG"), 24)))
    reference = encode(picture.resize((32, 24), Image.Resampling.BICUBIC), quality=90)
    assert (written.format, written.mode, written.size) == ("JPEG", "RGB", (32, 24))
    assert difference(written, Image.open(io.BytesIO(reference))) < 1
    assert JpegImagePlugin.get_sampling(written) == 2  # 4:2:0
    assert written.quantization == Image.open(io.BytesIO(reference)).quantization


def test_an_image_is_written_upright():
    picture = photo(48, 64)
    data = reduce_short_side(encode(picture, exif=exif(6), quality=95), 24)
    written = Image.open(io.BytesIO(data))
    upright = encode(picture.transpose(Image.Transpose.ROTATE_270), quality=95)
    assert written.size == (24, 32) and not written.getexif()
    assert difference(written, Image.open(io.BytesIO(reduce_short_side(upright, 24)))) < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_is_not_larger_keeps_its_bytes(kind):
    data = encode(photo(24, 64), kind)
    assert reduce_short_side(data, 24) is data and reduce_short_side(data, 500) is data
    assert reduce_short_side(data, 23) != data


# ---- one shard --------------------------------------------------------------------------------


def test_the_plan_covers_every_row_once(planned, tmp_path):
    names = [f"0000{i}-of-00003.parquet" for i in range(3)]
    assert planned == [
        Shard(tmp_path / name, first, rows)
        for name, first, rows in zip(names, (0, 4, 8), (4, 4, 2), strict=True)
    ]
    assert [shard.rows for shard in plan_shards(tmp_path, 8)] == [4, 4]
    assert plan_shards(tmp_path, 0) == [] and os.listdir(tmp_path) == []


def test_a_shard_describes_itself(dataset, planned):
    shard = planned[2]
    assert shard.look() is None
    assert write_shard(dataset.select([8, 9]), shard, SHORT) == 2
    small = [reduce_short_side(jpeg(8), SHORT), jpeg(9, (18, 30))]
    assert shard.look() == {
        "file": "00002-of-00003.parquet",
        "rows": 2,
        "size": shard.path.stat().st_size,
        "source_bytes": len(jpeg(8)) + len(small[1]),
        "image_bytes": sum(map(len, small)),
        "num_kept": 1,
        "made_with": shards.made_with(),
    }
    rows = pq.read_table(shard.path).to_pylist()
    assert [row["image"] for row in rows] == [
        {"bytes": small[0], "path": "8.jpg"},
        {"bytes": small[1], "path": "9.jpg"},
    ]
    assert [row["label"] for row in rows] == [2, 0]
    assert os.listdir(shard.path.parent) == [shard.path.name]


def test_a_shard_of_other_rows_or_no_shard_at_all(dataset, planned):
    write_shard(dataset.select([8, 9]), planned[2], SHORT)
    assert Shard(planned[2].path, 0, 4).look() is None
    data = planned[2].path.read_bytes()
    for damaged in (data[:-5], b"", b"PAR1"):
        planned[2].path.write_bytes(damaged)
        assert planned[2].look() is None
    pq.write_table(pq.read_table(io.BytesIO(data)).replace_schema_metadata(), planned[2].path)
    assert planned[2].look() is None  # the rows are right, but nobody knows what was done to them


def test_an_image_that_cannot_be_read_any_more_is_named_by_its_row(dataset, planned):
    broken = dataset.select([0]).map(
        lambda row: {"image": {"bytes": b"x", "path": "a.jpg"}}, features=dataset.features
    )
    with pytest.raises(UserError, match=r"^image 4 of the training split \(a.jpg\) could be read"):
        write_shard(broken, Shard(planned[1].path, 4, 1), SHORT)
    assert os.listdir(planned[1].path.parent) == []


# ---- many shards ------------------------------------------------------------------------------


def test_the_joined_file_has_the_rows_in_order(dataset, planned, tmp_path):
    assert list(write_shards(dataset, planned, SHORT, workers=1)) == [4, 4, 2]
    join_shards(planned, tmp_path / "mapped.arrow", schema_of(dataset))
    joined = Dataset.from_file(str(tmp_path / "mapped.arrow"))
    assert joined.features["label"].names == LABELS and joined["label"] == dataset["label"]
    undecoded = joined.cast_column("image", ImageFeature(decode=False))
    assert images(undecoded) == [reduce_short_side(data, SHORT) for data in images(dataset)]


def test_a_shard_that_is_damaged_when_it_is_joined_is_removed(dataset, planned, tmp_path):
    list(write_shards(dataset, planned, SHORT, workers=1))
    planned[1].path.write_bytes(b"x")
    with pytest.raises(UserError, match="00001-of-00003.parquet was damaged and is removed: run"):
        join_shards(planned, tmp_path / "mapped.arrow", schema_of(dataset))
    assert sorted(os.listdir(tmp_path)) == [planned[0].path.name, planned[2].path.name]


def test_a_full_disk_leaves_nothing_of_the_joined_file(dataset, planned, tmp_path, monkeypatch):
    list(write_shards(dataset, planned, SHORT, workers=1))

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards.os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        join_shards(planned, tmp_path / "mapped.arrow", schema_of(dataset))
    assert len(os.listdir(tmp_path)) == 3
