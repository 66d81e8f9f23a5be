# SPDX-License-Identifier: Apache-2.0
"""Trackers, optimizers and schedules that cannot be had are refused when the recipe is parsed."""

import sys

import pytest
from transformers.integrations import integration_utils

from tests.unit.toys import tiny_arguments
from training.common.errors import UserError
from training.engine.packages import check_trackers


def said_of(tmp_path, **values: object) -> str:
    with pytest.raises(UserError) as error:
        tiny_arguments(tmp_path, **values)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("wandb", "wandb"),
        ("mlflow", "mlflow"),
        ("comet_ml", "comet-ml"),
        ("azure_ml", "azureml-core"),
    ],
)
def test_a_tracker_that_is_not_installed_names_its_package(tmp_path, monkeypatch, name, package):
    asked = {"comet_ml": "comet", "azure_ml": "azureml"}.get(name, name)
    monkeypatch.setattr(integration_utils, f"is_{asked}_available", lambda: False)
    assert said_of(tmp_path, report_to=["tensorboard", name]) == (
        f"report_to {name} needs a package that is not installed: pip install {package}, or train "
        "with --report_to none"
    )
    monkeypatch.setattr(integration_utils, f"is_{asked}_available", lambda: True)
    check_trackers([name])


def test_trackers_that_are_there(tmp_path):
    check_trackers([])
    assert tiny_arguments(tmp_path, report_to=["none"]).report_to == []
    assert tiny_arguments(tmp_path, report_to=["tensorboard"]).report_to == ["tensorboard"]
    assert said_of(tmp_path, report_to=["comet"]).startswith("report_to is 'comet': give none, or")


def test_every_tracker_that_is_asked_for_can_be_asked():
    """A renamed question would be answered with yes."""
    from training.engine.packages import _ASKED

    for name in integration_utils.INTEGRATION_TO_CALLBACK:
        assert callable(getattr(integration_utils, f"is_{_ASKED.get(name, name)}_available"))


@pytest.mark.parametrize(
    ("name", "package"), [("adamw_bnb_8bit", "bitsandbytes"), ("galore_adamw", "galore_torch")]
)
def test_an_optimizer_that_is_not_installed(tmp_path, monkeypatch, name, package):
    monkeypatch.setattr(f"transformers.trainer_optimizer.is_{package}_available", lambda: False)
    said = said_of(tmp_path, optim=name)
    assert said.startswith(f"optim {name}: You need to install `{package}`")
    assert said.endswith("; or leave optim out")


def test_an_optimizer_that_asks_for_the_model_is_left_to_training(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.trainer_optimizer.is_lomo_available", lambda: True)
    monkeypatch.setitem(sys.modules, "lomo_optim", None)
    assert tiny_arguments(tmp_path, optim="lomo").optim == "lomo"


def test_optimizers_and_their_arguments(tmp_path):
    assert said_of(tmp_path, optim="adam").startswith("optim is 'adam': give one of adamw_torch, ")
    assert said_of(tmp_path, optim_args="momentum") == (
        "optim_args is 'momentum': give name=value,name=value"
    )
    tiny_arguments(tmp_path, optim="sgd", optim_args="momentum=0.9, nesterov=True")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("cosine_with_min_lr", None, "One of min_lr or min_lr_rate should be set"),
        ("cosine", {"min_lr": 1e-6}, "unexpected keyword argument 'min_lr'"),
        ("warmup_stable_decay", None, "num_decay_steps"),
    ],
)
def test_a_schedule_without_its_keywords(tmp_path, name, given, said):
    message = said_of(tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=given)
    assert message.startswith(f"lr_scheduler_type {name} with lr_scheduler_kwargs {given}: ")
    assert said in message and message.endswith("or another lr_scheduler_type")


def test_a_schedule_with_its_keywords(tmp_path):
    given = {"min_lr": 1e-6}
    made = tiny_arguments(
        tmp_path, lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs=given
    )
    assert made.lr_scheduler_kwargs == given
    assert said_of(tmp_path, lr_scheduler_type="nope").startswith(
        "lr_scheduler_type is 'nope': give one of linear, cosine"
    )
