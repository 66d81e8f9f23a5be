"""Print the answers of a model, one after the other: lines, CSV rows, or one JSON array.

    write = Csv()
    for answer in predict_images(...):
        write.add(answer)
    write.end()

Paths are text here, whatever bytes the names of the files are. What the encoding of standard output
does not have is escaped: names of dishes are in any language.
"""

from __future__ import annotations

import codecs
import csv
import json
import sys
from types import SimpleNamespace
from typing import Any

from inference.apps.predict import Answer
from inference.food_answers import EMPTY

HEADER = ("image", "rank", "label", "name", "score")
MORE = tuple(key for key in EMPTY if key != "labels")  # a column each, where it was asked for


class Lines:
    """A line an image, "path: Name 97.1%, ..."; none for one that could not be labelled.

    Where the model is not sure enough, "path: not sure" and its best guesses in a line beneath; where a
    set was asked for, "one of: Name, Name" in another.
    """

    def add(self, answer: Answer) -> None:
        """Print the line, or lines."""
        if answer.error is not None:
            return
        said = ", ".join(f"{row['name']} {row['score']:.1%}" for row in answer.labels)
        more = answer.more or {}
        if more.get("answered") is False:
            said = f"not sure\n  perhaps: {said}"
        if more.get("not_food"):
            said = f"may be no food; {said}"
        if (names := more.get("set")) is not None:
            listed = ", ".join(row["name"] for row in names)
            said += f"\n  one of: {listed or '(no dish is likely enough)'}"
        _write(f"{one_line(answer.image)}: {said}\n")

    def end(self) -> None:
        """Do nothing: all is printed."""


class Csv:
    """A row a label, best first, under `HEADER`; nothing at all where no image could be labelled.

    Where more was asked for, it stands in every row of the image: "answered" and "not_food" as true or
    false, "set" as a JSON array of labels, since a label may hold any separator.
    """

    def __init__(self) -> None:
        self.rows = csv.writer(SimpleNamespace(write=_write), lineterminator="\n")
        self.has_header = False

    def add(self, answer: Answer) -> None:
        """Print the rows of an image."""
        said = {key: each for key in MORE if (each := (answer.more or {}).get(key)) is not None}
        if answer.labels and not self.has_header:
            self.rows.writerow([*HEADER, *said])
            self.has_header = True
        for rank, row in enumerate(answer.labels, 1):
            found = (row["label"], row["name"], row["score"])
            self.rows.writerow([as_text(answer.image), rank, *found, *map(_cell, said.values())])

    def end(self) -> None:
        """Do nothing: all is printed."""


class Json:
    """One array with {"image": ..., "labels": [...]} an image, or {"image": ..., "error": ...}.

    Where more was asked for, "answered", "set" and "not_food" stand beside the labels.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, answer: Answer) -> None:
        """Keep the object until the end."""
        said = {"labels": answer.labels} if answer.error is None else {"error": answer.error}
        self.found.append({"image": as_text(answer.image), **said, **(answer.more or {})})

    def end(self) -> None:
        """Print the array."""
        sys.stdout.write(_json(self.found) + "\n")


def _cell(value: bool | list[dict[str, Any]]) -> str:
    """Write what a column of `MORE` holds: true, false, or the labels of some rows."""
    return _json(value if isinstance(value, bool) else [row["label"] for row in value])


def _json(value: Any) -> str:
    """Write JSON in letters that standard output has: escaped as JSON does, so that it stays JSON."""
    return json.dumps(value, ensure_ascii=codecs.lookup(_encoding()).name != "utf-8")


def _encoding() -> str:
    """Name the encoding of standard output."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _write(text: str) -> None:
    """Print a text; in ASCII "Crème" becomes "Cr\\xe8me"."""
    encoding = _encoding()
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def as_text(path: str) -> str:
    """Escape bytes of a path that are no text: b"caf\\xe9.jpg" in UTF-8 becomes "caf\\udce9.jpg"."""
    return path.encode(errors="backslashreplace").decode()


def one_line(path: str) -> str:
    """Make one line of a path that may hold line breaks, or be a whole photo in base64."""
    path = path if path.isprintable() else repr(path)[1:-1]
    return path if len(path) <= 4096 else f"{path[:60]}...{path[-60:]}"
