# SPDX-License-Identifier: Apache-2.0
"""Seconds from the command to its answer, in cold interpreters with a warm page cache.

    python benchmarks/startup.py [--model RELEASE] --json benchmarks/results/startup.json

`food101 --help` and `food101 predict --help` against the bare interpreter, and the first label of
`food101 predict` against a three-line script with the stock pipeline on the same folder (a ViT-Ti
with random weights where none is given).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import (
    ROOT,
    TOY,
    VIT_TI,
    Group,
    build,
    describe_photographs,
    parser,
    photograph_paths,
    report,
)
from machine import environment

STOCK = """import sys
from transformers import pipeline
print(pipeline("image-classification", model=sys.argv[1])(sys.argv[2])[0]["label"])
"""


def main(argv: list[str] | None = None) -> int:
    p = parser(__doc__, rounds=7)
    p.add_argument("--model", metavar="FOLDER", type=Path, help="run or release folder")
    args = p.parse_args(argv)
    paths = photograph_paths(args.photographs, 1)
    start = environment()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model.resolve() if args.model else write_model(Path(folder), args.toy)
        rows = []
        for group in (helps(), first_label(model, paths[0].resolve())):
            rows += group.measure(args.rounds, warm_up=not args.toy)
    return report(
        args,
        start,
        rows,
        photographs=describe_photographs(paths),
        model="given with --model" if args.model else (TOY if args.toy else VIT_TI),
    )


def food101() -> list[str]:
    """The installed command, or its module where nothing is installed."""
    script = Path(sys.executable).with_name("food101")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "training.cli.main"]


def write_model(folder: Path, toy: bool) -> Path:
    network = build(TOY if toy else VIT_TI)
    network.model.save_pretrained(folder / "model")
    network.processor.save_pretrained(folder / "model")
    return folder / "model"


def helps() -> Group:
    peer = "python -c pass"
    group = Group("help", peer, "call", 1)
    group.variants = {
        peer: lambda: run([sys.executable, "-c", "pass"]),
        "food101 --help": lambda: run([*food101(), "--help"]),
        "food101 predict --help": lambda: run([*food101(), "predict", "--help"]),
    }
    return group


def first_label(model: Path, photograph: Path) -> Group:
    peer, words = "stock pipeline, three lines", [str(model), str(photograph)]
    group = Group("first label", peer, "call", 1)
    group.variants = {
        peer: lambda: run([sys.executable, "-c", STOCK, *words]),
        "food101 predict": lambda: run([*food101(), "predict", *words]),
    }
    return group


def run(words: list[str]) -> Any:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[-1]}: {done.stderr.strip()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
