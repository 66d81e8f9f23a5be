# SPDX-License-Identifier: Apache-2.0
"""Names of dishes in the food pipeline: `language=`, with names in the model's config and without."""

import copy
import json

import pytest
from transformers import AutoModelForImageClassification, ViTForImageClassification, pipeline

from inference.food_answers import names_in, readable_name
from inference.food_classification import FoodClassificationPipeline
from tests.unit.pictures import LABELS, photo
from training.model.config_block import merge_block, read_block
from training.model.names import names_of

WHOLE = {"top_k": len(LABELS)}


@pytest.fixture(scope="module")
def named_model(model):
    named = copy.deepcopy(model)
    merge_block(named.config, **names_of(LABELS))
    return named


@pytest.fixture(scope="module")
def named(named_model, processor):
    return FoodClassificationPipeline(model=named_model, image_processor=processor, device="cpu")


def names(rows) -> dict[str, str]:
    return {row["label"]: row["name"] for row in rows}


def test_names_change_and_nothing_else(named, classify):
    plain = classify(photo(), **WHOLE)
    for language in (None, "en", "ko"):
        rows = named(photo(), language=language, **WHOLE)
        assert [set(row) for row in rows] == [{"label", "name", "score"}] * len(LABELS)
        for key in ("label", "score"):
            assert [row[key] for row in rows] == [row[key] for row in plain]
    table = names_of(LABELS)["names"]
    assert names(named(photo(), **WHOLE)) == names(named(photo(), language="en", **WHOLE))
    assert names(named(photo(), **WHOLE)) == table["en"]
    assert names(named(photo(), language="ko", **WHOLE)) == table["ko"]


def test_lists_batches_and_construction(named, named_model, processor):
    images = [photo(seed=seed) for seed in range(3)]
    korean = [named(image, language="ko") for image in images]
    assert [names(rows) for rows in named(images, language="ko", batch_size=2)] == [
        names(rows) for rows in korean
    ]
    built = FoodClassificationPipeline(
        model=named_model, image_processor=processor, device="cpu", language="ko"
    )
    assert built(images[0]) == korean[0]
    assert names(built(images[0], language="en")) == names(named(images[0]))
    assert built(images[0], language=None) == named(images[0])  # takes it back
    assert built(images, language=None) == named(images)
    assert built(images[0]) == korean[0]  # the call's language was of the call


def test_a_label_without_a_name_is_shown_as_it_reads(model, processor):
    lacking = copy.deepcopy(model)
    merge_block(lacking.config, names={"ko": {"pho": "베트남 쌀국수"}})
    pipe = FoodClassificationPipeline(model=lacking, image_processor=processor, device="cpu")
    korean = names(pipe(photo(), language="ko", **WHOLE))
    assert korean.pop("pho") == "베트남 쌀국수"
    assert korean == {label: readable_name(label) for label in LABELS if label != "pho"}
    # Without English names the default is what it is without any.
    assert names(pipe(photo(), **WHOLE)) == {label: readable_name(label) for label in LABELS}


BAD = ["de", "KO", "", 5, ["ko"], True, {"ko": 1}, "x" * 1000]


@pytest.mark.parametrize("language", BAD)
def test_a_language_that_is_not_there(named, named_model, processor, classify, language):
    makers = (
        lambda: named(photo(), language=language),
        lambda: FoodClassificationPipeline(
            model=named_model, image_processor=processor, device="cpu", language=language
        ),
    )
    for make in makers:
        with pytest.raises(ValueError, match="has no names in it: give en or ko") as error:
            make()
        assert "\n" not in str(error.value) and len(str(error.value)) < 300
    with pytest.raises(ValueError, match="none in any; leave language out, or .*--display_names"):
        classify(photo(), language=language)


def test_an_older_release_answers_as_it_did(classify):
    assert names(classify(photo(), **WHOLE)) == {label: readable_name(label) for label in LABELS}
    with pytest.raises(ValueError, match="language 'en': the model has no names"):
        classify(photo(), language="en")


def test_another_format_is_told(model, processor):
    later = copy.deepcopy(model)
    later.config.food_classification = {"format": 2, "names": {"en": {}}}
    with pytest.raises(ValueError, match="has format 2, and this code reads 1"):
        FoodClassificationPipeline(model=later, image_processor=processor, device="cpu")


def test_names_survive_saving_and_the_stock_pipeline_has_labels(named, tmp_path):
    named.save_pretrained(tmp_path)
    again = pipeline(model=str(tmp_path), trust_remote_code=True, device="cpu", language="ko")
    assert names(again(photo())) == names(named(photo(), language="ko"))
    stock = pipeline("image-classification", model=str(tmp_path), device="cpu")
    assert {row["label"] for row in stock(photo(), **WHOLE)} == set(LABELS)
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["id2label"]["0"] == LABELS[0]


def test_somebody_elses_head_gets_no_wrong_names(named, processor, tmp_path):
    """Fine-tuned with transformers alone the block stays in the config: names go by label there."""
    named.save_pretrained(tmp_path)
    other = ["waffles", "ramen", "pho"]  # waffles is another number now
    theirs = AutoModelForImageClassification.from_pretrained(
        tmp_path, num_labels=3, id2label=dict(enumerate(other)), ignore_mismatched_sizes=True
    )
    assert isinstance(theirs, ViTForImageClassification) and read_block(theirs.config)
    pipe = FoodClassificationPipeline(model=theirs, image_processor=processor, device="cpu")
    wanted = {"waffles": "와플", "ramen": "Ramen", "pho": "베트남 쌀국수"}
    assert names(pipe(photo(), language="ko")) == wanted


def test_names_are_read_from_json_too():
    config: dict = {}
    merge_block(config, **names_of(["pho"]))
    assert names_in(config, "ko") == {"pho": "베트남 쌀국수"}
    assert names_in({}) == {}
