"""Blocks about how sure the model is: calibration, "not sure" at a stated accuracy, and sets of dishes."""

from collections.abc import Iterable
from typing import Any

from model_card import checks
from model_card.words import count, many, percent, span, table

HELD_OUT = checks.fields(n=checks.positive, source=checks.one_of("selection", "out of fold"))
MEASURED = checks.fields(value=checks.amount, interval=checks.interval)
MEASURES = checks.fields(nll=MEASURED, brier=MEASURED, ece=MEASURED)
NAMES = {
    "nll": "Negative log-likelihood, nats",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}


def held_out(value: dict[str, Any]) -> str:
    """Say which images a number was fitted on: "375 selection images"."""
    if value["source"] == "out of fold":
        return f"the out-of-fold scores of {many(value['n'], 'image')}"
    return many(value["n"], "selection image")


class Calibration:
    """What the temperature changed."""

    key, title, required = "calibration", "Calibration", False
    check = staticmethod(
        checks.fields(
            temperature=checks.amount,
            held_out=HELD_OUT,
            bins=checks.positive,
            before=MEASURES,
            after=MEASURES,
            ece_if_perfect=checks.share,
        )
    )

    def markdown(self, value: dict[str, Any], n: int) -> str:
        """Write what was done, a table of before and after, and what to make of the error."""
        used = value["held_out"]
        chose = (
            "They chose the checkpoint as well, which makes them a little optimistic. "
            if used["source"] == "selection"
            else ""
        )
        rows = [
            (NAMES[name], _measured(value["before"][name]), _measured(value["after"][name]))
            for name in NAMES
        ]
        return (
            f"Scores were divided by the temperature {value['temperature']:.3f}, fitted on "
            f"{held_out(used)}. {chose}It is in the weights, so every pipeline has it, and no answer "
            f"changes.\n\n{table(('', 'Before', 'After'), rows)}\n\n"
            f"On {many(n, 'test image')}, less is better, in brackets 95 % bootstrap intervals. The error "
            f"has {value['bins']} bins; a model whose scores mean exactly what they say shows "
            f"{value['ece_if_perfect']:.3f} on so many images. Scores of images unlike these, and of "
            "pictures without food, mean nothing."
        )


def _measured(value: dict[str, Any]) -> str:
    low, high = value["interval"]
    return f"{value['value']:.3f} ({low:.3f} to {high:.3f})"


class Abstention:
    """What was promised of the answers that are given, and what the test images gave."""

    key, title, required = "abstention", "Not sure", False
    check = staticmethod(
        checks.fields(
            held_out=HELD_OUT,
            confidence=checks.share,
            aurc=checks.share,
            targets=checks.rows(
                target=checks.share,
                threshold=checks.optional(checks.share),
                n=checks.whole,
                answered=checks.share,
                accuracy=checks.optional(checks.share),
                interval=checks.optional(checks.interval),
            ),
        )
    )

    def markdown(self, value: dict[str, Any], n: int) -> str:
        """Write the promise, and a table of promised and measured accuracy."""
        return (
            "With `abstain=0.95` the food pipeline answers only what it is sure enough of to be right in "
            f"95 %. Each threshold was chosen on {held_out(value['held_out'])} so that it holds with "
            f"{100 * value['confidence']:g} % confidence, for photographs like the test images.\n\n"
            f"{table(('Promised', 'Score from', 'Answered', 'Right of them', 'n'), _target_rows(value, n))}"
            f"\n\nArea under the risk-coverage curve: {value['aurc']:.4f} (the share of wrong answers, "
            "averaged over how many of the surest are answered)."
        )


def _target_rows(value: dict[str, Any], n: int) -> Iterable[tuple[str, ...]]:
    for row in value["targets"]:
        promised = f"{100 * row['target']:g} %"
        if row["threshold"] is None:
            yield promised, "none keeps it", "", "", ""
        elif row["n"] == 0:
            yield promised, f"{row['threshold']:.3f}", percent(0.0, n), "", "0"
        else:
            right = f"{percent(row['accuracy'], row['n'])} ({span(row['interval'], row['n'])})"
            answered = percent(row["answered"], n)
            yield promised, f"{row['threshold']:.3f}", answered, right, count(row["n"])


class Sets:
    """How often sets of dishes hold the right one."""

    key, title, required = "sets", "One of these", False
    check = staticmethod(
        checks.fields(
            held_out=HELD_OUT,
            sets=checks.rows(
                promised=checks.share,
                coverage=checks.share,
                mean_size=checks.amount,
                empty=checks.share,
                worst_label_coverage=checks.share,
            ),
        )
    )

    def markdown(self, value: dict[str, Any], n: int) -> str:
        """Write what a set is, and a table of promised and measured coverage."""
        rows = [
            (
                f"{100 * row['promised']:g} %",
                percent(row["coverage"], n),
                f"{row['mean_size']:.2f}",
                percent(row["empty"], n),
                percent(row["worst_label_coverage"], n),
            )
            for row in value["sets"]
        ]
        head = ("Promised", "Held the right dish", "Dishes in a set", "Empty", "Weakest dish")
        return (
            "With `coverage=0.9` the food pipeline names the dishes among which the right one is in 90 % of "
            f"photographs like these, chosen on {held_out(value['held_out'])} (LAC, "
            "arXiv:1609.00451). The promise holds on average, not for each dish.\n\n"
            f"{table(head, rows)}"
        )
