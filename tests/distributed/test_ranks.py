"""Two gloo ranks through `accelerate launch`: the same run as one process.

python -m pytest tests/distributed -q
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.integration.conftest import BIN, ROOT, run
from tests.integration.seeds import jpeg
from training.engine.extensions.average_last import AverageLast

pytestmark = pytest.mark.slow

RECIPE = """
model_config:
  {image_size: 32, patch_size: 8, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
   intermediate_size: 64}
total_train_batch_size: 8
num_train_epochs: 2
selection_fraction: 0.25
learning_rate: 1e-3
logging_steps: 1
dataloader_num_workers: 1
auto_augment: trivialaugment
color_jitter: 0.2
random_erasing: 0.3
mixup: 0.8
cutmix: 1.0
drop_path: 0.3
"""
LORA = "tune: lora\nlora_rank: 4\n" + RECIPE[RECIPE.index("total_train_batch_size") :]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three classes; 13 test images, which two ranks cannot share equally."""
    folder = tmp_path_factory.mktemp("data")
    for split, counts in (("train", (16, 16, 16)), ("validation", (5, 4, 4))):
        for label, count in zip(("cheesecake", "cheese_plate", "pizza"), counts, strict=True):
            where = folder / split / label
            where.mkdir(parents=True)
            for i in range(count):
                seed = len(label) * 1000 + i + (500 if split == "validation" else 0)
                (where / f"{i}.jpg").write_bytes(jpeg(seed))
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    extra = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **extra, "ACCELERATE_USE_CPU": "1"}


@pytest.fixture(scope="module")
def train(data, environment, tmp_path_factory):
    """train(ranks, *overrides) -> the run folder, with the world size asserted."""
    recipes = tmp_path_factory.mktemp("recipe")

    def call(ranks: int, *words: str, folder: Path | None = None, text: str = RECIPE) -> Path:
        recipe = recipes / "tiny.yaml"
        recipe.write_text(text)
        folder = folder or tmp_path_factory.mktemp("runs") / "run"
        launch(ranks, recipe, data, folder, environment, *words)
        return folder

    return call


