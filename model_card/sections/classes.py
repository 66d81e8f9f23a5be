"""Blocks about single dishes: how well each is recognised, and which are confused."""

from collections.abc import Iterable
from typing import Any

from model_card import checks
from model_card.words import code, count, percent, plain, table

SHOWN_DISHES = 5  # the weakest, and as many of the best
SHOWN_PAIRS = 10

CLASS_ROWS = checks.rows(
    label=checks.text,
    n=checks.whole,
    recall=checks.optional(checks.share),  # null: no test image of this class
    precision=checks.optional(checks.share),  # null: the class was never predicted
)
CONFUSED_ROWS = checks.rows(label=checks.text, predicted=checks.text, n=checks.positive)


class ByDish:
    """A table of dishes by recall."""

    key, title, required = "per_class", "By dish", True

    def check(self, value: Any) -> tuple[dict[str, Any], ...]:
        """Return one dict a dish: label, n, recall, precision; None for a score that is not known."""
        return CLASS_ROWS(value)

    def markdown(self, value: tuple[dict[str, Any], ...], n: int) -> str:
        """Write a sentence and a table: all dishes if they are few, else the weakest and the best."""
        tested = [row for row in value if row["n"]]
        ranked = sorted(tested, key=lambda row: (row["recall"], row["label"]))
        untested = len(value) - len(tested)
        note = f" Without a test image: {untested} of {len(value)}." if untested else ""
        if len(ranked) <= 2 * SHOWN_DISHES:
            return f"The weakest first.{note}\n\n{_dish_table(ranked)}"
        shown = ranked[:SHOWN_DISHES] + ranked[-SHOWN_DISHES:]
        intro = (
            f"The {SHOWN_DISHES} weakest and the {SHOWN_DISHES} best of {len(ranked)}, by recall."
        )
        return f"{intro}{note}\n\n{_dish_table(shown)}"


def _dish_table(rows: Iterable[dict[str, Any]]) -> str:
    def precision(row: dict[str, Any]) -> str:
        share = row["precision"]
        return "never given" if share is None else percent(share, row["n"])

    cells = [
        (_dish(row), percent(row["recall"], row["n"]), precision(row), count(row["n"]))
        for row in rows
    ]
    return table(("Dish", "Recall", "Precision", "n"), cells)


def _dish(row: dict[str, Any]) -> str:
    """Write a label, behind what it is called where that is known and says more."""
    name, label = row.get("name"), row["label"]
    return f"{plain(name)} ({code(label)})" if name and name != label else code(label)


class MostConfused:
    """A table of the pairs of dishes that were confused most often."""

    key, title, required = "most_confused", "Most often confused", True

    def check(self, value: Any) -> tuple[dict[str, Any], ...]:
        """Return one dict a pair: label, predicted, n (images)."""
        return CONFUSED_ROWS(value)

    def markdown(self, value: tuple[dict[str, Any], ...], n: int) -> str:
        """Write the table, or a sentence where no pair was confused."""
        if not value:
            return "`evaluation.json` lists no pair of dishes that was confused."
        ranked = sorted(value, key=lambda row: (-row["n"], row["label"], row["predicted"]))
        cells = [
            (code(row["label"]), code(row["predicted"]), count(row["n"]))
            for row in ranked[:SHOWN_PAIRS]
        ]
        return table(("Dish", "Answer", "Images"), cells)
