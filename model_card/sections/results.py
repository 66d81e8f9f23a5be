"""The table of results, one row a metric that evaluation.json describes."""

from model_card.facts import CardFacts, Metric
from model_card.words import code, count, hide_paths, percent, span, table


def metrics(facts: CardFacts) -> str:
    """Write the table of results: value, interval, n, split, and what data these were."""
    revision = f"revision `{(facts.eval_revision or '')[:12]}`"
    data = revision if facts.eval_revision else f"content `{facts.eval_fingerprint[:12]}`"
    rest = (count(facts.n), code(facts.eval_split), f"{code(hide_paths(facts.dataset))}, {data}")
    head = ("Metric", "Value", "Interval", "n", "Split", "Data set")
    return table(head, [(*_metric_cells(metric, facts.n), *rest) for metric in facts.metrics])


def _metric_cells(metric: Metric, n: int) -> tuple[str, str, str]:
    """Write name (with the unit, unless it is a share), value and interval of a metric."""
    if metric.is_share:
        interval = "-" if metric.interval is None else span(metric.interval, n)
        return metric.name, percent(metric.value, n), interval
    interval = "-" if metric.interval is None else "{:.3f} to {:.3f}".format(*metric.interval)
    return f"{metric.name}, {metric.unit}", f"{metric.value:.3f}", interval
