# SPDX-License-Identifier: Apache-2.0
"""Recipes written for a test, parsed or refused."""

import pytest

from training.common.errors import UserError
from training.config import recipe as config
from training.config.recipe import parse_recipe


@pytest.fixture
def parse(tmp_path):
    """parse(text of the file, *command line) -> Recipe; on the CPU wherever the tests run."""

    def parse(text: str, *overrides: str) -> config.Recipe:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return parse_recipe([str(path), "--use_cpu=true", *overrides])

    return parse


@pytest.fixture
def refused(parse):
    def refused(text: str, *overrides: str) -> str:
        with pytest.raises(UserError) as error:
            parse(text, *overrides)
        message = str(error.value)
        assert "\n" not in message
        return message

    return refused
