# SPDX-License-Identifier: Apache-2.0
"""Load one release with several versions of transformers, compare the answers, write them down.

    make test-versions

For each version an environment of its own is made below a cache folder, and kept there; the release is
a small network made by code. It needs the network (for the packages) and some 2 GB an environment, so
it is no part of `make test`. What it found lies in benchmarks/results/versions.json and docs/versions.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from inference.food_classification import TRIED_WITH
from tests.loopback_hub import LoopbackHub
from training.common.files import read_json, write_json, write_text
from training.evaluation.trust.not_food import settle
from training.hub.contents import CUSTOM_PIPELINES, code_sources, handler_sources
from training.model.config_block import merge_block

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("check_release.py")
RESULTS = ROOT / "benchmarks" / "results" / "versions.json"
PAGE = ROOT / "docs" / "versions.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vit-food101/versions"
TORCH = "2.13.0"
LABELS = "apple_pie baklava fish_and_chips hot_dog miso_soup pho waffles".split()

FARTHEST = 30.9  # between the pictures' distances, as the other numbers of `make_release`

# How far a score of one version may be from the newest one's. Decoding, resizing and the network are
# the same code on the same torch: only rounding is left. The stock pipeline resizes with whatever
# transformers has, which may move a pixel by one of 255.
TOLERANCE = {"stock": 0.02}
OTHERWISE = 1e-5


# ---- the release --------------------------------------------------------------------------------


def make_release(folder: Path) -> None:
    """Write what a release has for loading: weights, processor, config with the pipeline, code, handler."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        initializer_range=0.3,  # as it comes, a fresh model says nearly the same of every image
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    config = read_json(folder / "config.json")
    # Between the pictures' scores: some are answered, some are not.
    merge_block(config, thresholds={"0.8": 0.45}, sets={"0.9": 0.1}, not_food=told(folder))
    write_json(folder / "config.json", {**config, "custom_pipelines": CUSTOM_PIPELINES})
    for path in (*code_sources(), *handler_sources()):
        shutil.copyfile(path, folder / path.name)


