"""One Hub and one real run for all integration tests; each product command is a process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.seeds import DATASET, MODEL, checkpoint_files, dataset_files
from tests.loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class RealRun:
    """A finished run of the unmodified real command, and the Hub that it read from."""

    hub: LoopbackHub
    folder: Path
    revisions: dict[str, str]
    output: str
    methods: set[str]  # of the HTTP requests that training made

    @property
    def release(self) -> Path:
        return self.folder / "release"


def run(command: list[str | Path], env: dict[str, str], cwd: Path = ROOT, timeout: int = 900):
    """Run a product command; stdout and stderr apart."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )


def food101(*words: str | Path, env: dict[str, str], cwd: Path = ROOT):
    return run([BIN / "food101", *words], env, cwd)


@pytest.fixture(scope="session")
def sample_home(tmp_path_factory) -> Path:
    """An HF_HOME in which the sample is drawn once, whoever needs it first; datasets locks it."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sample-home"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A Hub with the data set and the checkpoint of the real run under their real ids."""
    with LoopbackHub() as hub:
        seeds = tmp_path_factory.mktemp("seeds")
        hub.add_repo(DATASET, dataset_files(seeds / "data"), repo_type="dataset")
        hub.add_repo(MODEL, checkpoint_files(seeds / "model"))
        yield hub


@pytest.fixture(scope="session")
def real_run(hub, tmp_path_factory) -> RealRun:
    """The README's multi-GPU command, as it stands, on two CPU processes."""
    folder = tmp_path_factory.mktemp("real") / "run"
    env = hub.env(tmp_path_factory.mktemp("home"), token=None)
    env |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    command = [BIN / "accelerate", "launch", "--config_file", "accelerate_config.yaml"]
    command += ["-m", "training.train", "vit_base_food101"]
    small = ["--max_steps", "6", "--total_train_batch_size", "32", "--logging_steps", "2"]
    small += ["--per_device_train_batch_size", "8", "--output_dir", folder]
    small += ["--selection_fraction", "0.25"]
    done = run([*command, *small], env)
    assert done.returncode == 0, done.stdout + done.stderr
    revisions = {
        DATASET: hub.commits(DATASET, "dataset")[-1].oid,
        MODEL: hub.commits(MODEL)[-1].oid,
    }
    methods = {request.method for request in hub.requests}
    return RealRun(hub, folder, revisions, done.stdout + done.stderr, methods)
