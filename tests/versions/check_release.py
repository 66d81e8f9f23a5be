# SPDX-License-Identifier: Apache-2.0
"""Load a release in whatever environment this runs in, and print what it answers, as JSON.

    python check_release.py FOLDER [--hub user/repo]

It stands alone: it imports what a user of a release has (torch, transformers, numpy, Pillow) and
nothing of this project, whose folder is taken off the path. The pictures are made by code, so they are
the same in every environment. `run.py` beside it compares the answers.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import io
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageClassification, ViTImageProcessor, pipeline

Scores = dict[str, float]  # label -> score, of one picture


# ---- pictures ---------------------------------------------------------------------------------


def photo(seed: int, height: int = 60, width: int = 84) -> Image.Image:
    """Draw smooth noise, in which neighbours are alike as in a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    # By arithmetic alone: Pillow's own resize may round differently in another version.
    down, across = (np.arange(n) / 8 for n in (height, width))
    top, left = down.astype(int)[:, None], across.astype(int)[None]
    y, x = (down - down.astype(int))[:, None, None], (across - across.astype(int))[None, :, None]
    upper = coarse[top, left] * (1 - x) + coarse[top, left + 1] * x
    lower = coarse[top + 1, left] * (1 - x) + coarse[top + 1, left + 1] * x
    return Image.fromarray((upper * (1 - y) + lower * y).astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """Make one file of each kind: the name of the file says which."""
    upright = Image.Exif()
    upright[0x0112] = 6
    clear = photo(1)
    clear.putalpha(photo(2).convert("L"))
    deep = np.asarray(photo(3).convert("L")).astype(np.uint16) * 257
    return {
        "RGB.png": encode(photo(0)),
        "RGB.jpg": encode(photo(0), "JPEG", quality=95),
        "EXIF 6.jpg": encode(photo(4), "JPEG", quality=95, exif=upright),
        "RGBA.png": encode(clear),
        "16-bit.png": encode(Image.fromarray(deep)),
        "CMYK.jpg": encode(photo(5).convert("CMYK"), "JPEG", quality=95),
        "gray.png": encode(photo(6).convert("L")),
        "palette.png": encode(photo(7).quantize(64)),
        "tall.png": encode(photo(8, 150, 50)),
    }


# ---- ways to load a release ---------------------------------------------------------------------


def with_stock(model: str, files: list[Path]) -> dict[str, Scores]:
    """Score the files with transformers' own pipeline, which reads paths."""
    classify = pipeline("image-classification", model=model, device="cpu")
    return {path.name: by_label(classify(str(path), top_k=100)) for path in files}


def with_food(model: str, files: list[Path]) -> dict[str, Scores]:
    """Score the files and every other form of input with the pipeline that the release brings."""
    classify = pipeline(model=model, trust_remote_code=True, device="cpu")
    if type(classify).__name__ != "FoodClassificationPipeline":
        raise RuntimeError(f"{model} loads as {type(classify).__name__}")
    found = {path.name: by_label(classify(str(path), top_k=100)) for path in files}
    for name, answers in forms(classify, files).items():
        for path, answer in zip(files, answers, strict=True):
            found[f"{name}: {path.name}"] = by_label(answer)
    return found


def forms(classify: Callable, files: list[Path]) -> dict[str, list]:
    """Give the same files in other forms; each answers in the order of the files."""
    data = [path.read_bytes() for path in files]
    text = [base64.b64encode(each).decode() for each in data]
    damaged = classify([b"", *data], top_k=100, on_error="return", batch_size=4)
    if set(damaged[0][0]) != {"error"}:
        raise RuntimeError(f"a damaged image is answered by {damaged[0]}")
    decided = classify(files, top_k=100, abstain=0.8, coverage=0.9)
    check_answers(classify, decided)
    told = classify(files, top_k=100, not_food=True)
    check_told(told)
    if not isinstance(classify(files[0], abstain=None, not_food=None, explain=None), list):
        raise RuntimeError("where None asks for nothing, the answer is no list")
    explained = classify(files, top_k=100, explain=True, batch_size=4)
    with ThreadPoolExecutor(8) as pool:
        threads = list(pool.map(lambda each: classify(each, top_k=100), data))
    return {
        "Path": [classify(path, top_k=100) for path in files],
        "bytes": [classify(each, top_k=100) for each in data],
        "PIL": [classify(Image.open(io.BytesIO(each)), top_k=100) for each in data],
        "list": classify(files, top_k=100),
        "list in batches of 4": classify(files, top_k=100, batch_size=4),
        "generator": list(classify((each for each in data), top_k=100)),
        "iterator": list(classify(iter(files), top_k=100)),
        "dataset": list(classify(Files(data), top_k=100)),
        "BytesIO": classify([io.BytesIO(each) for each in data], top_k=100),
        "base64": classify(text, top_k=100),
        "data URL": classify([f"data:image/png;base64,{each}" for each in text], top_k=100),
        "beside a damaged one": damaged[1:],
        "with abstain and coverage": [each["labels"] for each in decided],
        "with not_food": [with_verdict(each) for each in told],
        "with explain": [each["labels"] for each in explained],
        "map": [shares(each["explanation"]["map"]) for each in explained],
        "eight threads": threads,
        "saved and loaded": saved(classify)(files, top_k=100, timeout=1),
    }


def check_answers(classify: Any, decided: list[dict[str, Any]]) -> None:
    """Compare answers with what the numbers in the model's config make of their scores."""
    stored = classify.model.config.food_classification
    least, lowest = stored["thresholds"]["0.8"], stored["sets"]["0.9"]
    for each in decided:
        rows = each["labels"]
        wanted = {
            "labels": rows,
            "answered": rows[0]["score"] >= least,
            "set": [row for row in rows if row["score"] >= lowest],
            "not_food": None,
        }
        if each != wanted:
            raise RuntimeError(f"abstain and coverage are answered by {each}, not by {wanted}")
    if len({each["answered"] for each in decided}) != 2:
        raise RuntimeError("abstain answers all of the pictures, or none")


def check_told(told: list[dict[str, Any]]) -> None:
    """Find some of the pictures too far from food, and some not; nothing else is said of them."""
    if {(each["answered"], each["set"]) for each in told} != {(None, None)}:
        raise RuntimeError(f"not_food alone is answered by {told[0]}")
    if {each["not_food"] for each in told} != {True, False}:
        raise RuntimeError("not_food refuses all of the pictures, or none")


def with_verdict(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Put the verdict among the scores, so that versions are compared by it too."""
    return [*answer["labels"], {"label": "not_food", "score": float(answer["not_food"])}]


class Files(torch.utils.data.Dataset):
    """A data set as transformers' documentation hands one to a pipeline."""

    def __init__(self, data: list[bytes]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: int) -> bytes:
        return self.data[position]


def saved(classify: Any) -> Any:
    """Save a pipeline that was loaded with its code, and load that."""
    with tempfile.TemporaryDirectory() as folder:
        classify.save_pretrained(folder)
        return pipeline(model=folder, trust_remote_code=True, device="cpu")


def with_the_bare_model(folder: str, files: list[Path]) -> dict[str, Scores]:
    """Score the files with decode_image, Preprocessing and the model, without any pipeline."""
    sys.path.insert(0, folder)
    from food_images import Preprocessing, decode_image

    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    steps = Preprocessing.from_processor(ViTImageProcessor.from_pretrained(folder))
    found = {}
    for path in files:
        pixels = steps.crop(decode_image(path))[None]
        with torch.inference_mode():
            scores = model(pixel_values=steps.normalize(pixels)).logits[0].softmax(-1)
        found[path.name] = {
            model.config.id2label[i]: score for i, score in enumerate(scores.tolist())
        }
    return found


def with_the_handler(folder: str, files: list[Path]) -> dict[str, Scores]:
    """Score the files by requests to the handler, which is imported as the endpoint's toolkit does."""
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("handler.py", Path(folder) / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(folder)
    data = [path.read_bytes() for path in files]
    text = [base64.b64encode(each).decode() for each in data]
    every = {"parameters": {"top_k": 100}}
    decided = handler(
        {"inputs": text, "parameters": {"top_k": 100, "abstain": 0.8, "coverage": 0.9}}
    )
    check_answers(handler, decided)
    told = handler({"inputs": text, "parameters": {"top_k": 100, "not_food": True}})
    check_told(told)
    given = {
        "base64": [handler({"inputs": each, **every}) for each in text],
        "data URL": [
            handler({"inputs": f"data:image/png;base64,{each}", **every}) for each in text
        ],
        "PIL": [handler({"inputs": Image.open(io.BytesIO(each)), **every}) for each in data],
        "list": handler({"inputs": text, **every}),
        "with abstain and coverage": [each["labels"] for each in decided],
        "with not_food": [with_verdict(each) for each in told],
    }
    return {
        f"{name}: {path.name}": by_label(answer)
        for name, answers in given.items()
        for path, answer in zip(files, answers, strict=True)
    }


def shares(of_patches: np.ndarray) -> list[dict[str, Any]]:
    """Write a map as rows of scores: it has to be the same everywhere, as they have."""
    return [
        {"label": str(place), "score": float(share)} for place, share in np.ndenumerate(of_patches)
    ]


def by_label(rows: list[dict[str, Any]]) -> Scores:
    return {row["label"]: row["score"] for row in rows}


# ---- the program --------------------------------------------------------------------------------


def tried(way: Callable, *args: Any) -> dict[str, Any]:
    """Take one way; what it raises is an answer too."""
    try:
        return {"scores": way(*args)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}


def versions() -> dict[str, str]:
    import huggingface_hub
    import PIL

    modules = (transformers, huggingface_hub, torch, np)
    found = {module.__name__: module.__version__ for module in modules}
    return {**found, "pillow": PIL.__version__, "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a release")
    parser.add_argument("--hub", metavar="REPO", help="the same release on the Hub of HF_ENDPOINT")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        files = []
        for name, data in pictures().items():
            files.append(Path(place) / name)
            files[-1].write_bytes(data)
        ways = {
            "stock": tried(with_stock, args.folder, files),
            "food": tried(with_food, args.folder, files),
        }
        if args.hub:
            ways["food, from the Hub"] = tried(with_food, args.hub, files)
        ways["bare model"] = tried(with_the_bare_model, args.folder, files)
        ways["handler"] = tried(with_the_handler, args.folder, files)
    json.dump({"versions": versions(), "ways": ways}, sys.stdout)


if __name__ == "__main__":
    main()
