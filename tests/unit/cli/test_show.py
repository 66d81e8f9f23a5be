# SPDX-License-Identifier: Apache-2.0
"""The verb explain: what it writes, and what it refuses in one line."""

import json
import os
import shutil

import pytest

from tests.unit.backbones import save_backbone
from tests.unit.explained import Read, draw, save_cnn, save_vit
from tests.unit.pictures import LABELS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("show")
    save_vit(place / "vit")
    save_vit(place / "deep", num_hidden_layers=12)
    save_cnn(place / "cnn")
    draw(place / "dinner.png")
    (place / "text.jpg").write_text("no image")
    return place


@pytest.fixture
def at(place, monkeypatch):
    """Names of what lies there may be given."""
    monkeypatch.chdir(place)
    return place


def test_the_page_is_written_and_its_place_is_told(food101, at):
    code, out, err = food101("explain", "vit", "dinner.png")
    assert (code, err) == (0, "")
    assert out.startswith("explained.html: open it in a browser (0.") and out.endswith(" MB)\n")
    assert Read((at / "explained.html").read_text("utf-8")).of("title") == [
        "How vit sees dinner.png"
    ]


@pytest.mark.parametrize("models", [["cnn"], ["vit", "cnn"]])
def test_a_cnn_alone_and_beside_a_vit(food101, at, tmp_path, models):
    output = tmp_path / "page.html"
    words = ["--label", LABELS[3], "--language", "ko", "--output", output]
    code, _, err = food101("explain", *models, "dinner.png", *words)
    assert (code, err) == (0, "")
    text = output.read_text("utf-8")
    assert '<html lang="ko">' in text and ('id="cnn"' in text) == (len(models) == 2)


def test_a_picture_beside_the_page(food101, refused, at, tmp_path):
    words = ["dinner.png", "--output", tmp_path / "page.html", "--picture", tmp_path / "strip.png"]
    assert "this network is no ViT" in refused("explain", "cnn", *words)
    assert os.listdir(tmp_path) == []
    code, out, err = food101("explain", "vit", *words)
    assert (code, err) == (0, "") and "strip.png: patches" in out
    assert sorted(os.listdir(tmp_path)) == ["page.html", "strip.png"]
    assert "there is no folder no" in refused(
        "explain", "vit", "dinner.png", "--picture", "no/strip.png"
    )


