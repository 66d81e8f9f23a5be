# SPDX-License-Identifier: Apache-2.0
"""Reading finished runs: what is refused, and what an older one says."""

import json
from pathlib import Path

import pytest

from tests.unit.card_files import format_1
from tests.unit.compare.toy_runs import NAMES, TRUTH, A, B, edit, write_rows, write_run, wrong
from training.common.errors import UserError
from training.compare.runs import compare_runs
from training.compare.scored import fact, load_scored


@pytest.fixture
def refused(pair, tmp_path):
    """The one line for a second run that was changed, with the names of both left out."""

    def refused(right: str = B, **changes: object) -> str:
        other = write_run(tmp_path / "other", right, **changes)
        with pytest.raises(UserError) as error:
            compare_runs([pair[0], str(other)])
        assert "\n" not in str(error.value)
        return str(error.value)

    return refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"evaluation__dataset_fingerprint": "77" * 32},
            "(dataset_fingerprint 7777777777777777, not ",
        ),
        ({"evaluation__split": "test"}, "(split test, not validation)"),
        ({"evaluation__format": 3}, "is not of this format"),
        ({"run__finished": None}, "is an unfinished run: train it to its end first"),
        ({"evaluation__n": 21}, "predictions.csv has 20 images and evaluation.json 21"),
        (
            {"evaluation__metrics__top1__value": 0.85},
            "16 of 20 right and evaluation.json says 85.0000%",
        ),
        ({"evaluation__metrics": {}}, "evaluation.json has no metrics.top1"),
        ({"run__model": {}}, "run.json has no model."),
        ({"run__data": {}}, "run.json has no data."),
    ],
)
def test_what_does_not_fit_is_refused(refused, changes, said):
    assert said in refused(**changes)


def test_the_cure_for_predictions_that_disagree_is_named(refused):
    assert "restore both files" in refused(evaluation__metrics__top1__value=0.75)


def test_other_labels_of_the_same_images_are_refused(pair, tmp_path):
    other = write_run(tmp_path / "c", B)
    rows = [
        [i, label, label if b == "1" else wrong(label), 1]
        for i, (label, b) in enumerate(zip(TRUTH, B, strict=True))
    ]
    rows[3][1:3] = [NAMES[1], NAMES[1]]
    write_rows(other, rows)
    with pytest.raises(UserError, match=r"image 3: cheese_plate and cheesecake"):
        compare_runs([pair[0], str(other)])


def test_fewer_test_images_are_refused(pair, tmp_path):
    other = write_run(tmp_path / "c", B)
    edit(other, "evaluation", n=10, metrics={"top1": {"value": 1.0}})
    write_rows(other, [[i, label, label, 1] for i, label in enumerate(TRUTH[:10])])
    with pytest.raises(UserError, match=r"other test images than .* \(n 10, not 20\)"):
        compare_runs([pair[0], str(other)])


@pytest.mark.parametrize("missing", ["run.json", "evaluation.json", "predictions.csv"])
def test_a_missing_file_is_named(pair, missing):
    (Path(pair[1]) / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is missing: is .* a finished run?"):
        compare_runs(list(pair))


def test_a_run_is_read_with_its_answers(pair):
    scored = load_scored(pair[0] + "/")
    assert scored.name == pair[0] and scored.labels == TRUTH
    assert scored.right == [letter == "1" for letter in A]
    assert fact(scored, "run.model.patch_size") == 16 and fact(scored, "evaluation.n") == 20


def test_a_run_of_the_first_format_is_read_like_any_other(pair):
    before = compare_runs(list(pair))
    path = Path(pair[1]) / "evaluation.json"
    path.write_text(json.dumps(format_1(json.loads(path.read_text()))))
    assert compare_runs(list(pair)) == before


def test_an_older_run_that_lacks_an_interval_is_named(pair):
    path = Path(pair[1]) / "evaluation.json"
    old = format_1(json.loads(path.read_text()))
    del old["intervals"]["top1"]
    path.write_text(json.dumps(old))
    with pytest.raises(UserError, match="evaluation.json has no metrics.top1.interval: it was"):
        compare_runs(list(pair))
