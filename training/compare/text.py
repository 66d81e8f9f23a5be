"""Write a comparison of runs as tables of text, for a terminal."""

from __future__ import annotations

from typing import Any


def render(report: dict[str, Any]) -> str:
    """Write what `compare_runs` returned, with or without `speed`, as tables and lines of text."""
    test, speed = report["test"], report["speed"]
    lines = [
        f"test images: {test['dataset']} {test['split']}, n = {test['n']:,}, "
        f"content {test['dataset_fingerprint'][:12]}",
        "",
    ]
    head = ["run", "top-1", "95 % interval", "n", "parameters", "pixels", "network"]
    rows = [_run_row(row) for row in report["runs"]]
    if speed:
        head += ["images/s", "times the first (smallest to largest round)"]
        measured = zip(speed["images_per_second"], speed["times_the_first"], strict=True)
        rows = [
            [
                *row,
                f"{rate['median']:,.1f}",
                "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio),
            ]
            for row, (rate, ratio) in zip(rows, measured, strict=True)
        ]
    lines += table(head, rows)
    against = report["runs"][0]["name"]
    head = ["difference to the first", "points", "95 % interval", "only first right"]
    head += ["only this right", "exact McNemar p"]
    lines += [
        "",
        f"first: {against}",
        *table(head, [_pair_row(row) for row in report["pairs"]]),
        "",
    ]
    if speed:
        lines.append(
            "speed: forward pass with normalisation of random uint8 pixels, {precision}, {device}, "
            "{threads} threads, batch {batch_size}, medians of {rounds} rounds in turn; no decoding".format(
                **speed
            )
        )
    return "\n".join([*lines, report["method"], *(f"! {note}" for note in report["notes"])])


def _run_row(row: dict[str, Any]) -> list[str]:
    """Write the cells of one entry of `runs`."""
    low, high = row["interval"]
    return [
        row["name"],
        f"{row['top1']:.2%}",
        f"{100 * low:.2f} to {high:.2%}",
        f"{row['n']:,}",
        f"{row['num_parameters']:,}",
        f"{row['image_size']}",
        row["architecture"].split("ForImageClassification")[0],
    ]


def _pair_row(row: dict[str, Any]) -> list[str]:
    """Write the cells of one entry of `pairs`; shares become percentage points."""
    low, high = (100 * bound for bound in row["interval"])
    p = row["mcnemar_p"]
    return [
        row["name"],
        f"{100 * row['difference']:+.2f}",
        f"{low:+.2f} to {high:+.2f}",
        f"{row['only_first_right']:,}",
        f"{row['only_this_right']:,}",
        "below 0.0001" if p < 1e-4 else f"{p:.4f}",
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Align cells into lines: columns as wide as their widest cell, the first to the left.

    table(["run", "n"], [["a", "1,000"]]) -> ["run      n", "a    1,000"]
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *rows)
    ]
