# SPDX-License-Identifier: Apache-2.0
"""Which solver finds a probe's head, and the reason that is said."""

import pytest

from tests.unit.toys import tiny_settings
from training.common.errors import UserError
from training.probe.arguments import LEARNING_RATES, SOLVERS, ProbeArguments
from training.probe.solver import LOGISTIC, SGD, choose_solver, most_images

SMOOTHED = {"label_smoothing_factor": 0.1}
NOISY = {"loss": "generalized_cross_entropy"}


@pytest.fixture
def choose(tmp_path):
    def choose(images: int = 300, tune: str = "linear_probe", values=None, **probe: object):
        settings = tiny_settings(tmp_path, tune=tune, **(values or {}))
        return choose_solver(ProbeArguments(**probe), settings, images, 5_000)

    return choose


def test_the_number_of_images_chooses(choose):
    assert (LOGISTIC, SGD) == SOLVERS
    limit = "the 5,000 that this many labels and features allow"
    assert choose(5000) == (LOGISTIC, f"5,000 images are no more than {limit}")
    assert choose(5001) == (SGD, f"5,001 images are more than {limit}")


def test_many_labels_and_features_leave_room_for_fewer_images():
    assert most_images(10, 384) == 52_083 and most_images(101, 768) == 2_578


@pytest.mark.parametrize("images", [3, 10**6])
def test_what_the_recipe_asks_for_comes_first(choose, images):
    for solver in SOLVERS:
        slow = " (slow above 5,000 images)" if images > 5000 and solver == LOGISTIC else ""
        assert choose(images, probe_solver=solver) == (solver, f"probe_solver is {solver}{slow}")


@pytest.mark.parametrize(
    ("values", "said"),
    [(SMOOTHED, "label_smoothing_factor 0.1"), (NOISY, "loss generalized_cross_entropy")],
)
def test_another_loss_leads_to_sgd_or_is_refused(choose, values, said):
    assert choose(values=values) == (SGD, f"{said} is no loss of logistic regression")
    with pytest.raises(UserError, match=f"^probe_solver is logistic_regression with {said}: .*"):
        choose(values=values, probe_solver=LOGISTIC)


def test_the_loss_of_a_second_phase_is_not_the_probes(choose):
    for tune in ("probe_then_full", "probe_then_lora"):
        assert choose(tune=tune, values=SMOOTHED)[0] == LOGISTIC
        assert choose(tune=tune, values=SMOOTHED, probe_solver=LOGISTIC)[0] == LOGISTIC


def test_rates_that_are_given_lead_to_sgd(choose):
    assert choose(probe_learning_rates=[0.1]) == (SGD, "the recipe has probe_learning_rates")
    assert choose(probe_learning_rates=list(LEARNING_RATES))[0] == LOGISTIC
