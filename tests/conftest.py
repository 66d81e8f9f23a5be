# SPDX-License-Identifier: Apache-2.0
"""No network, no foreign cache: set before anything of Hugging Face is imported.

`tiny_run` is a whole run, trained once a session, that other tests read and never change.
"""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = tempfile.mkdtemp(prefix="vit-food101-tests-")
os.environ.update(
    HF_HOME=HOME,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    # Idle OpenMP threads spin by default, which costs most where cores are shared.
    OMP_WAIT_POLICY="PASSIVE",
)
# A developer's own cache, token or launcher must not decide what a test sees.
for name in ("HF_TOKEN", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
    os.environ.pop(name, None)


def pytest_sessionfinish() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def frozen() -> None:
    """Spare the garbage collector what was imported: each training ends with a full collection.

    Through all of torch and transformers it takes 0.3 s, more than half of a toy training.
    """
    gc.collect()
    gc.freeze()


# ---- nothing outside this machine is asked -----------------------------------------------------

_attempts: list[str] = []


def _is_loopback(host: object) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    return host in (None, "", "localhost", "::1", "0.0.0.0") or str(host).startswith("127.")


def _watch_sockets(event: str, args: tuple) -> None:
    """An audit hook sees every Python socket, whoever made it; it can never be taken out again."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else None  # a path is a Unix socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    else:
        return
    if not _is_loopback(host):
        _attempts.append(f"{event} {host}")
        raise ConnectionRefusedError(f"a test looked beyond this machine: {event} {host}")


sys.addaudithook(_watch_sockets)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[list[str]]:
    """Fail the test that looked beyond this machine, even where the product caught the error."""
    _attempts.clear()
    yield _attempts
    if _attempts:
        pytest.fail(f"looked beyond this machine: {', '.join(_attempts)}")


# ---- one run for many tests -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and validation/ of three labels, 66 JPEGs in all."""
    from tests.unit.toys import write_image_folder

    return write_image_folder(tmp_path_factory.mktemp("data") / "dishes", train=16, validation=6)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """The folder of a finished run, release/ included; read it, never change it."""
    from tests.unit.toys import train, write_recipe

    folder = tmp_path_factory.mktemp("runs")
    train(write_recipe(folder / "tiny.yaml", dataset=tiny_data), "--output_dir", folder / "run")
    return folder / "run"
