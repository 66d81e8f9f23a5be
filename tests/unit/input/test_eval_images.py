# SPDX-License-Identifier: Apache-2.0
"""Evaluation images that are decoded once: the same pixels, bounded, never those of other images."""

import dataclasses
import hashlib
import logging
import multiprocessing
import os
import signal
import time
from collections import namedtuple
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image

from inference import food_images
from inference.food_images import Preprocessing, decode_image
from tests.unit.toys import LABELS, jpeg, tiny_network, tiny_settings
from training.common import machine
from training.common.errors import UserError
from training.data import array_store
from training.data.array_store import cache_folder
from training.data.splits import Source, Split, Splits
from training.engine.wiring import build_trainer
from training.evaluation import scoring as evaluation
from training.evaluation.report import evaluate_model
from training.input import eval_images as pixel_cache
from training.input.batch import collate
from training.input.eval_images import CachedImages, EvalImages, cache_key, evaluation_images

SIZE = Preprocessing(16, 12, None, "bilinear", (0.5,) * 3, (0.5,) * 3, 1 / 255)
SPLIT_GB = 10 * 16 * 12 * 3 / array_store.GB  # ten images, without the header of 128 bytes
fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder that the cache would make."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets" / "vit-food101"


def split_of(images: list[bytes], labels: list[int] | None = None) -> Split:
    labels = labels or [i % 3 for i in range(len(images))]
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=LABELS)})
    rows = {"image": [{"bytes": data, "path": None} for data in images], "label": labels}
    content = tuple(hashlib.sha256(data).hexdigest() for data in images)
    return Split("validation", Dataset.from_dict(rows, features), LABELS, "f" * 64, content)


def ten(seed: int = 0) -> Split:
    return split_of([jpeg(seed + i, (40 + i, 36)) for i in range(10)])


def images_of(split: Split, limit_gb: float = 1.0, preprocessing: Preprocessing = SIZE):
    return evaluation_images(split, preprocessing, limit_gb)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse(*args: object) -> None:
    raise AssertionError("decoded again")


# ---- the pixels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "positions", [[0, 1, 2], [7, 8, 9], [4], [9, 0, 1], [3, 3, 2], [2, 9, 4]], ids=str
)
def test_a_batch_is_what_decoding_gives(positions):
    split = ten()
    cached, decoded = images_of(split), EvalImages(split.dataset, SIZE)
    assert isinstance(cached, CachedImages) and len(cached) == 10
    ours, theirs = (collate(images.__getitems__(positions)) for images in (cached, decoded))
    assert set(ours) == set(theirs) == {"pixel_values", "labels"}
    for key, value in theirs.items():
        assert torch.equal(ours[key], value) and ours[key].dtype == value.dtype
        assert ours[key].stride() == value.stride()  # another layout would be another rounding
    assert torch.equal(cached[positions[0]]["pixel_values"], decoded[positions[0]]["pixel_values"])


def test_pixels_are_the_pipelines_own():
    split = ten()
    images = EvalImages(split.dataset, SIZE)
    assert len(images) == 10
    for i, row in enumerate(split.dataset):
        assert torch.equal(
            images[i]["pixel_values"], SIZE.crop(decode_image(row["image"]["bytes"]))
        )
        assert images[i]["labels"] == i % 3


def test_worker_processes_decode_the_same_in_the_same_order(monkeypatch):
    monkeypatch.setattr(machine, "IMAGES_A_WORKER", 5)
    monkeypatch.setattr(pixel_cache, "BATCH", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert [machine.num_decoders(n) for n in (4, 5, 10, 999)] == [0, 1, 2, 2]
    split = ten()
    decoded = collate(EvalImages(split.dataset, SIZE).__getitems__(list(range(10))))
    assert torch.equal(images_of(split).pixels, decoded["pixel_values"])


def test_the_second_time_nothing_is_decoded(monkeypatch):
    first = images_of(ten())
    monkeypatch.setattr(pixel_cache, "write_pixels", refuse)
    assert torch.equal(images_of(ten()).pixels, first.pixels)


def test_numpy_reads_the_file(cache):
    pixels = images_of(ten()).pixels
    (path,) = cache.glob("eval-*.npy")
    assert np.array_equal(np.load(path), pixels.numpy())


def test_a_write_does_not_reach_the_file():
    images_of(ten()).pixels.zero_()
    assert images_of(ten()).pixels.any()


# ---- the key ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [{"height": 12}, {"width": 16}, {"shortest_edge": 20}, {"resized": (20, 20)},
     {"resample": "bicubic"}],
    ids=str,
)  # fmt: skip
def test_other_preprocessing_is_another_key(values):
    content = ten().content
    assert cache_key(content, SIZE) != cache_key(content, dataclasses.replace(SIZE, **values))


def test_other_images_or_another_order_are_another_key():
    content = ten().content
    keys = {cache_key(c, SIZE) for c in (content, content[::-1], content[:-1], ten(50).content)}
    assert len(keys) == 4