def told(folder: Path) -> dict[str, Any]:
    """Write what tells pictures without food, of features that are drawn; what the config says of it."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 32)).astype(np.float32)
    found = settle(features, np.arange(200) % len(LABELS), features[:60], "classifier", 200)
    found.write(folder)
    return {**found.facts, "thresholds": {"0.05": FARTHEST}}


# ---- environments -------------------------------------------------------------------------------


def environment(cache: Path, version: str) -> Path:
    """Make the environment of one version, or find it made; return its python."""
    folder = (
        cache
        / f"transformers-{version}-torch-{TORCH}-py{sys.version_info[0]}.{sys.version_info[1]}"
    )
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if ready.is_file():
        return python
    print(f"installing transformers {version} in {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    torch_ = f"torch=={TORCH}"
    # In two steps: the constraints pin the newest transformers and what belongs to it.
    subprocess.run([*pip, torch_, "-c", ROOT / "constraints.txt"], check=True)
    subprocess.run([*pip, torch_, f"transformers=={version}", "pillow"], check=True)
    ready.touch()
    return python


def answers(python: Path, release: Path, hub: LoopbackHub, repo: str) -> dict[str, Any]:
    """Run the script in one environment; its only Hub is the loopback one, its caches are empty."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [python, SCRIPT, release, "--hub", repo],
            cwd=home,
            env={k: v for k, v in hub.env(Path(home)).items() if k != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=600,
        )
    if done.returncode:
        raise SystemExit(f"error: {SCRIPT.name} failed with {python}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout)


# ---- comparing ----------------------------------------------------------------------------------


def compare(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each environment's answers with those of the last one: a row for each way and version."""
    rows = []
    for each in found:
        for way, outcome in each["ways"].items():
            row = {"transformers": each["versions"]["transformers"], "way": way}
            against = found[-1]["ways"][way]
            if error := outcome.get("error") or against.get("error"):
                rows.append({**row, "same": False, "error": error})
                continue
            gap = largest_gap(outcome["scores"], against["scores"])
            same = gap <= TOLERANCE.get(way, OTHERWISE)
            rows.append({**row, "same": same, "answers": len(outcome["scores"]), "gap": gap})
    return rows


def largest_gap(ours: dict[str, dict], theirs: dict[str, dict]) -> float:
    """Find the largest difference of a score; infinite where pictures or labels are not the same."""
    if {k: sorted(v) for k, v in ours.items()} != {k: sorted(v) for k, v in theirs.items()}:
        return float("inf")
    return max(abs(ours[n][label] - theirs[n][label]) for n in ours for label in ours[n])


def inside(ways: dict[str, Any]) -> dict[str, float]:
    """Compare the ways of one environment with each other, on the files that all of them took."""
    scores = {way: outcome["scores"] for way, outcome in ways.items() if "scores" in outcome}
    bare = scores["bare model"]
    plain = {"RGB.png", "RGB.jpg", "EXIF 6.jpg", "palette.png", "gray.png", "CMYK.jpg"}
    gaps = {}
    for way, found in scores.items():
        # Only the food pipeline promises the rest: see the card.
        names = plain if way == "stock" else bare.keys()
        if way == "handler":
            found = {name: found[f"base64: {name}"] for name in names}
        gaps[way] = largest_gap({n: found[n] for n in names}, {n: bare[n] for n in names})
    return gaps


# ---- writing down -------------------------------------------------------------------------------


def record(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "command": "make test-versions",
        "date": date.today().isoformat(),
        "tolerance": {"stock": TOLERANCE["stock"], "every other way": OTHERWISE},
        "code_sha256": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (*code_sources(), *handler_sources())
        },
        "environments": [{**each["versions"], "to_bare": inside(each["ways"])} for each in found],
        "rows": compare(found),
    }


def page(result: dict[str, Any]) -> str:
    """Write docs/versions.md from the record: the same record gives the same page."""
    rows = result["rows"]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    packages = ("transformers", "huggingface_hub", "torch", "numpy", "pillow", "python")
    lines = ["| " + " | ".join(packages) + " |", "| --- " * len(packages) + "|"]
    for each in result["environments"]:
        lines.append("| " + " | ".join(each[name] for name in packages) + " |")
    gaps = ["| transformers | " + " | ".join(ways) + " |", "| --- " * (len(ways) + 1) + "|"]
    for each in result["environments"]:
        cells = {r["way"]: r for r in rows if r["transformers"] == each["transformers"]}
        gaps.append(
            f"| {each['transformers']} | " + " | ".join(_cell(cells[w]) for w in ways) + " |"
        )
    count = {row["way"]: row["answers"] for row in rows if "answers" in row}
    counts = "; ".join(f"{way}: {n}" for way, n in count.items())
    stock = max(each["to_bare"].get("stock", 0) for each in result["environments"])
    food = max(
        gap
        for each in result["environments"]
        for way, gap in each["to_bare"].items()
        if way != "stock"
    )
    newest = result["environments"][-1]["transformers"]
    return PAGE_TEXT.format(
        versions="\n".join(lines),
        gaps="\n".join(gaps),
        newest=newest,
        counts=counts,
        stock_tolerance=result["tolerance"]["stock"],
        tolerance=result["tolerance"]["every other way"],
        stock=f"{stock:.1g}",
        food=f"{food:.1g}",
        date=result["date"],
        code="\n".join(f"| `{name}` | `{sha}` |" for name, sha in result["code_sha256"].items()),
    )


def _cell(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"fails: {row['error']}".replace("|", "\\|")
    return f"{row['gap']:.1g}" + ("" if row["same"] else " (too much)")


PAGE_TEXT = """# Versions that a release was loaded with

Written by `make test-versions` on {date} (record: `benchmarks/results/versions.json`). One small release,
made by code, was loaded in an environment of its own for each version:

{versions}

Largest difference of a score from transformers {newest}, over all labels of all answers ({counts}):

{gaps}

Allowed: {stock_tolerance} for the stock pipeline, whose resize is of the version at hand, and {tolerance} for every
other way.

- **stock**: `pipeline("image-classification", FOLDER)`; no code of the release is run.
- **food**: `pipeline(model=FOLDER, trust_remote_code=True)`, with every picture as text path, `Path`, bytes, PIL image,
  open file, base64 and data: URL; in a list, in batches, from a generator, an iterator and a data set, beside a
  damaged one, with `abstain` and `coverage`, with `not_food`, with `explain` (the maps are compared too), in eight
  threads, and after `save_pretrained` and loading that. All files of code travel, since the first imports the others.
- **food, from the Hub**: the same by name, from the loopback Hub of the tests, into an empty cache.
- **bare model**: `decode_image`, `Preprocessing` and the model without a pipeline, as a server uses them.
- **handler**: `handler.py`, imported as an Inference Endpoint does, with every picture in base64, as a data: URL, as a
  PIL image, and all of them in one request, also with `abstain` and `coverage`, and with `not_food`.

The pictures: PNG, JPEG, EXIF orientation 6, RGBA, 16 bits, CMYK, gray, palette, one that is tall. Within an
environment, food pipeline and bare model differ by {food} at most, stock pipeline and bare model by {stock} on
pictures that both promise to read (RGB, EXIF, palette, gray, CMYK).

The files that were loaded (a card shows the sums of its own):

| file | SHA-256 |
| --- | --- |
{code}

Not run: Python 3.10 and 3.12, torch 2.5 (which the endpoint toolkit of Hugging Face pins beside transformers
4.51.3) and every other torch than the one above, torchvision (with it the stock pipeline resizes otherwise), a GPU,
the real Hub.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE, help="default: %(default)s")
    parser.add_argument(
        "--versions", nargs="+", default=TRIED_WITH, help="the last is compared with"
    )
    parser.add_argument("--no_record", action="store_true", help="write no file, only say it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, LoopbackHub() as hub:
        release = Path(place) / "food-vit"
        make_release(release)
        hub.add_repo("user/food-vit", release)
        found = [
            answers(environment(args.cache, version), release, hub, "user/food-vit")
            for version in args.versions
        ]
    result = record(found)
    if not args.no_record:
        write_json(RESULTS, result)
        write_text(PAGE, page(result))
    for row in result["rows"]:
        print(f"{row['transformers']:>8}  {row['way']:<20}{_cell(row)}")
    if not all(row["same"] for row in result["rows"]):
        raise SystemExit("error: a version gives other answers: see the lines above")


if __name__ == "__main__":
    main()