def launch(
    ranks: int, recipe: Path, data: Path, folder: Path, environment: dict[str, str], *words: str
) -> str:
    """Train in so many processes; what was printed."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher = [BIN / "accelerate", "launch", "--multi_gpu", "--num_processes", ranks]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", "0"]
    product = ["-m", "training.train", recipe, "--dataset", data, "--output_dir", folder]
    done = run([*launcher, *product, *words], environment, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert record(folder)["training"]["world_size"] == ranks
    return done.stdout + done.stderr


def record(folder: Path, name: str = "run.json"):
    return json.loads((folder / name).read_text())


def largest_difference(a: Path, b: Path) -> float:
    left, right = (load_file(folder / "model" / "model.safetensors") for folder in (a, b))
    assert set(left) == set(right)
    return max(float(abs(left[name] - right[name]).max()) for name in left)


@pytest.fixture(scope="module")
def one_by_eight(train):
    return train(1, "--per_device_train_batch_size", "8")


@pytest.fixture(scope="module")
def two_by_four(train):
    return train(2, "--per_device_train_batch_size", "4")


def test_batch_invariance(train, one_by_eight, two_by_four):
    """1 x 8, 1 x 4 accumulated twice and 2 ranks x 4: one trajectory, whatever is drawn at random."""
    accumulated = train(1, "--per_device_train_batch_size", "4")
    assert record(accumulated)["training"]["gradient_accumulation_steps"] == 2
    assert record(two_by_four)["training"]["gradient_accumulation_steps"] == 1
    losses = [
        [row["loss"] for row in record(folder, "log_history.json") if "loss" in row]
        for folder in (one_by_eight, accumulated, two_by_four)
    ]
    assert len(losses[0]) == 8  # 36 training images: 4 whole batches an epoch
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == pytest.approx(losses[0], abs=1e-5)
    # float32 sums in another order, through AdamW's division by small second moments.
    assert largest_difference(one_by_eight, accumulated) < 1e-4
    assert largest_difference(one_by_eight, two_by_four) < 1e-4


def test_every_test_image_once(one_by_eight, two_by_four):
    """13 images on two ranks: padded by some, dropped by others, counted once here."""
    reports = [record(folder, "evaluation.json") for folder in (one_by_eight, two_by_four)]
    assert [r["n"] for r in reports] == [13, 13]
    assert [row["n"] for row in reports[1]["per_class"]] == [
        4,
        5,
        4,
    ]  # cheese_plate, cheesecake, ..
    assert reports[0]["dataset_fingerprint"] == reports[1]["dataset_fingerprint"]
    rows = [(f / "predictions.csv").read_text().splitlines() for f in (one_by_eight, two_by_four)]
    assert len(rows[0]) == len(rows[1]) == 14
    assert [r.split(",")[:2] for r in rows[0]] == [r.split(",")[:2] for r in rows[1]]
    for key, metric in reports[0]["metrics"].items():
        assert reports[1]["metrics"][key]["value"] == pytest.approx(metric["value"], abs=1e-3)
    selection = [record(f)["selection"] for f in (one_by_eight, two_by_four)]
    assert selection[0]["n"] == selection[1]["n"] == 12


@pytest.mark.parametrize("ranks", [1, 2])
def test_interrupted_and_resumed(train, one_by_eight, two_by_four, ranks):
    """Stopped in the middle of the second epoch and resumed: the weights of an uninterrupted run.

    Both those that are trained and the mean that is kept of those at the last three scorings.
    """
    device = ["--per_device_train_batch_size", str(8 // ranks), "--average_last", "3"]
    saving = ["--save_strategy", "steps", "--save_steps", "6", "--eval_strategy", "steps"]
    saving += ["--eval_steps", "2", "--load_best_model_at_end", "false"]
    whole = train(ranks, *device, *saving)
    part = whole / "checkpoint-6"
    resumed = train(ranks, *device, *saving, "--resume_from_checkpoint", str(part))
    assert record(resumed, "log_history.json")[-1]["step"] == 8
    assert largest_difference(whole, resumed) == 0.0
    one, two = (load_file(f / "checkpoint-8" / AverageLast.file) for f in (whole, resumed))
    assert all((one[name] == two[name]).all() for name in one)
    kept = [load_file(whole / "average_last" / f"step-{step}.safetensors") for step in (4, 6, 8)]
    mean = sum(each["classifier.weight"].astype("float64") for each in kept) / 3
    assert (
        abs(mean - load_file(whole / "model" / "model.safetensors")["classifier.weight"]).max()
        < 1e-7
    )
    assert (one["classifier.weight"] == kept[-1]["classifier.weight"]).all()


def test_lora(train, one_by_eight):
    """One trajectory in one process and in two; stopped in the middle and resumed, bit for bit."""
    saving = ["--save_strategy", "steps", "--save_steps", "6", "--eval_strategy", "no"]
    saving += ["--load_best_model_at_end", "false", "--model", str(one_by_eight / "model")]
    one, two = (train(ranks, *saving, text=LORA) for ranks in (1, 2))
    losses = [
        [row["loss"] for row in record(folder, "log_history.json") if "loss" in row]
        for folder in (one, two)
    ]
    assert len(losses[0]) == 8 and losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert largest_difference(one, two) < 1e-4 < largest_difference(one, one_by_eight)
    # Dropout is drawn by torch, process by process: another run, and as exact.
    saving += ["--lora_dropout", "0.2"]
    whole = train(2, *saving, text=LORA)
    resumed = train(2, *saving, "--resume_from_checkpoint", str(whole / "checkpoint-6"), text=LORA)
    assert record(resumed, "log_history.json")[-1]["step"] == 8
    assert largest_difference(whole, resumed) == 0.0 < largest_difference(whole, two)


def test_a_multi_gpu_file_on_a_machine_without_gpus(data, environment, tmp_path):
    """Two processes that do not see each other would both train into one folder and exit with 0."""
    env = {k: v for k, v in environment.items() if k != "ACCELERATE_USE_CPU"}
    command = [BIN / "accelerate", "launch", "--config_file", "accelerate_config.yaml"]
    command += ["-m", "training.train", "from_scratch", "--dataset", data]
    done = run([*command, "--output_dir", tmp_path / "run"], env, ROOT)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode != 0 and len(errors) == 1
    assert "2 processes" in errors[0] and "ACCELERATE_USE_CPU=1" in errors[0]
    assert not (tmp_path / "run").exists()
