# SPDX-License-Identifier: Apache-2.0
"""What decoding takes at its limits: memory and CPU time of every format and mode, and of bombs.

    python benchmarks/decode_peaks.py [--only WORDS] [--json FILE]

Each image is built by code in one process and decoded in another, alone: its peak of memory above
what the process had before (Linux: VmHWM), and its CPU seconds. A case that is in the file already,
for the same code, is not run again. The table is written into docs/images.md by --page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import decode_bombs  # noqa: F401  adds its cases
import decode_cases
from pages import Marks
from PIL import Image, ImageFile

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "inference" / "food_images.py"
PAGE = ROOT / "docs" / "images.md"
RESULTS = Path(__file__).resolve().parent / "results" / "decode_peaks.json"
LIMITS = {"GB": 1.0, "seconds": 8.0}
ADDRESS_SPACE = 14 * 10**9  # torch's libraries take some of it; beyond, the case counts as failed


def main() -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", metavar="WORDS", help="cases whose names contain this")
    p.add_argument("--json", metavar="FILE", type=Path, default=RESULTS)
    p.add_argument("--page", action="store_true", help="write the table into docs/images.md")
    p.add_argument("--code", metavar="FILE", type=Path, default=CODE, help="another food_images.py")
    p.add_argument("--build", nargs=2, metavar=("CASE", "FILE"), help=argparse.SUPPRESS)
    p.add_argument("--decode", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.build:
        Image.MAX_IMAGE_PIXELS, ImageFile.MAXBLOCK = None, 2**28
        Path(args.build[1]).write_bytes(decode_cases.CASES[args.build[0]]())
        return 0
    if args.decode:
        print(json.dumps(measure(args.code, args.decode)))
        return 0
    return run_all(args)


def run_all(args: argparse.Namespace) -> int:
    record = read(args.json, args.code)
    for name in decode_cases.CASES:
        if name in record["cases"] or (args.only and args.only not in name):
            continue
        record["cases"][name] = one(name, args.code)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(row(name, record["cases"][name]), flush=True)
    print(table(record["cases"]))
    if args.page:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(
            Marks.of("decode_peaks.py").put(page, table(record["cases"])), encoding="utf-8"
        )
    over = [name for name, case in record["cases"].items() if not within(case)]
    print(f"over {LIMITS['GB']} GB or {LIMITS['seconds']} s: {', '.join(over) or 'none'}")
    return 1 if over else 0


def read(path: Path, code: Path) -> dict[str, Any]:
    """Read what was measured of the same code, or begin a new record."""
    here = {
        "code": hashlib.sha256(code.read_bytes()).hexdigest(),
        "versions": {name: version(name) for name in ("pillow", "numpy", "torch")},
        "python": platform.python_version(),
    }
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if {name: found.get(name) for name in here} == here:
            return found
    return here | {"date": time.strftime("%Y-%m-%d"), "limits": LIMITS, "cases": {}}


def one(name: str, code: Path) -> dict[str, Any]:
    """Build a case and decode it, each in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case"
        me = [sys.executable, __file__]
        built = subprocess.run([*me, "--build", name, str(file)], stderr=subprocess.PIPE, text=True)
        if built.returncode:
            return {"bytes": 0, "failed": f"not built: {built.stderr.strip().splitlines()[-1]}"}
        done = subprocess.run(
            [*me, "--code", str(code), "--decode", str(file)],
            capture_output=True, text=True, timeout=600, preexec_fn=limit,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["?"]
            return {"bytes": file.stat().st_size, "failed": said[0]}
        return json.loads(done.stdout) | {"stderr": done.stderr[:200]}


def limit() -> None:
    """Keep a bomb that goes off from taking the machine along."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))


def measure(code: Path, file: Path) -> dict[str, Any]:
    """Decode `file` here, as a user does: memory above the present, CPU seconds, what came out."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("food_images", code)
    food_images = importlib.util.module_from_spec(spec)
    sys.modules["food_images"] = food_images
    spec.loader.exec_module(food_images)
    food_images.Image.init()
    source = decode_cases.source(file)
    before, start = reset_peak(), time.process_time()
    try:
        pixels = food_images.decode_image(source)
        said = " x ".join(str(side) for side in pixels.shape[1::-1])
    except food_images.InvalidImageError as error:
        said = str(error)
    seconds = time.process_time() - start
    gigabytes = (peak() - before) / 1e9
    return {
        "bytes": file.stat().st_size,
        "GB": round(gigabytes, 3),
        "seconds": round(seconds, 2),
        "result": said,
    }


def reset_peak() -> int:
    """Forget the highest memory so far; the present one, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> int:
    return status("VmHWM")


def status(name: str) -> int:
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


# ---- what is said ------------------------------------------------------------------------------


def within(case: dict[str, Any]) -> bool:
    return "failed" not in case and all(case[name] <= most for name, most in LIMITS.items())


def row(name: str, case: dict[str, Any]) -> str:
    if "failed" in case:
        return f"| {name} | {size(case['bytes'])} | | | failed: {case['failed']} |"
    figures = f"{size(case['bytes'])} | {case['GB']:.2f} | {case['seconds']:.1f}"
    return f"| {name} | {figures} | {case['result'].replace('|', '/')} |"


def size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count:,} bytes"


def table(cases: dict[str, dict[str, Any]]) -> str:
    head = "| image | file | GB | CPU s | result |\n| --- | --- | --- | --- | --- |"
    return "\n".join(
        [head, *(row(name, cases[name]) for name in decode_cases.CASES if name in cases)]
    )


if __name__ == "__main__":
    sys.exit(main())
