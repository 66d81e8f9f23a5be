# SPDX-License-Identifier: Apache-2.0
"""Labels of image files by a run or release, as `food101 predict` gives them."""

import pytest

from inference.apps.predict import predict_images
from tests.unit.toys import LABELS, jpeg
from training.common.errors import UserError


def test_each_image_gets_its_ranked_labels(tiny_run, tiny_data):
    images = [str(tiny_data / "validation" / label / "0.jpg") for label in LABELS]
    found = predict_images(str(tiny_run), images, top_k=2, revision=None, batch_size=2)
    assert [image for image, _ in found] == images
    for _, rows in found:
        assert len(rows) == 2 and rows[0]["score"] >= rows[1]["score"]
        assert {row["label"] for row in rows} <= set(LABELS)
        assert rows[0]["name"] == rows[0]["label"].replace("_", " ").capitalize()
    alone = predict_images(str(tiny_run), images[:1], top_k=2, revision=None, batch_size=8)
    assert alone[0][1][0]["score"] == pytest.approx(found[0][1][0]["score"], abs=1e-5)


def test_an_image_that_cannot_be_scored_is_the_persons_mistake(tiny_run, tmp_path):
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    (tmp_path / "notes.txt").write_text("no image")
    paths = [str(tmp_path / name) for name in ("good.jpg", "notes.txt")]
    with pytest.raises(UserError, match="notes.txt: not a readable image"):
        predict_images(str(tiny_run), paths, top_k=1, revision=None, batch_size=2)
