"""From a photograph and one or two networks to one HTML page that stands alone."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import torch
import transformers
import yaml
from markupsafe import Markup

from inference.apps.explain import cnn, vit
from inference.apps.explain.subject import Subject, answers, read_photo, seen_input, shown_photo
from inference.food_explain import vit_parts
from training.common.errors import UserError
from training.model.config_block import read_block

LANGUAGES = ("en", "ko")  # in which words_*.yaml lies here
CHART = (640, 220)  # width and height of a drawing


def measure(
    models: Sequence[str],
    photo: str,
    labels: Sequence[str] = (),
    language: str = "en",
    block: int | None = None,
    revision: str | None = None,
    max_image_pixels: int | None = None,
) -> dict[str, Any]:
    """Measure everything that the page of one photograph says: JSON values, for `render`.

    Args:
        models: one run, release or Hub id; or a ViT and a CNN that is shown beside it.
        photo: path of an image file.
        labels: to explain, beside the answer and the runner-up.
        language: of the page and of the dishes' names, one of `LANGUAGES`.
        block: the one that is shown from inside, from 1; None: the middle one.
        revision: commit, tag or branch of the first model on the Hub.
        max_image_pixels: limit on the photograph's width x height; None: `MAX_IMAGE_PIXELS`.

    Raises:
        UserError: a model or photograph that cannot be read or explained, an unknown label, a block
            that is not there.
    """
    pixels = read_photo(
        photo, max_image_pixels
    )  # first: it is the quickest thing that can be wrong
    subjects = [Subject.load(models[0], revision), *map(Subject.load, models[1:])]
    kinds = [subject.is_vit for subject in subjects]
    if len(subjects) == 2 and kinds != [True, False]:
        raise UserError(
            f"{' and '.join(models)}: beside each other are shown a ViT and a CNN, in this order; give "
            "two such models, or one"
        )
    facts = _facts(subjects[0], pixels, list(labels), language, block)
    facts["photo"] |= {"name": _writable(re.split(r"[\\/]", str(photo))[-1])}
    if len(subjects) == 2:
        facts["cnn"] = _cnn(subjects[1], pixels, list(labels), language)
    return facts


def _facts(
    subject: Subject, photo: np.ndarray, labels: list[str], language: str, block: int | None
) -> dict[str, Any]:
    """Measure everything that the page of a network says; JSON values."""
    model, steps = subject.network.model, subject.network.preprocessing
    answer, values = answers(subject, photo, labels, _names_in(subject, language))
    facts = {
        "model": _model(subject),
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "accuracy": subject.accuracy(),
        "photo": shown_photo(photo, steps),
        "input": seen_input(photo, values, steps),
        "answer": answer,
        "table": vit.parameters(model),
        "cnn": None,
    }
    if (parts := vit_parts(model)) is None:
        if block is not None:
            raise UserError(f"--block {block}: {subject.name} is no ViT; leave the option out")
        return facts | {"patches": None, "filters": cnn.filters(model)}
    last = len(parts.blocks)
    if block is not None and not 1 <= block <= last:
        raise UserError(f"--block {block}: this network has blocks 1 to {last}")
    shown = last // 2 if block is None else block - 1
    return facts | vit.anatomy(model, parts, values, shown)


def _cnn(subject: Subject, photo: np.ndarray, labels: list[str], language: str) -> dict[str, Any]:
    """Measure what is shown of the network beside the first one."""
    answer, values = answers(subject, photo, labels, _names_in(subject, language))
    return {
        "model": _model(subject),
        "accuracy": subject.accuracy(),
        "input": seen_input(photo, values, subject.network.preprocessing),
        "answer": answer,
        "filters": cnn.filters(subject.network.model),
    }


def _names_in(subject: Subject, language: str) -> str | None:
    """Return the language if the model has names in it; else None, by which labels are made readable."""
    names = read_block(subject.network.model.config).get("names") or {}
    return language if language in names else None


def _model(subject: Subject) -> dict[str, Any]:
    model = subject.network.model
    words = [word for word in re.split(r"[\\/]", subject.name) if word not in ("", ".", "model")]
    return {
        "name": _writable(words[-1] if subject.folder and words else subject.name),
        "class": type(model).__name__,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "labels": model.config.num_labels,
    }


def _writable(name: str) -> str:
    """Put ? for the bytes of a file's name that are no UTF-8: no file in UTF-8 can hold them."""
    return name.encode("utf-8", "replace").decode()


# ---- words and numbers ---------------------------------------------------------------------------


def words(language: str) -> dict[str, Any]:
    """Read what the page says in a language."""
    source = files("inference.apps.explain").joinpath(f"words_{language}.yaml")
    return yaml.safe_load(source.read_text(encoding="utf-8"))


def percent(share: float) -> str:
    """Write a share as percents: 12.3 %, 0.04 %, 100 %; beside 0 and 1 as less and more than these."""
    value, space = 100 * share, "\N{NO-BREAK SPACE}"
    if 0 < value < 0.001:
        return f"<{space}0.001{space}%"
    if 99.95 <= value < 100:
        return f">{space}99.9{space}%"
    digits = ".0f" if value in (0, 100) else ".2g" if value < 0.1 else ".1f"
    return f"{value:{digits}}{space}%"


