# SPDX-License-Identifier: Apache-2.0
"""One process at a time: who waits, who is refused, and when the lock is free again."""

import gc
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from training.common.errors import UserError
from training.common.locks import lock_folder, locked

FORK = multiprocessing.get_context("fork")


def refuse() -> None:
    raise UserError("in use")


def is_free(folder: Path) -> bool:
    try:
        with FileLock(folder / ".lock", timeout=0):
            return True
    except Timeout:
        return False


def test_the_lock_is_held_inside_and_free_afterwards(tmp_path):
    with locked(tmp_path, when_busy=refuse):
        assert not is_free(tmp_path)
    assert is_free(tmp_path)
    with pytest.raises(KeyError), locked(tmp_path, when_busy=refuse):
        raise KeyError
    assert is_free(tmp_path)


def test_who_is_refused_holds_nothing(tmp_path):
    holder = lock_folder(tmp_path, when_busy=refuse)
    entered = []
    with pytest.raises(UserError, match="in use"), locked(tmp_path, when_busy=refuse):
        entered.append(1)
    assert not entered
    holder.release()
    assert is_free(tmp_path)


def test_who_is_not_refused_waits_and_says_so_once(tmp_path):
    holder, said = lock_folder(tmp_path, when_busy=refuse), []

    def say() -> None:
        said.append("waiting")
        holder.release()

    with locked(tmp_path, when_busy=say):
        assert said == ["waiting"] and not is_free(tmp_path)
    with locked(tmp_path, when_busy=say):
        pass
    assert said == ["waiting"]


def test_the_lock_ends_with_its_owner(tmp_path):
    lock = lock_folder(tmp_path, when_busy=refuse)
    assert not is_free(tmp_path)
    del lock
    gc.collect()
    assert is_free(tmp_path)


def hold_and_die(folder: Path) -> None:
    lock = lock_folder(folder, when_busy=refuse)
    assert lock.is_locked
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_leaves_the_folder_free(tmp_path):
    process = FORK.Process(target=hold_and_die, args=(tmp_path,))
    process.start()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / ".lock").exists() and is_free(tmp_path)