def test_a_page_that_is_there_is_replaced(food101, at, tmp_path):
    (tmp_path / "page.html").write_text("old")
    assert food101("explain", "cnn", "dinner.png", "--output", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")


def test_a_finished_run_tells_how_often_it_is_right(food101, tiny_run, at, tmp_path):
    for folder in (tiny_run, tiny_run / "release"):
        words = ["explain", folder, "dinner.png", "--output", tmp_path / "page.html"]
        assert food101(*words)[0] == 0
        said = " ".join(Read((tmp_path / "page.html").read_text("utf-8")).of("p"))
        assert "On its own test split" in said


@pytest.mark.parametrize(
    "words, said",
    [
        (["dinner.png"], "one of them is missing"),
        (["vit", "cnn", "vit", "dinner.png"], "there are 4 words"),
        (["vit", "no.png"], "no.png: no such file"),
        (["vit", "diner.png"], "did you mean dinner.png?"),
        (["vit", "."], ". is a folder: give one image file"),
        (["vit", "text.jpg"], "text.jpg: "),
        (["vti", "dinner.png"], "vti does not exist"),
        (["vit", "dinner.png", "--label", "hotdog"], "is it hot_dog?"),
        (["vit", "dinner.png", "--label", "zzz"], "give one of apple_pie, baklava"),
        (["vit", "dinner.png", "--block", "0"], "'0' is not a whole number of at least 1"),
        (["vit", "dinner.png", "--block", "x"], "'x' is not a whole number"),
        (["deep", "dinner.png", "--block", "13"], "--block 13: this network has blocks 1 to 12"),
        (["cnn", "dinner.png", "--block", "1"], "is no ViT"),
        (["cnn", "vit", "dinner.png"], "a ViT and a CNN, in this order"),
        (["vit", "deep", "dinner.png"], "a ViT and a CNN, in this order"),
        (["vit", "dinner.png", "--language", "de"], "invalid choice: 'de'"),
        (["vit", "dinner.png", "--output", "."], "--output . is a folder"),
        (["vit", "dinner.png", "--output", "no/page.html"], "there is no folder no"),
        (
            ["vit", "dinner.png", "--max_image_pixels", "9"],
            "make it smaller or raise max_image_pix",
        ),
        (["vit", "dinner.png", "--picture", "strip.jpg"], "it is written as PNG"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_named_in_one_line(refused, at, tmp_path, words, said):
    output = [] if "--output" in words else ["--output", tmp_path / "page.html"]
    assert said in refused("explain", *words, *output)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--output", "dinner.png"],
        ["--output", "./dinner.png"],
        ["--picture", "dinner.png"],
        ["--output", "page.html", "--picture", "../show/page.html"],
        ["--output", "linked.png"],
    ],
)
def test_what_was_given_is_not_replaced(refused, place, monkeypatch, options):
    (place / "show").mkdir(exist_ok=True)
    monkeypatch.chdir(place / "show")
    (place / "show" / "dinner.png").write_bytes((place / "dinner.png").read_bytes())
    (place / "show" / "linked.png").unlink(missing_ok=True)
    (place / "show" / "linked.png").hardlink_to(place / "show" / "dinner.png")
    assert "would replace what you gave" in refused("explain", "../vit", "dinner.png", *options)
    assert sorted(os.listdir(".")) == ["dinner.png", "linked.png"]
    assert (place / "show" / "dinner.png").read_bytes() == (place / "dinner.png").read_bytes()


def test_odd_names(food101, refused, at, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    page = tmp_path / "a\nb.html"
    assert "loop: no such file" in refused("explain", "vit", tmp_path / "loop", "--output", page)
    assert "'' is a folder" in refused("explain", "vit", "", "--output", page)
    code, out, _ = food101("explain", "vit", "dinner.png", "--output", page)
    assert code == 0 and "a\\nb.html: open it" in out and out.count("\n") == 1
    said = refused("explain", "vit", "dinner.png", "--output", tmp_path / ("x" * 250 + ".html"))
    assert "File name too long" in said
    assert sorted(os.listdir(tmp_path)) == ["a\nb.html", "loop"]


def test_the_languages_are_those_of_the_page():
    from inference.apps.explain.page import LANGUAGES
    from training.cli.main import make_parser

    for language in LANGUAGES:
        words = ["explain", "vit", "dinner.png", "--language", language]
        assert make_parser().parse_args(words).language == language


def test_a_block_of_another_format_is_named_in_one_line(refused, at, tmp_path):
    shutil.copytree("vit", tmp_path / "newer")
    config = json.loads((tmp_path / "newer" / "config.json").read_text())
    config["food_classification"] = {"format": 7}
    (tmp_path / "newer" / "config.json").write_text(json.dumps(config))
    said = refused("explain", tmp_path / "newer", "dinner.png", "--output", tmp_path / "page.html")
    assert "has format 7, and this code reads 1" in said
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["dinov2", "swin"])
def test_networks_that_have_no_map_are_refused(refused, at, tmp_path, name):
    save_backbone(tmp_path / name, name, LABELS)
    output = tmp_path / "page.html"
    said = refused("explain", tmp_path / name, "dinner.png", "--output", output)
    assert "cannot be explained: a map is made of ViT, DeiT and" in said
    assert "cannot be explained" in refused(
        "explain", "vit", tmp_path / name, "dinner.png", "--output", output
    )
    assert not output.exists()


def test_a_model_without_a_trained_head_is_refused(refused, at, tmp_path):
    save_backbone(tmp_path / "body", "deit", LABELS)
    from transformers import AutoModel

    AutoModel.from_pretrained(tmp_path / "body").save_pretrained(tmp_path / "body")
    said = refused("explain", tmp_path / "body", "dinner.png", "--output", tmp_path / "page.html")
    assert "body" in said and "head" in said
