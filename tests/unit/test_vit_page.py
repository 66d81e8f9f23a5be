# SPDX-License-Identifier: Apache-2.0
"""docs/vit.md and the pages beside it: links to lines, counts of parameters, made by the code of today."""

import re
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from inference.apps.explain.page import digest, read_source

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "vit.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\[`(\w+)`\]\(([\w./]+\.py)#L(\d+)\)", TEXT)


@pytest.mark.parametrize(("name", "path", "line"), LINKS)
def test_a_link_leads_to_the_line_that_defines_its_name(name, path, line):
    lines = (DOCS / path).read_text(encoding="utf-8").splitlines()
    defined = [i for i, text in enumerate(lines, 1) if re.match(rf"(def|class) {name}\b", text)]
    assert [int(line)] == defined, f"{path}: {name} is defined in line {defined}"


def test_every_link_is_looked_at():
    assert len(LINKS) == TEXT.count(".py#L") > 8
    for path in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (DOCS / path).is_file(), path


def test_the_counts_are_those_of_vit_b():
    with torch.device("meta"):
        model = ViTForImageClassification(ViTConfig(num_labels=101))
    found = {
        "patch_embeddings.projection": 0, "cls_token": 0, "attention": 0, "mlp": 0, "LayerNorms": 0,
        "classifier": 0,
    }  # fmt: skip
    for name, parameter in model.named_parameters():
        name = name.replace("position_embeddings", "cls_token").replace("layernorm", "LayerNorms")
        (part,) = [each for each in found if each in name]
        found[part] += parameter.numel()
    for part, count in found.items():
        assert re.search(rf"^\|.*{part}.*\| {count:,} \|$", TEXT, re.M), (part, count)
    assert f"| together | | {sum(found.values()):,} |" in TEXT


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_of_a_drawn_dish_is_made_by_the_code_of_today(language):
    """Else: make it again, by the commands in docs/explain.md."""
    page = (DOCS / f"explained_{language}.html").read_text(encoding="utf-8")
    assert f'<html lang="{language}">' in page and "dish.jpg" in page
    for name in ("page.js", "page.css"):
        assert digest(read_source(name)) in page, name
    keys = re.findall(r"<section id=\"(\w+)\"", page)
    assert keys == ["photo", "patches", "embedding", "class_token", "positions", "attention", "block",
                    "head", "why", "table"]  # fmt: skip
