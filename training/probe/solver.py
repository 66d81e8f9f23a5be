"""Choose how a probe's head is found: by logistic regression, or by SGD heads; and say why."""

from __future__ import annotations

from training.common.errors import UserError
from training.engine.training_arguments import Settings
from training.probe.arguments import LEARNING_RATES, ProbeArguments

LOGISTIC, SGD = "logistic_regression", "sgd"

# Images x labels x features that logistic regression is chosen for. The whole choice of the strength took
# one core 5, 15 and 44 seconds for 300, 1,000 and 3,000 photographs with 10 labels and 384 features (1.2e7),
# and 202 with 101 made-up labels (1.2e8): so this is about 6 minutes of one core, 3 of two.
MOST = 2e8


def most_images(num_labels: int, width: int) -> int:
    """Compute how many images logistic regression is chosen for, with labels and features of these numbers."""
    return int(MOST / num_labels / width)


def choose_solver(
    probe: ProbeArguments, settings: Settings, num_images: int, most: int
) -> tuple[str, str]:
    """Choose the solver that the recipe asks for, or the one for this number of images.

    Args:
        num_images: what a logistic regression would be fitted on.
        most: what `most_images` gives.

    Returns:
        (one of `SOLVERS`, the reason in words).

    Raises:
        UserError: logistic regression is asked for with a loss that it does not have.
    """
    other = None if settings.method.tuning.probes_first else _other_loss(settings)
    asked = probe.probe_solver
    if asked == LOGISTIC and other:
        raise UserError(
            f"probe_solver is logistic_regression with {other}: its loss is the plain cross-entropy; leave "
            "one of the two out"
        )
    if asked is not None:
        slow = asked == LOGISTIC and num_images > most
        return asked, f"probe_solver is {asked}" + slow * f" (slow above {most:,} images)"
    if other:
        return SGD, f"{other} is no loss of logistic regression"
    if probe.probe_learning_rates != LEARNING_RATES:
        return SGD, "the recipe has probe_learning_rates"
    limit = f"the {most:,} that this many labels and features allow"
    if num_images > most:
        return SGD, f"{num_images:,} images are more than {limit}"
    return LOGISTIC, f"{num_images:,} images are no more than {limit}"


def _other_loss(settings: Settings) -> str | None:
    """Name the key that asks for another loss than the cross-entropy; None where there is none."""
    if settings.loss.generalized_q is not None:
        return f"loss {settings.loss.loss}"
    if settings.training.label_smoothing_factor:
        return f"label_smoothing_factor {settings.training.label_smoothing_factor:g}"
    return None
