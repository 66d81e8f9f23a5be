"""Read evaluation.json of any version: older formats are upgraded in memory, files never changed.

Format 2 describes its own metrics: `"metrics": {"top1": {"name": ..., "value": ...,
"interval": [low, high] or null, "unit": ..., "hub_type": ..., "less_is_better": ...}, ...}`, in the
order in which they are shown. Format 1 had bare values under `"metrics"` and the intervals of two
of them under `"intervals"`. Nothing heavy is imported here: `food101 compare` reads two runs at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import read_json
from training.evaluation.metrics import METRICS, Metric

FORMAT = 2  # what `evaluate_model` writes


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read evaluation.json of a run or release folder, in format 2 whatever version wrote it.

    Raises:
        UserError: the file is missing, is not JSON, or is of a format that is not known here.
    """
    path = folder / "evaluation.json"
    return in_format_2(read_json(path), path)


def in_format_2(report: Any, path: Path | str = "evaluation.json") -> dict[str, Any]:
    """Return the report in format 2; a report of format 1 is copied, not changed.

    What a damaged report of format 1 lacks is lacking in the copy too, so that whoever needs it can
    name it.

    Args:
        report: the parsed evaluation.json.
        path: where it was read, for the error.

    Raises:
        UserError: the report is of neither format.
    """
    found = report.get("format") if isinstance(report, dict) else None
    if found == FORMAT:
        return report
    if found != 1:
        raise UserError(f"{path} is not of this format: release or train it again")
    upgraded = {key: value for key, value in report.items() if key != "intervals"}
    upgraded["format"] = FORMAT
    values, intervals = (_object(report.get(key)) for key in ("metrics", "intervals"))
    upgraded["metrics"] = {
        metric.key: _describe(metric, values[metric.key], intervals)
        for metric in METRICS
        if metric.key in values
    }
    return upgraded


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _describe(metric: Metric, value: Any, intervals: dict[str, Any]) -> dict[str, Any]:
    """Describe a metric of format 1, without `interval` if it should have one and has none."""
    described = metric.describe(value, intervals.get(metric.key))
    if metric.is_proportion and metric.key not in intervals:
        del described["interval"]
    return described
