# SPDX-License-Identifier: Apache-2.0
"""The part of a page that a script prints, between two comments that name the script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class UsageError(Exception):
    """What a person can mend, in one line."""


class Marks(NamedTuple):
    """The comments in front of the printed part and behind it."""

    begin: str
    end: str

    @classmethod
    def of(cls, script: str) -> Marks:
        return cls(f"<!-- python benchmarks/{script} -->", f"<!-- end of benchmarks/{script} -->")

    def put(self, page: str, text: str) -> str:
        """The page with `text` between the marks.

        Raises:
            UsageError: the page has no such place, or more than one.
        """
        at = page.find(self.begin), page.find(self.end)
        if page.count(self.begin) != 1 or page.count(self.end) != 1 or at[0] > at[1]:
            raise UsageError(f"the page needs the lines {self.begin} and {self.end}, once each")
        before, rest = page.split(self.begin)
        return f"{before}{self.begin}\n\n{text}\n\n{self.end}{rest.split(self.end)[1]}"

    def get(self, page: str) -> str:
        return page.split(self.begin)[1].split(self.end)[0].strip("\n")

    def publish(self, make: Callable[[], str], page: Path | None) -> int:
        """Print what `make` gives, and put it into a page if there is one; return the exit code.

        A page without a place for it, and whatever else a person can mend, is a line and 2; that of the
        page comes before anything is made.
        """
        try:
            if page:
                self.put(page.read_text("utf-8"), "")
            text = make()
        except UsageError as error:
            print(error)
            return 2
        print(text)
        if page:
            page.write_text(self.put(page.read_text("utf-8"), text), encoding="utf-8")
        return 0
