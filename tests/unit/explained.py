# SPDX-License-Identifier: Apache-2.0
"""Toy networks and photographs to make pages of, and what a reader sees of a page."""

import base64
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from inference.apps.explain.page import measure, render
from tests.unit.backbones import processor_of, save_backbone
from tests.unit.pictures import LABELS, photo, square

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
SHAPE |= {"intermediate_size": 48, "image_size": 32, "initializer_range": 0.3}


def vit(labels: list[str] = LABELS, kind: str = "ViT", seed: int = 0, **values: Any) -> Any:
    """A ViT, or `kind` DeiT, whose every parameter is drawn: biases and tokens begin as 0 else."""
    torch.manual_seed(seed)
    named = {"id2label": dict(enumerate(labels)), "label2id": {b: a for a, b in enumerate(labels)}}
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **named, **values})
    name = {"DeiT": "DeiTForImageClassificationWithTeacher"}.get(
        kind, f"{kind}ForImageClassification"
    )
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def pixels(size: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def save_vit(folder: Path, model: Any = None, **values: Any) -> Path:
    """A release of a ViT, without its card and code."""
    model = vit(**values) if model is None else model
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size=square(model.config.image_size)).save_pretrained(folder)
    return folder


def save_cnn(folder: Path, labels: list[str] = LABELS, name: str = "resnet") -> Path:
    """A CNN that sees 64 pixels, so that a grid is left of them."""
    save_backbone(folder, name, labels, **({"image_size": 64} if name == "convnext" else {}))
    processor = processor_of(name)
    processor.size = {"shortest_edge": 64}
    processor.save_pretrained(folder)
    return folder


def draw(path: Path, seed: int = 0, **sides: int) -> Path:
    """A photograph in a file; PNG, so that it is the same with every decoder."""
    photo(seed=seed, **sides).save(path, "PNG")
    return path


def written(models: list[Path], photo: Path, labels=(), language="en", block=None) -> str:
    """The page, as `food101 explain` writes it."""
    facts = measure([str(model) for model in models], str(photo), labels, language, block)
    return render(facts, language)


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    """The numbers that `as_bytes` kept, within half a step of what they were."""
    found = np.frombuffer(base64.b64decode(packed["data"]), np.uint8).reshape(packed["shape"])
    return packed["low"] + found / 255 * (packed["high"] - packed["low"])


def step_of(packed: dict[str, Any]) -> float:
    """How far apart two neighbouring numbers of `as_bytes` are."""
    return (packed["high"] - packed["low"]) / 255


class Read(HTMLParser):
    """A page as a browser takes it: elements with their attributes, and the text of each."""

    LEAVES = (
        "p",
        "figcaption",
        "h1",
        "h2",
        "title",
        "th",
        "td",
        "code",
        "script",
        "style",
        "strong",
    )

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.LEAVES:
            self._open.append((tag, []))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.LEAVES:
            name, words = self._open.pop()
            assert name == tag
            self.texts.append((tag, " ".join("".join(words).split())))

    def handle_data(self, data: str) -> None:
        for _, words in self._open:
            words.append(data)

    def of(self, tag: str) -> list[str]:
        """The texts of all elements of a kind."""
        return [text for name, text in self.texts if name == tag]

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.elements if name in attrs]
