"""What the Hub refuses, as one line with a cure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx

from training.common.errors import UserError


@contextlib.contextmanager
def translated_errors(repo_id: str) -> Iterator[None]:
    """Turn what huggingface_hub raises inside the `with` into a UserError about `repo_id`.

    Raises:
        UserError: the Hub refused or was not reached; what was raised is its cause.
    """
    try:
        yield
    except (
        HfHubHTTPError,
        httpx.HTTPError,
        OfflineModeIsEnabled,
        LocalEntryNotFoundError,
    ) as error:
        raise UserError(_cure(error, repo_id)) from error


def _cure(error: Exception, repo_id: str) -> str:
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return (
            "the Hub does not accept the token: run `hf auth login`, or set HF_TOKEN to a valid one"
        )
    if status == 403:
        return f"the token may not write to {repo_id}: make one with write access and set HF_TOKEN"
    if status == 412:
        return f"{repo_id} got another commit meanwhile; nothing was uploaded: push again"
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo_id} does not exist, or the token may not see it"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the Hub did not finish the request ({reason}): push again, finished parts are kept"
