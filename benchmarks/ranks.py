# SPDX-License-Identifier: Apache-2.0
"""Two gloo ranks with one thread each against one process with two threads.

    python benchmarks/ranks.py --json benchmarks/results/ranks.json

The real command, `accelerate launch ... -m training.train from_scratch`, with a ViT-Ti and few
steps of a global batch of 16; images/s as the run's own run.json has them (training alone, start
and evaluation left out; the start of the data workers is in).
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, TOY, VIT_TI, Group, describe_photographs, parser, photograph_paths, report
from machine import environment

PEER = "1 rank x 2 threads"
VARIANTS = {PEER: (1, 2), "2 ranks x 1 thread": (2, 1)}  # name -> ranks, threads


def main(argv: list[str] | None = None) -> int:
    p = parser(__doc__, rounds=3)
    p.add_argument("--steps", type=int, default=None)
    args = p.parse_args(argv)
    config, batch = (TOY, 4) if args.toy else (VIT_TI, 16)
    steps = args.steps or (2 if args.toy else 16)
    count = 40 if args.toy else 160
    paths = photograph_paths(args.photographs, count)
    start = environment()
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        data = image_folder(paths, count, Path(folder) / "data")
        for number in range(args.rounds):
            order = list(VARIANTS)
            random.Random(number).shuffle(order)
            for name in order:
                output = Path(folder) / f"run-{number}-{VARIANTS[name][0]}"
                words = command(*VARIANTS[name], data, output, config, batch, steps)
                run = train(words, Path(folder), VARIANTS[name][1], output)
                check(run, VARIANTS[name][0])
                seconds[name].append({"wall": 1 / run["training"]["images_per_second"]})
                shutil.rmtree(output)
    rows = Group("training, whole command", PEER, "image", 1).rows(seconds)
    return report(
        args,
        start,
        rows,
        photographs=describe_photographs(paths),
        model=config,
        steps=steps,
        total_train_batch_size=batch,
    )


def image_folder(paths: list[Path], count: int, root: Path) -> Path:
    """train/ and validation/ with four made-up labels: timing does not ask what they mean."""
    for i, path in zip(range(count), itertools.cycle(paths), strict=False):
        split = "validation" if i % 40 < 10 else "train"
        folder = root / split / f"label_{i % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{i}.jpg")
    return root


def command(
    ranks: int, threads: int, data: Path, output: Path, config: dict, batch: int, steps: int
) -> list[str]:
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--multi_gpu", "--main_process_port", "0"] if ranks > 1 else []
    launch += ["--num_processes", str(ranks), "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", str(threads)]
    launch += ["-m", "training.train", "from_scratch", "--dataset", str(data)]
    launch += ["--output_dir", str(output), "--model_config", json.dumps(config)]
    launch += ["--max_steps", str(steps), "--total_train_batch_size", str(batch)]
    launch += ["--selection_fraction", "0.25", "--reduced_decoding", "off"]
    # Nothing but training steps between the run's first and last clock reading.
    launch += ["--eval_strategy", "no", "--save_strategy", "no"]
    return [*launch, "--load_best_model_at_end", "false", "--report_to", "none"]


def train(words: list[str], home: Path, threads: int, output: Path) -> dict[str, Any]:
    """Run the command and read its run.json."""
    extra = {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": str(threads)}
    env = {**os.environ, **extra, "HF_HOME": str(home / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed:\n{done.stdout}{done.stderr}")
    return json.loads((output / "run.json").read_text())


def check(run: dict[str, Any], ranks: int) -> None:
    """`accelerate launch --cpu` starts one process whatever it is told: believe the run only."""
    if run["training"]["world_size"] != ranks:
        raise SystemExit(f"{ranks} ranks were asked for, {run['training']['world_size']} ran")


if __name__ == "__main__":
    sys.exit(main())
