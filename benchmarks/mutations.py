# SPDX-License-Identifier: Apache-2.0
"""Damaged images: each must end as pixels or as InvalidImageError, within the bounds.

    nice python benchmarks/mutations.py [--count 20000] [--json FILE]

Small images of every format are made by code and changed at random: bits, bytes of the header, a
length, a part that is cut off, moved, doubled or taken from another image. Number N is the same in
every run. Batches run in a process each, with limits of memory and time; what was done is in the
file, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import random
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import decode_cases
from decode_peaks import CODE, LIMITS, limit, peak, read, reset_peak

RESULTS = Path(__file__).resolve().parent / "results" / "mutations.json"
BATCH = 500
SIDE = 48
KINDS = {
    "JPEG": [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {}), ("RGB", {"lying": True})],
    "PNG": [(mode, {}) for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")]
    + [("P", {"transparency": bytes(range(200))}), ("RGB", {"transparency": (1, 2, 3)})],
    "WEBP": [("RGB", {}), ("RGBA", {}), ("RGB", {"lossless": True}), ("RGBA", {"lying": True})],
    "GIF": [("P", {}), ("P", {"transparency": 3}), ("P", {"interlace": False})],
    "BMP": [(mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")],
    "TIFF": [(mode, {}) for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16")]
    + [("RGB", {"compression": packed}) for packed in
       ("packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd", "lzma")]
    + [("RGBA", {"lying": True}), ("1", {"compression": "group4"})],
    "PPM": [(mode, {}) for mode in ("1", "L", "RGB", "I;16")],
    "AVIF": [("RGB", {"speed": 10}), ("RGBA", {"speed": 10, "lying": True})],
}  # fmt: skip


@functools.cache
def originals() -> list[tuple[str, bytes]]:
    """Every format in the modes that it has, animations and metadata too: (format, bytes)."""
    made = []
    for kind, modes in KINDS.items():
        for mode, options in modes:
            image = decode_cases.picture(mode, SIDE, 6)
            made.append((kind, decode_cases.encode(image, kind, **options)))
    frames = [decode_cases.picture("RGB", SIDE, coarse) for coarse in (2, 3, 4)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        many = {"save_all": True, "append_images": frames[1:]}
        made.append((kind, decode_cases.encode(frames[0], kind, **many)))
    profile = {"icc_profile": bytes(500)}
    made += [
        (kind, decode_cases.encode(frames[0], kind, **profile)) for kind in ("JPEG", "PNG", "WEBP")
    ]
    made += [
        ("PPM", b"P6\n8 8\n1023\n" + bytes(range(128)) * 3),
        ("PPM", b"P3\n2 1\n9\n1 2 3 4 5 6\n"),
    ]
    return made


def mutated(number: int) -> tuple[str, bytes]:
    """Make mutation `number`: its format, and bytes with one to four changes."""
    rng = random.Random(number)
    kind, data = originals()[number % len(originals())]
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(CHANGES)(data, rng)
    if kind == "PNG" and rng.random() < 0.8:
        mend_sums(data)
    return kind, bytes(data)


def mend_sums(data: bytearray) -> None:
    """Make the checksums of a PNG fit, or nothing but them would be tried."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3, 20))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def edit_header(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            at = rng.randrange(min(len(data), 200))
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def put_number(data: bytearray, rng: random.Random) -> None:
    """A length, a size or an offset: 16 or 32 bits, in either order."""
    width = rng.choice((2, 4))
    value = rng.choice((0, 1, 2**15, 2**16 - 1, 60_000, 2**24, 2**31 - 1, 2**31, 2**32 - 1))
    at = rng.randrange(max(1, min(len(data), 400) - width))
    order = rng.choice(("big", "little"))
    data[at : at + width] = (value % 256**width).to_bytes(width, order)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def part(data: bytearray, rng: random.Random) -> slice:
    start = rng.randrange(len(data) + 1)
    return slice(start, min(len(data), start + rng.choice((1, 4, 12, 64, 512))))


def remove(data: bytearray, rng: random.Random) -> None:
    del data[part(data, rng)]


def double(data: bytearray, rng: random.Random) -> None:
    piece = data[part(data, rng)] * rng.choice((1, 2, 50))
    at = rng.randrange(len(data) + 1)
    data[at:at] = piece