def shape(sizes: Sequence[int]) -> str:
    """Write the shape of an array: 384 × 3 × 14 × 14."""
    return " × ".join(str(size) for size in sizes)


def with_code(text: str) -> str:
    """Set what stands between backticks as code: in our words, before a name is put into them."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read_source),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "n": lambda value: f"{value:,}",
        "f": lambda value: f"{value:.2f}",
        "pct": percent,
        "shape": shape,
    }
    return environment


def read_source(name: str) -> str:
    """Read a file that lies here: the template, the style, the script."""
    return files("inference.apps.explain").joinpath(name).read_text(encoding="utf-8")


# ---- the page ------------------------------------------------------------------------------------


def render(facts: dict[str, Any], language: str) -> str:
    """Write the HTML of what was measured: a pure function, the same facts give the same page."""
    environment = _environment()
    told = words(language)

    def say(key: str, **more: Any) -> Markup:
        text = told
        for part in key.split("."):
            text = text[part]
        return Markup(environment.from_string(with_code(text)).render({**facts, **more}))

    script, style = read_source("page.js"), read_source("page.css")
    return environment.get_template("page.html").render(
        **facts,
        language=language,
        say=say,
        script=Markup(script),
        style=Markup(style),
        script_hash=digest(script),
        style_hash=digest(style),
        charts=_charts(facts),
        for_script=_for_script(facts, told),
        brightest=_brightest(facts["answer"]),
    )


def digest(text: str) -> str:
    """Compute what a Content-Security-Policy calls a script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _for_script(facts: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """Choose what the script draws from."""
    keys = ("own", "chosen", "chosen_token")
    found = {
        "grid": facts["answer"]["grid"],
        "why": [each["map"] for each in facts["answer"]["why"]],
        "words": {key: told[key] for key in keys},
    }
    if facts["patches"]:
        block = facts["block"]
        found |= {
            "patches": facts["patches"],
            "alike": {key: facts["positions"][key] for key in ("alike", "kept")},
            "attention": facts["attention"],
            "block": {
                key: block[key]
                for key in ("kept", "qkv", "rows", "heads", "head_width", "tokens", "largest")
            },
        }
    if facts["cnn"]:
        found["cnn"] = {
            "grid": facts["cnn"]["answer"]["grid"],
            "why": [each["map"] for each in facts["cnn"]["answer"]["why"]],
        }
    return found


def _brightest(answer: dict[str, Any]) -> list[float]:
    """Compute for each map which share its brightest tenth of the patches holds."""
    found = []
    for each in answer["why"]:
        values = np.frombuffer(base64.b64decode(each["map"]["data"]), np.uint8).astype(float)
        tenth = np.sort(values)[-max(1, round(len(values) / 10)) :]
        found.append(float(tenth.sum() / max(values.sum(), 1)))
    return found


# ---- drawings ------------------------------------------------------------------------------------


def _charts(facts: dict[str, Any]) -> dict[str, Any]:
    """Compute the paths of the drawings, in the coordinates of an SVG of the size `CHART`."""
    if not facts["patches"]:
        return {}
    return {
        "size": CHART,
        "activation": _activation_chart(facts["block"]["activation"]),
        "stream": _stream_chart(facts["stream"]["steps"]),
    }


def _activation_chart(activation: dict[str, Any]) -> dict[str, Any]:
    """Draw the histogram of the values below the curve that they go through, and ReLU."""
    width, height = CHART
    low, high = activation["low"], activation["high"]
    bottom, top = -0.5, high

    def x(value: float) -> float:
        return round((value - low) / (high - low) * width, 1)

    def y(value: float) -> float:
        return round(height - (value - bottom) / (top - bottom) * height, 1)

    counts = activation["counts"]
    bar = width / len(counts)
    most = max(counts)
    return {
        "bars": [
            {
                "x": round(i * bar, 1),
                "width": round(bar - 0.6, 1),
                "height": round(count / most * height * 0.9, 1),
            }
            for i, count in enumerate(counts)
        ],
        "curve": _path(activation["curve"], x, y),
        "relu": _path([(low, 0.0), (0.0, 0.0), (high, high)], x, y),
        "zero": x(0.0),
        "floor": y(0.0),
        "marks": [{"x": x(value), "text": f"{value:g}"} for value in (-3, -2, -1, 0, 1, 2, 3)],
    }


def _stream_chart(steps: list[dict[str, float]]) -> dict[str, Any]:
    """Draw how long the vectors are before the first block and after each."""
    width, height = CHART
    most = max(max(each["class_token"], each["patch"]) for each in steps)

    def x(number: float) -> float:
        return round(number / (len(steps) - 1) * (width - 20) + 10, 1)

    def y(value: float) -> float:
        return round(height - value / most * (height - 24) - 4, 1)

    return {
        **{
            key: _path([(i, each[key]) for i, each in enumerate(steps)], x, y)
            for key in ("class_token", "patch")
        },
        "most": most,
        "marks": [{"x": x(i), "text": str(i)} for i in range(len(steps))],
    }


def _path(
    points: Sequence[tuple[float, float]],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> str:
    return "M" + "L".join(f"{x(a)},{y(b)}" for a, b in points)