@pytest.mark.parametrize("change", ["decoder", "torch", "processor", "code", "format"])
def test_another_decoder_is_another_key(change, monkeypatch, tmp_path):
    content = ten().content
    before = cache_key(content, SIZE)
    assert cache_key(content, SIZE) == before
    (tmp_path / "changed.py").write_text("# another way to decode")
    owner, name, value = {
        "decoder": (pixel_cache, "decoder_name", lambda: "other 1.0"),
        "torch": (torch, "__version__", "0.1"),
        "processor": (torch.backends.cpu, "get_cpu_capability", lambda: "NONE"),
        "code": (food_images, "__file__", str(tmp_path / "changed.py")),
        "format": (pixel_cache, "FORMAT", 99),
    }[change]
    monkeypatch.setattr(owner, name, value)
    assert cache_key(content, SIZE) != before


def test_normalisation_comes_after_the_cache():
    content = ten().content
    other = dataclasses.replace(SIZE, image_mean=(0, 0, 0), image_std=(1, 1, 1), rescale_factor=1)
    assert cache_key(content, SIZE) == cache_key(content, other)


def test_labels_come_from_the_data_set(monkeypatch):
    encoded = [jpeg(i) for i in range(4)]
    assert images_of(split_of(encoded, [0, 1, 2, 0])).labels.tolist() == [0, 1, 2, 0]
    monkeypatch.setattr(pixel_cache, "write_pixels", refuse)
    assert images_of(split_of(encoded, [2, 2, 1, 1])).labels.tolist() == [2, 2, 1, 1]


def test_a_file_that_changed_since_the_data_was_loaded(cache, tmp_path):
    """Its pixels would stand under the name of the contents that are gone."""
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=LABELS)})
    path = tmp_path / "0.jpg"
    path.write_bytes(jpeg(0))
    rows = {"image": [{"bytes": None, "path": str(path)}], "label": [0]}
    content = (hashlib.sha256(path.read_bytes()).hexdigest(),)
    split = Split("validation", Dataset.from_dict(rows, features), LABELS, "f" * 64, content)
    for change in (lambda: path.write_bytes(jpeg(1)), path.unlink):
        change()
        with pytest.raises(UserError, match="image 0 of validation is not the one that was check"):
            images_of(split)
        assert files(cache) == [".lock"]


# ---- its size ---------------------------------------------------------------------------------


def test_the_least_recently_used_file_goes_first(cache):
    limit = 2.5 * SPLIT_GB
    for age, seed in ((300, 0), (200, 100)):
        images_of(ten(seed), limit)
        (newest,) = [
            path for path in cache.glob("eval-*") if time.time() - path.stat().st_mtime < 99
        ]
        os.utime(newest, (time.time() - age,) * 2)
    kept = images_of(ten(0), limit)  # used: now the other one is the oldest
    images_of(ten(200), limit)
    keys = [cache_key(ten(seed).content, SIZE) for seed in (0, 100, 200)]
    assert [(cache / f"eval-{key}.npy").exists() for key in keys] == [True, False, True]
    assert sum(path.stat().st_size for path in cache.iterdir()) <= limit * array_store.GB
    images_of(ten(300), 1.5 * SPLIT_GB)
    assert len(list(cache.glob("eval-*.npy"))) == 1
    assert torch.equal(kept.pixels, images_of(ten(0)).pixels)  # its file was removed meanwhile


def test_too_many_images_are_one_line_and_no_file(cache, caplog):
    images_of(ten(100))
    with caplog.at_level(logging.INFO, "training"):
        images = images_of(ten(), 0.9 * SPLIT_GB)
    assert isinstance(images, EvalImages)
    # The level is another test's, if that has set up logging.
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line.startswith("the 10 validation images are decoded at each evaluation")
    assert "eval_cache_gb is " in line and "\n" not in line
    assert len(list(cache.glob("eval-*"))) == 1  # the other one was not sacrificed


def test_zero_touches_nothing(cache, caplog):
    assert isinstance(images_of(ten(), 0), EvalImages)
    assert not cache.exists() and not caplog.records


def test_a_disk_that_is_nearly_full(cache, caplog, monkeypatch):
    images_of(ten(100))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        array_store.shutil, "disk_usage", lambda _: usage(0, 0, array_store.RESERVE + 5000)
    )
    assert isinstance(images_of(ten()), EvalImages)
    assert "the disk has 2.00 GB free, 2 are left alone" in caplog.text
    assert len(list(cache.glob("eval-*"))) == 1
    # What would be removed anyway counts as free.
    assert isinstance(images_of(ten(), 1.5 * SPLIT_GB), CachedImages)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_disk_that_fails_is_one_line(cache, caplog, monkeypatch, name):
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_store.os, name, fail)
    assert isinstance(images_of(ten()), EvalImages)
    assert "No space left on device" in caplog.records[-1].getMessage()
    assert files(cache) == [".lock"]


