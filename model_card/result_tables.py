"""The results as Markdown tables: metrics, dishes, confused pairs."""

from collections.abc import Iterable
from typing import Any

from model_card.facts import CardFacts
from model_card.words import code, count, hide_paths, percent, span, table

SHOWN_DISHES = 5
SHOWN_PAIRS = 10


def metrics(facts: CardFacts) -> str:
    """The table of results: value, interval, n, split, and what data these were."""
    revision = f"revision `{(facts.eval_revision or '')[:12]}`"
    data = revision if facts.eval_revision else f"content `{facts.eval_fingerprint[:12]}`"
    rest = (count(facts.n), code(facts.eval_split), f"{code(hide_paths(facts.dataset))}, {data}")

    rows = (
        ("Top-1 accuracy", percent(facts.top1, facts.n), span(facts.top1_interval, facts.n)),
        ("Top-5 accuracy", percent(facts.top5, facts.n), span(facts.top5_interval, facts.n)),
        ("Macro F1", percent(facts.macro_f1, facts.n), "-"),
        ("Negative log-likelihood, nats per image", f"{facts.nll:.3f}", "-"),
        ("Expected calibration error", percent(facts.ece, facts.n), "-"),
    )
    head = ("Metric", "Value", "Interval", "n", "Split", "Data set")
    return table(head, [(*row, *rest) for row in rows])


def dishes(facts: CardFacts) -> tuple[str, str]:
    """A sentence and a table: all dishes where they are few, else the weakest and the best."""
    tested = [row for row in facts.per_class if row["n"]]
    ranked = sorted(tested, key=lambda row: (row["recall"], row["label"]))
    untested = len(facts.per_class) - len(tested)
    note = f" Without a test image: {untested} of {len(facts.per_class)}." if untested else ""
    if len(ranked) <= 2 * SHOWN_DISHES:
        return f"The weakest first.{note}", _dish_table(ranked)
    shown = ranked[:SHOWN_DISHES] + ranked[-SHOWN_DISHES:]
    intro = f"The {SHOWN_DISHES} weakest and the {SHOWN_DISHES} best of {len(ranked)}, by recall."
    return f"{intro}{note}", _dish_table(shown)


def _dish_table(rows: Iterable[dict[str, Any]]) -> str:
    def cell(share: float | None, n: int) -> str:
        return "never given" if share is None else percent(share, n)

    head = ("Dish", "Recall", "Precision", "n")
    cells = [
        (
            code(row["label"]),
            percent(row["recall"], row["n"]),
            cell(row["precision"], row["n"]),
            count(row["n"]),
        )
        for row in rows
    ]
    return table(head, cells)


def confused(facts: CardFacts) -> str:
    """The table of the pairs that were confused most often, or a sentence."""
    if not facts.most_confused:
        return "`evaluation.json` lists no pair of dishes that was confused."
    ranked = sorted(
        facts.most_confused, key=lambda row: (-row["n"], row["label"], row["predicted"])
    )
    cells = [
        (code(row["label"]), code(row["predicted"]), count(row["n"]))
        for row in ranked[:SHOWN_PAIRS]
    ]
    return table(("Dish", "Answer", "Images"), cells)
