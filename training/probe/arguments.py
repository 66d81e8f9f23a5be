"""The recipe's keys about a linear probe."""

from __future__ import annotations

from dataclasses import dataclass

from training.common.arguments import check_ranges, key
from training.common.errors import UserError

# The grid of DINOv2's probe (arXiv:2304.07193, dinov2/eval/linear.py), for a batch of 256.
LEARNING_RATES = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1]
SOLVERS = ("logistic_regression", "sgd")
MAX_RATE = 1e6  # far beyond use; float32 ends much further on


@dataclass(frozen=True)
class ProbeArguments:
    """The recipe's keys about how the heads of a linear probe are trained."""

    probe_learning_rates: list[float] = key(
        LEARNING_RATES,
        "solver sgd: one head each, all in one pass; the selection slice chooses (DINOv2's grid)",
        above=0,
        below=MAX_RATE,
        give=f"numbers above 0, below {MAX_RATE:,.0f}, as 0.01 0.1",
    )
    probe_epochs: float = key(
        10.0,
        "solver sgd: passes over the features of a probe before another phase",
        above=0,
        give="a number above 0",
    )
    probe_solver: str | None = key(
        None,
        "how a probe's head is found; null: by the number of images, said in the log",
        choices=SOLVERS,
        note=", or leave it out to let the number of images choose",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        rates = self.probe_learning_rates
        if not rates:
            raise UserError(
                f"probe_learning_rates is {rates}: give numbers above 0, below {MAX_RATE:,.0f}, as 0.01 0.1"
            )
        if len(set(rates)) < len(rates):
            raise UserError(f"probe_learning_rates is {rates}: give each of them once")
