# SPDX-License-Identifier: Apache-2.0
"""What the Hub refuses, in words of one line; what is not the Hub's passes unchanged."""

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx

from training.common.errors import UserError
from training.common.hub_errors import translated_errors

REPO = "user/food"


def answer(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    request = httpx.Request("GET", "https://huggingface.co/user/food")
    return kind("the\nserver says", response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answer(401), "the Hub does not accept the token: run `hf auth login`"),
        (answer(403), f"the token may not write to {REPO}"),
        (answer(403, GatedRepoError), f"the token may not write to {REPO}"),
        (answer(412), f"{REPO} got another commit meanwhile; nothing was uploaded"),
        # The Hub says 401 of a repository that a stranger may not know of.
        (answer(401, RepositoryNotFoundError), f"{REPO} does not exist, or the token may not see"),
        (answer(404, RepositoryNotFoundError), f"{REPO} does not exist, or the token may not see"),
        (answer(500), "the Hub did not finish the request (the server says"),
        (httpx.ConnectError("no route\nto host"), "request (no route to host): push again"),
        (httpx.ReadTimeout(""), "request (ReadTimeout): push again"),
        (OfflineModeIsEnabled("offline"), "request (offline): push again"),
        (LocalEntryNotFoundError("not in the cache"), "request (not in the cache): push again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_refusal_is_one_line_with_a_cure(error, words):
    with pytest.raises(UserError) as refused, translated_errors(REPO):
        raise error
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.__cause__ is error


def test_a_long_reason_is_cut():
    with pytest.raises(UserError) as refused, translated_errors(REPO):
        raise httpx.ConnectError("x" * 5000)
    assert len(str(refused.value)) < 320


@pytest.mark.parametrize("error", [KeyError("a"), OSError("disk"), UserError("mine")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as passed, translated_errors(REPO):
        raise error
    assert passed.value is error


def test_nothing_raised_nothing_said():
    with translated_errors(REPO):
        pass