def move(data: bytearray, rng: random.Random) -> None:
    where = part(data, rng)
    piece = data[where]
    del data[where]
    at = rng.randrange(len(data) + 1)
    data[at:at] = piece


def borrow(data: bytearray, rng: random.Random) -> None:
    other = bytearray(rng.choice(originals())[1])
    at = rng.randrange(len(data) + 1)
    data[at:at] = other[part(other, rng)]


CHANGES = (
    flip_bits,
    edit_header,
    edit_header,
    put_number,
    put_number,
    cut,
    remove,
    double,
    move,
    borrow,
)


# ---- running -------------------------------------------------------------------------------------


def main() -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--count", metavar="N", type=int, default=20_000)
    p.add_argument("--json", metavar="FILE", type=Path, default=RESULTS)
    p.add_argument("--batch", nargs=2, type=int, metavar=("FIRST", "END"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.batch:
        run_batch(range(*args.batch))
        return 0
    record = read(args.json, CODE)
    record.pop("cases", None)
    record.setdefault("batches", {})
    for first in range(0, args.count, BATCH):
        if str(first) not in record["batches"]:
            record["batches"][str(first)] = batch(first, min(first + BATCH, args.count))
            record["summary"] = summary(record["batches"].values())
            args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record["summary"], indent=1))
    return 1 if record["summary"]["faults"] else 0


def run_batch(numbers: range) -> None:
    """Decode mutations here: a line for each, and flushed, so that a crash shows its number."""
    sys.path.insert(0, str(CODE.parents[1]))
    from inference import food_images

    food_images.Image.init()
    for number in numbers:
        print(json.dumps({"number": number}), flush=True)
        print(json.dumps(outcome(number, food_images)), flush=True)


def outcome(number: int, food_images: Any) -> dict[str, Any]:
    """Decode mutation `number`: what became of it, its bytes of memory and its CPU seconds."""
    kind, data = mutated(number)
    before, start = reset_peak(), time.process_time()
    try:
        pixels = food_images.decode_image(data)
        good = pixels.dtype.name == "uint8" and pixels.ndim == 3 and pixels.shape[2] == 3
        became = "pixels" if good else f"fault: {pixels.dtype} {pixels.shape}"
    except food_images.InvalidImageError as error:
        became = (
            "refused" if "\n" not in str(error) and len(str(error)) < 500 else f"fault: {error}"
        )
    except BaseException as error:
        became = f"fault: {type(error).__name__}: {error}"
    seconds, gigabytes = time.process_time() - start, (peak() - before) / 1e9
    if seconds > LIMITS["seconds"] or gigabytes > LIMITS["GB"]:
        became = f"fault: {gigabytes:.2f} GB, {seconds:.1f} s"
    return {"kind": kind, "became": became, "GB": gigabytes, "seconds": seconds}


def batch(first: int, end: int) -> dict[str, Any]:
    """Run mutations from `first` on in a process; after a crash, the rest in another."""
    found: dict[str, Any] = {"counts": Counter(), "faults": [], "GB": 0.0, "seconds": 0.0}
    sha, stderr = hashlib.sha256(), ""
    while first < end:
        command = [sys.executable, __file__, "--batch", str(first), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
        stderr += done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for said in lines:
            if "number" in said:
                first = said["number"] + 1
                continue
            word = said["became"].split(":")[0]
            found["counts"][f"{said['kind']} {word}"] += 1
            sha.update(word.encode())
            found["GB"] = max(found["GB"], round(said["GB"], 3))
            found["seconds"] = max(found["seconds"], round(said["seconds"], 2))
            if word == "fault":
                found["faults"].append(f"{first - 1}: {said['became']}"[:300])
        if done.returncode:
            found["faults"].append(f"{first - 1}: the process ended with {done.returncode}")
    return found | {"outcomes": sha.hexdigest()[:16], "stderr": stderr[:500]}


def summary(batches: Any) -> dict[str, Any]:
    counts: Counter = Counter()
    for each in batches:
        counts.update(each["counts"])
    return {
        "mutations": sum(counts.values()),
        "counts": dict(sorted(counts.items())),
        "most_GB": max(each["GB"] for each in batches),
        "most_seconds": max(each["seconds"] for each in batches),
        "faults": [fault for each in batches for fault in each["faults"]],
        "stderr": [each["stderr"] for each in batches if each["stderr"]],
    }


if __name__ == "__main__":
    sys.exit(main())
