# SPDX-License-Identifier: Apache-2.0
"""Two runs to compare."""

import pytest

from tests.unit.compare.toy_runs import A, B, write_run


@pytest.fixture
def pair(tmp_path) -> tuple[str, str]:
    return str(write_run(tmp_path / "a", A)), str(write_run(tmp_path / "b", B))
