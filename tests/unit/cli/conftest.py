# SPDX-License-Identifier: Apache-2.0
"""The command food101, in this process."""

import pytest

from training.cli import main as cli


@pytest.fixture
def food101(capfd):
    """food101(*words) -> (exit code, stdout, stderr), in this process."""

    def food101(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as exit:  # argparse leaves that way
            code = exit.code
        out, err = capfd.readouterr()
        return code, out, err

    return food101


@pytest.fixture
def refused(food101):
    """The one line of a mistake."""

    def refused(*words: object) -> str:
        code, out, err = food101(*words)
        assert code == 2, err
        assert out == ""
        assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
        return err

    return refused
