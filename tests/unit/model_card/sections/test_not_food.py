# SPDX-License-Identifier: Apache-2.0
"""The block about pictures without food."""

import pytest

from model_card.checks import MissingFactError
from model_card.render import render_card
from model_card.sections.not_food import NotFood
from tests.unit.card_files import DIGEST, facts_of, files

SHARES = [
    {"promised": 0.02, "threshold": 512.3, "refused": 0.016, "interval": [0.008, 0.03]},
    {"promised": 0.05, "threshold": 431.27, "refused": 0.052, "interval": [0.035, 0.07]},
]
VALUE = {"score": "mahalanobis", "n_fitted": 20000, "n_held_out": 3787, "shares": SHARES}


def test_promised_and_measured_stand_side_by_side():
    block = NotFood()
    text = block.markdown(block.check(VALUE), n=375)
    assert "fitted on 20,000 training images, its thresholds on 3,787 selection images" in text
    assert "| 5 % | 431.3 | 5.2 % (3.5 to 7.0 %) |" in text
    assert "| 2 % | 512.3 | 1.6 %" in text


def test_the_limits_are_said_and_no_auroc_of_pictures_is():
    text = NotFood().markdown(VALUE, n=375)
    assert "is not recognised as unknown" in text and "drawings and plain textures are easy" in text
    assert text.count("AUROC") == 1  # that of unknown dishes, as a limit


@pytest.mark.parametrize("change", [{"score": "energy"}, {"n_fitted": 0}, {"shares": None}])
def test_what_cannot_be_true_is_refused(change):
    with pytest.raises((ValueError, MissingFactError)):
        NotFood().check({**VALUE, **change})


def test_a_handler_is_said_to_take_it_where_the_model_tells_it():
    said, both, code = "`not_food` is a parameter too", files(), {"handler.py": DIGEST}
    both["evaluation"]["not_food"] = VALUE
    assert said in render_card(facts_of(both), code_sha256=code)
    assert said not in render_card(facts_of(both))
    del both["evaluation"]["not_food"]
    assert said not in render_card(facts_of(both), code_sha256=code)