def test_a_folder_that_cannot_be_made(cache, caplog):
    cache.parent.write_text("a file in the way")
    assert isinstance(images_of(ten()), EvalImages)
    assert "decoded at each evaluation" in caplog.records[-1].getMessage()


# ---- what may go wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "short", "long", "header", "other shape"])
def test_a_damaged_file_is_decoded_again(cache, caplog, damage):
    expected = images_of(ten()).pixels.clone()
    (path,) = cache.glob("eval-*.npy")
    whole = path.read_bytes()
    caplog.set_level(logging.WARNING, "training")
    if damage == "other shape":
        np.save(path, expected.numpy().reshape(10, 3, 12, 16))
    else:
        broken = {"empty": b"", "short": whole[:-1], "long": whole + b"\0"}
        path.write_bytes(broken.get(damage, b"\0" * 128 + whole[128:]))
    assert torch.equal(images_of(ten()).pixels, expected)
    assert path.read_bytes() == whole
    # The level is another test's, if that has set up logging.
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line.endswith("is damaged or unreadable: it is made again")


def start(function, *args: object):
    process = fork.Process(target=function, args=args)
    process.start()
    return process


def build_and_die() -> None:
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    pixel_cache.BATCH = 2
    refuse_changed = pixel_cache.refuse_changed
    calls = []

    def die(*args: object) -> None:
        calls.append(1)
        refuse_changed(*args)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    pixel_cache.refuse_changed = die
    images_of(ten())


def test_a_build_that_was_killed(cache):
    process = start(build_and_die)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert [name[:6] for name in files(cache)] == [".eval-", ".lock"]
    assert isinstance(images_of(ten(100)), CachedImages)  # a build of other images clears it away
    assert [name[:5] for name in files(cache)] == [".lock", "eval-"]
    decoded = collate(EvalImages(ten().dataset, SIZE).__getitems__(list(range(10))))
    assert torch.equal(images_of(ten()).pixels, decoded["pixel_values"])


def build_slowly(log: Path, barrier, results) -> None:
    torch.set_num_threads(1)
    write_pixels = pixel_cache.write_pixels

    def slowly(*args: object) -> None:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        write_pixels(*args)

    pixel_cache.write_pixels = slowly
    barrier.wait(30)
    results.put(hashlib.sha256(images_of(ten()).pixels.numpy().tobytes()).hexdigest())


def test_two_processes_at_once_decode_once(tmp_path):
    barrier, results = fork.Barrier(2), fork.Queue()
    processes = [start(build_slowly, tmp_path / "log", barrier, results) for _ in range(2)]
    found = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "built\n"
    assert found[0] == found[1]


# ---- who uses it ------------------------------------------------------------------------------


@pytest.fixture
def seen_workers(monkeypatch) -> list[int]:
    """num_workers of each loader that scores."""
    seen = []

    class Loader(torch.utils.data.DataLoader):
        def __init__(self, *args: object, **kwargs: object) -> None:
            seen.append(kwargs["num_workers"])
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(evaluation, "DataLoader", Loader)
    return seen


def test_the_report_is_the_same_to_the_last_digit(tmp_path, seen_workers):
    network, split = tiny_network(), ten()
    for part in (network.model, network.processor):
        part.save_pretrained(tmp_path / "model")
    found = []
    for cache_gb in (0, 1, 1):
        report, logits = evaluate_model(
            tmp_path / "model", Source("dishes", "local", None), split,
            batch_size=4, num_workers=1, cache_gb=cache_gb,
        )  # fmt: skip
        timing = {"seconds", "images_per_second", "created"}
        found.append(({k: v for k, v in report.items() if k not in timing}, logits.tobytes()))
    assert logits.shape == (10, 3) and logits.dtype == np.float32 and logits.std() > 0
    assert found[0] == found[1] == found[2]
    assert seen_workers == [1, 0, 0]


def test_the_selection_slice_is_scored_from_the_cache_without_workers(tmp_path):
    split = ten()
    splits = Splits(
        Source("d", "local", None), split.dataset, split, split, LABELS, "f", "train", 0.1, 0, 0
    )
    scores = []
    for cache_gb in (0.0, 1.0):
        # A worker that is kept alive makes the collector wait for it, 5 s.
        values = {"dataloader_num_workers": 1, "per_device_eval_batch_size": 4, "seed": 3,
                  "dataloader_persistent_workers": False}  # fmt: skip
        arguments = tiny_settings(tmp_path / str(cache_gb), **values)
        trainer = build_trainer(tiny_network(), splits, arguments, cache_gb)
        loader = trainer.get_eval_dataloader()
        assert loader.num_workers == (0 if cache_gb else 1)
        assert [len(batch["labels"]) for batch in loader] == [4, 4, 2]
        row = trainer.evaluate()
        scores.append({key: row[key] for key in ("eval_loss", "eval_top1", "eval_nll", "eval_ece")})
    assert scores[0] == scores[1]
    assert trainer.get_train_dataloader().num_workers == 1
    assert cache_folder().is_dir()
