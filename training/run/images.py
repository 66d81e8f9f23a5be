"""Write down which images a run uses and which it leaves out, and refuse to resume on others.

images.csv      split, label, sha256, path: an image a row, in the order of training
left_out.csv    path, kind, reason: what was found and is not used

Both hold paths, relative to the data set, and are never released.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from training.common.errors import UserError
from training.common.files import read_json, write_text
from training.data.found import names
from training.data.splits import Split, Splits

IMAGES, LEFT_OUT = "images.csv", "left_out.csv"

# (split, label, sha256, path)
Row = tuple[str, str, str, str]


def list_images(splits: Splits) -> list[Row]:
    """List every image that trains, selects or tests."""
    parts: tuple[tuple[str, Split], ...] = (
        ("train", splits.originals),
        ("selection", splits.selection),
        ("test", splits.test),
    )
    return [
        (name, part.label_names[label], sha256, path)
        for name, part in parts
        for label, sha256, path in zip(
            part.dataset["label"][:], part.content, part.paths, strict=True
        )
    ]


def write_images(folder: Path, splits: Splits) -> None:
    """Write images.csv, and left_out.csv where anything was left out, into a run's folder."""
    write_text(folder / IMAGES, _csv(("split", "label", "sha256", "path"), list_images(splits)))
    left_out = [(each.path, each.kind, each.reason) for each in splits.inventory.left_out]
    if left_out:
        write_text(folder / LEFT_OUT, _csv(("path", "kind", "reason"), left_out))
    else:
        (folder / LEFT_OUT).unlink(missing_ok=True)


def run_of(checkpoint: str) -> Path:
    """Name the folder of the run that a checkpoint belongs to; a probe's lies one folder deeper."""
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == "probe" else folder


def refuse_changed(folder: Path, splits: Splits) -> None:
    """Refuse to go on with other images than the run in `folder` began with; nothing is written.

    A run that was begun before there was an images.csv is known by the fingerprints in its run.json; of
    a checkpoint without either nothing is known.

    Raises:
        UserError: an image was added, removed, replaced, relabelled or is in another split; it says which.
    """
    path, record, changes = folder / IMAGES, folder / "run.json", []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            before = [tuple(row) for row in csv.reader(file)][1:]
        changes = compare_images(before, list_images(splits))
    elif record.is_file():
        data, keys = read_json(record)["data"], ("fingerprint", "train_fingerprint")
        if [data[key] for key in keys] != [splits.test.fingerprint, splits.train_fingerprint]:
            changes = ["the images changed"]
    if changes:
        raise UserError(
            f"{folder} was begun with other images: {'; '.join(changes)}; restore them to resume, or "
            "choose another --output_dir"
        )


def compare_images(before: list[Row], after: list[Row]) -> list[str]:
    """Say what differs between two lists of images: [] where they are the same, in the same order."""
    if before == after:
        return []
    # Copies of one image differ in their place only.
    old, new = ({(row[2], row[3]): row for row in rows} for rows in (before, after))
    gone, come = (
        [old[key] for key in old.keys() - new.keys()],
        [new[key] for key in new.keys() - old.keys()],
    )
    gone_paths, come_paths = ({row[3] for row in rows if row[3]} for rows in (gone, come))
    replaced = gone_paths & come_paths
    both = [(old[key], new[key]) for key in old.keys() & new.keys()]
    changes = {
        "added": [_name(row) for row in come if row[3] not in replaced],
        "removed": [_name(row) for row in gone if row[3] not in replaced],
        "replaced": list(replaced),
        "relabelled": [f"{_name(o)} ({o[1]}, now {n[1]})" for o, n in both if o[1] != n[1]],
        "moved to another split": [_name(o) for o, n in both if o[0] != n[0]],
    }
    said = [
        f"{len(each):,} {what} ({names(sorted(each))})" for what, each in changes.items() if each
    ]
    return said or ["they are in another order, or there are other copies of them"]


def _name(row: Row) -> str:
    return row[3] or f"image {row[2][:12]}"


def _csv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # Python before 3.13 does not quote a carriage return, and reads it as the end of the row.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        (quoted if any("\r" in cell for cell in row) else writer).writerow(row)
    return text.getvalue()
