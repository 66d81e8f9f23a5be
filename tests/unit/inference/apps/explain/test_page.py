# SPDX-License-Identifier: Apache-2.0
"""The page: nothing of it can be injected or asks a network, and what it says is of this network."""

import base64
import copy
import hashlib
import json
import os
import re

import pytest
import torch
import transformers

from inference.apps.explain import page
from inference.apps.explain.page import (
    LANGUAGES,
    measure,
    percent,
    render,
    shape,
    with_code,
    words,
)
from inference.apps.explain.subject import Subject
from inference.food_images import Preprocessing
from tests.unit.explained import Read, draw, save_cnn, save_vit, vit
from tests.unit.explained import written as page_of
from tests.unit.pictures import LABELS, square
from training.common.errors import UserError
from training.model.config_block import merge_block
from training.model.network import Network

OTHER = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 6, "patch_size": 16}
OTHER |= {"intermediate_size": 80, "image_size": 64}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A ViT, another one, a CNN, and two photographs."""
    place = tmp_path_factory.mktemp("explained")
    save_vit(place / "vit")
    save_vit(place / "other", labels=[*LABELS, "ramen"], seed=2, **OTHER)
    save_cnn(place / "cnn")
    draw(place / "dinner.png")
    draw(place / "supper.png", seed=3, height=50, width=90)
    return place


@pytest.fixture(scope="module")
def written(place):
    """written(*names, **options) -> the page; each is written once."""
    kept = {}

    def written(*names: str, photo: str = "dinner.png", **options: object) -> str:
        key = (names, photo, repr(options))
        if key not in kept:
            kept[key] = page_of([place / name for name in names], place / photo, **options)
        return kept[key]

    return written


@pytest.fixture
def facts(place):
    """facts(*names) -> what a page is written from."""

    def facts(*names: str) -> dict:
        return measure([str(place / name) for name in names], str(place / "dinner.png"))

    return facts


def leaves(value, place=""):
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{place}.{key}".lstrip("."))
    else:
        yield place, value


# ---- words ---------------------------------------------------------------------------------------


def literals(text: str) -> str:
    """What stands in a text of ours whatever the network."""
    return re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{\w+\}", "·", text)


def test_all_languages_have_the_same_keys_and_measure_the_same():
    english = dict(leaves(words("en")))
    for language in LANGUAGES:
        own = dict(leaves(words(language)))
        assert own.keys() == english.keys()
        for key, text in own.items():
            used, expected = (
                set(re.findall(r"\{\{ *([\w.]+)", each)) for each in (text, english[key])
            )
            assert used == expected, key


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_measured_number_stands_in_the_words(language):
    """Only those of definitions: 0 to 255, 95 and 80 %, -3, × 3 colours, a tenth ("10분의 1"), papers."""
    found = set()
    for _, text in leaves(words(language)):
        named = re.sub(r"`.*?`|food101|arXiv:[\d.]+\d", "", literals(text))
        found |= set(re.findall(r"[\d.]*\d", named))
    assert found <= {"0", "1", "3", "10", "80", "95", "255"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_hold_nothing_that_html_would_read(language):
    for key, text in leaves(words(language)):
        assert not set(literals(text)) & set('<>&"'), key
        assert literals(text).count("`") % 2 == 0, key


def test_every_key_is_said_somewhere(facts, monkeypatch):
    """In pages of a ViT, a DeiT, a CNN, both, calibrated or not, sure or not."""
    said = set()

    class Noted(dict):
        def __init__(self, own, place=""):
            super().__init__(own)
            self.place = place

        def __getitem__(self, key):
            value, place = super().__getitem__(key), f"{self.place}.{key}".lstrip(".")
            said.add(place)
            return Noted(value, place) if isinstance(value, dict) else value

    monkeypatch.setattr(page, "words", lambda language: Noted(words(language)))
    accuracy = {"value": 0.8, "interval": [0.7, 0.9], "n": 5, "dataset": "d", "split": "test"}
    for names in (("vit",), ("cnn",), ("vit", "cnn")):
        plain = facts(*names)
        render(plain, "en")
        for answered in (True, False):
            decided = copy.deepcopy(plain)
            decided["accuracy"] = accuracy
            decided["answer"] |= {
                "temperature": 2.0,
                "decision": {"answered": answered, "not_food": answered},
            }
            decided["answer"]["why"][0]["small"] = True
            if decided["patches"]:
                decided["stream"]["long"] = 9.0
            render(decided, "en")
    assert {key for key, _ in leaves(words("en"))} - said == set()


def test_code_stands_between_backticks():
    assert with_code("a `b` c `d`") == "a <code>b</code> c <code>d</code>"


def test_shares_and_shapes_are_written_shortly():
    written = {0: "0 %", 1: "100 %", 0.5: "50.0 %", 0.1234: "12.3 %", 0.00041: "0.041 %"}
    written |= {1e-9: "< 0.001 %", 0.99949: "99.9 %", 0.9999: "> 99.9 %"}
    spaces = {share: text.replace(" ", "\N{NO-BREAK SPACE}") for share, text in written.items()}
    assert {share: percent(share) for share in written} == spaces
    assert shape([384, 3, 14, 14]) == "384 × 3 × 14 × 14"


# ---- what it says --------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_with_a_number_is_that_of_another_network(written, language):
    constant = {
        " ".join(text.split()) for _, text in leaves(words(language)) if text == literals(text)
    }
    one, two = (
        {text for text in Read(written(*of, language=language)).of("p") if re.search(r"\d", text)}
        for of in (("vit",), ("other",))
    )
    assert len(one) > 12
    assert one & two <= constant
    # Nor of another photograph, where it is of the photograph.
    other = set(Read(written("vit", photo="supper.png", language=language)).of("p"))
    assert len(one - other) > 6


def test_the_same_facts_give_the_same_bytes(facts, written, place):
    found = facts("vit", "cnn")
    assert json.loads(json.dumps(found)) == found  # JSON values, no number that is none
    assert "NaN" not in json.dumps(found)
    for language in LANGUAGES:
        assert render(copy.deepcopy(found), language) == render(found, language)
    again = page_of([place / "vit"], place / "dinner.png")
    assert again == written("vit")


@pytest.mark.parametrize("names", [("vit",), ("cnn",), ("vit", "cnn")])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_is_whole(written, names, language):
    text = written(*names, language=language)
    read = Read(text)
    assert dict(read.elements)["html"] == {"lang": language}
    assert not re.search(r"\{\{|\{%|None|Undefined", re.sub(r"<script.*", "", text, flags=re.S))
    sections = [attrs["id"] for tag, attrs in read.elements if tag == "section"]
    vit_only = ["patches", "embedding", "class_token", "positions", "attention", "block", "head"]
    expected = ["photo", *(vit_only if "vit" in names else ["filters", "head"]), "why"]
    assert sections == [*expected, *(["cnn"] if len(names) == 2 else []), "table"]
    numbers = [heading[: len(str(i + 1))] for i, heading in enumerate(read.of("h2"))]
    assert numbers == [str(i + 1) for i in range(len(sections))]
    json.loads(read.of("script")[0])
    ids = read.attributes("id")
    assert len(ids) == len(set(ids))
    assert all("alt" in attrs for tag, attrs in read.elements if tag == "img")


def test_the_middle_block_is_shown_or_the_one_that_was_asked_for(written):
    def shown(text):
        return {int(n) for n in re.findall(r"vit\.layers\.(\d+)\.mlp", text)}

    assert shown(written("vit")) == {1}
    assert shown(written("vit", block=1)) == {0} and shown(written("vit", block=3)) == {2}


def test_a_label_that_is_asked_for_is_explained(written):
    for names in (("vit",), ("cnn",), ("vit", "cnn")):
        plain = Read(written(*names)).of("strong")
        asked = Read(written(*names, labels=tuple(LABELS))).of("strong")
        assert len(asked) == len(LABELS) * len(names) and len(plain) == 2 * len(names)


def test_calibration_is_shown_before_and_after(facts):
    found = facts("vit")
    plain = Read(render(found, "en"))
    assert "before calibration" not in plain.of("th") and "not calibrated" in " ".join(
        plain.of("p")
    )
    found["answer"]["temperature"] = 1.57
    for row, before in zip(found["answer"]["ranked"], (0.91, 0.05, 0.02, 0.01, 0.01), strict=True):
        row["before"] = before
    read = Read(render(found, "en"))
    assert "before calibration" in read.of("th") and "temperature of 1.57" in " ".join(read.of("p"))
    assert "91.0 %" in read.of("td")


@pytest.mark.parametrize(
    "decision, said",
    [
        ({"answered": True, "not_food": None}, ["It is sure enough"]),
        ({"answered": False, "not_food": None}, ["Not sure"]),
        ({"answered": None, "not_food": True}, ["This may be no food"]),
        ({"answered": False, "not_food": False}, ["Not sure", "this is food"]),
        (None, []),
    ],
)
def test_what_it_is_not_sure_of_is_told(facts, decision, said):
    found = facts("vit")
    found["answer"]["decision"] = decision
    text = " ".join(Read(render(found, "en")).of("p"))
    for each in ("It is sure enough", "Not sure", "This may be no food", "this is food"):
        assert (each in text) == (each in said), each


# ---- nothing can be injected, nothing is asked ------------------------------------------------------

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 191 }}{% raw %}",
    "</title></style><style>*{}</style>",
    "a`b` & 'c' <!-- ",
    "l" * 900,
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_and_names_of_files_are_text_and_nothing_else(tmp_path, language):
    save_vit(tmp_path / "{{ 7 * 191 }} `m`<b>&", labels=HOSTILE)
    save_cnn(tmp_path / "`c`\"'<i onclick=x>", labels=HOSTILE)
    name = "{{ 7 * 191 }}<script>`x`\"'&.png"
    draw(tmp_path / name)
    models = [tmp_path / "{{ 7 * 191 }} `m`<b>&", tmp_path / "`c`\"'<i onclick=x>"]
    text = page_of(models, tmp_path / name, HOSTILE, language)
    read = Read(text)
    tags = [tag for tag, _ in read.elements]
    assert [tags.count(tag) for tag in ("script", "style", "title")] == [2, 1, 1]
    assert "i" not in tags and "b" not in tags and str(7 * 191) not in text
    assert not [
        name for name in {k for _, attrs in read.elements for k in attrs} if name[:2] == "on"
    ]
    assert name in read.of("title")[0] and name in read.of("h1")[0]
    assert models[0].name in read.of("title")[0]
    assert name in read.attributes("alt") and name in read.attributes("aria-label")
    shown = {re.sub(r"\W", "", text).lower() for text in read.of("strong")}
    assert shown == {re.sub(r"\W|_", "", label).lower() for label in HOSTILE}
    assert not [code for code in read.of("code") if code in ("m", "c", "x", "b")]


def test_a_name_that_is_no_utf8_is_shown_as_far_as_it_can_be(place, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        file.write((place / "dinner.png").read_bytes())
    text = page_of([place / "vit"], os.fsdecode(path))
    assert "caf?.png" in Read(text.encode().decode()).of("title")[0]


@pytest.mark.parametrize("names", [("vit",), ("cnn",), ("vit", "cnn")])
def test_the_policy_allows_the_script_and_the_style_and_nothing_else(written, names):
    text = written(*names)
    policy = next(attrs["content"] for tag, attrs in Read(text).elements if "http-equiv" in attrs)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.keys() == {
        "default-src", "img-src", "script-src", "style-src", "base-uri", "form-action",
    }  # fmt: skip
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("<script>", "script-src"), ("<style>", "style-src")):
        (inline,) = re.findall(f"{tag}(.*?)</{tag[1:]}", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert "style" not in {key for _, attrs in Read(text).elements for key in attrs}


@pytest.mark.parametrize("names", [("vit",), ("cnn",), ("vit", "cnn")])
def test_nothing_on_the_page_leads_anywhere(written, names):
    text = written(*names)
    read = Read(text)
    for name in ("src", "href", "srcset", "poster", "data", "action", "background", "ping"):
        assert all(value.startswith("data:image/") for value in read.attributes(name)), name
    assert not {"link", "iframe", "object", "embed", "a", "form"} & {
        tag for tag, _ in read.elements
    }
    assert not re.search(r"https?:|//\w+\.|url\(|@import|fetch\(|XMLHttp|WebSocket|import\(", text)


@pytest.mark.slow
def test_the_page_of_a_vit_b_takes_no_more_than_3_megabytes(place, monkeypatch):
    torch.manual_seed(0)
    named = {i: f"dish_{i}" for i in range(101)}
    config = transformers.ViTConfig(id2label=named, label2id={b: a for a, b in named.items()})
    model = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessorPil(size=square(224))
    steps = Preprocessing.from_processor(processor)
    subject = Subject("base", Network(model, processor, steps, None, None, "kept"), None)
    monkeypatch.setattr(Subject, "load", lambda *_: subject)
    draw(place / "large.png", height=900, width=1600)
    text = page_of(["base"], place / "large.png")
    assert 1e5 < len(text.encode()) <= 3e6
    assert f"{model.num_parameters():,}" in text


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, options, said",
    [
        (("vit",), {"block": 4}, "--block 4: this network has blocks 1 to 3"),
        (("cnn",), {"block": 1}, "cnn is no ViT; leave the option out"),
        (("cnn", "vit"), {}, "a ViT and a CNN, in this order"),
        (("vit", "other"), {}, "a ViT and a CNN, in this order"),
        (("cnn", "cnn"), {}, "a ViT and a CNN, in this order"),
        (("vit",), {"labels": ["ramen"]}, "label 'ramen' is not known to this model"),
        (("vit",), {"photo": "no.png"}, "no such file"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(written, names, options, said):
    with pytest.raises(UserError) as error:
        written(*names, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_label_that_only_one_of_two_networks_has_is_refused(place, written):
    with pytest.raises(UserError, match="'ramen' is not known to this model"):
        written("other", "cnn", labels=("ramen",))


def test_names_in_the_language_are_on_the_page(place, monkeypatch):
    load = Subject.load
    names = {"ko": {label: f"요리 {label}" for label in LABELS}}

    def named(*args):
        subject = load(*args)
        merge_block(subject.network.model.config, names=names)
        return subject

    monkeypatch.setattr(Subject, "load", named)
    text = page_of([place / "vit"], place / "dinner.png", language="ko")
    assert all(strong.startswith("요리 ") for strong in Read(text).of("strong"))
    # Where there are none in the language, labels are made readable.
    english = page_of([place / "vit"], place / "dinner.png", language="en")
    assert not any(strong.startswith("요리 ") for strong in Read(english).of("strong"))


def test_a_deit_has_its_second_token(place):
    save_vit(place / "deit", vit(kind="DeiT"))
    text = page_of([place / "deit"], place / "dinner.png")
    paragraphs = " ".join(Read(text).of("p"))
    assert (
        "DeiT's distillation token" in paragraphs and "the first 2 of the 18 tokens" in paragraphs
    )
    assert "cls_classifier, distillation_classifier" in Read(text).of("code")
