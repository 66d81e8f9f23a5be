# SPDX-License-Identifier: Apache-2.0
"""A process that is told to end: its line, its exit code, and that it does end. Each has a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from training.common.signals import SIGNALS, exit_on_interrupt

ROOT = Path(__file__).parents[3]
HEAD = """
import os, signal, sys, threading, time
from training.common import signals
from training.common.signals import Interrupted, exit_on_interrupt
# Who began the tests may ignore them, as nohup does, and a process inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
def tell(number=signal.SIGTERM): os.kill(os.getpid(), number)
"""


@pytest.fixture
def ended() -> Callable[..., tuple[int, str, str]]:
    """ended(lines of Python) -> (exit code, stdout, stderr)."""

    def ended(text: str, **environment: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", HEAD + textwrap.dedent(text)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, done.stdout, done.stderr

    return ended


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_is_one_line_and_its_exit_code(ended, name):
    text = f"""
    with exit_on_interrupt():
        try:
            tell(signal.{name}); time.sleep(9)
        finally:
            tell(signal.{name}); tell(signal.SIGINT)  # as a launcher does that passes it on
            print("put in order")
    """
    line = "interrupted: give the same command again\n"
    assert ended(text) == (128 + getattr(signal, name), "put in order\n", line)
    assert ended(text, LOCAL_RANK="1") == (128 + getattr(signal, name), "put in order\n", "")


def test_the_way_on_is_what_is_known_on_the_way_out(ended):
    text = """
    with exit_on_interrupt():
        try:
            tell(); time.sleep(9)
        except Interrupted as interrupt:
            interrupt.way_on = "go on"; raise
    """
    assert ended(text) == (143, "", "interrupted: go on\n")


def test_what_is_ignored_stays_ignored(ended):
    text = """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with exit_on_interrupt():
        tell(signal.SIGHUP); time.sleep(0.1); print("still here")
    """
    assert ended(text) == (0, "still here\n", "")


def test_an_interrupt_that_python_loses_is_raised_again(ended):
    text = """
    class Weak:
        def __del__(self): tell(); [None for _ in range(9)]
    with exit_on_interrupt():
        Weak(); time.sleep(9)
    """
    assert ended(text) == (143, "", "interrupted: give the same command again\n")


def test_another_error_in_a_callback_is_shown_as_ever(ended):
    text = """
    class Weak:
        def __del__(self): raise ValueError("mine")
    with exit_on_interrupt(): Weak()
    """
    code, _, said = ended(text)
    assert code == 0 and "ValueError: mine" in said


def test_an_end_that_does_not_come_is_made_and_workers_with_it(ended):
    text = """
    import multiprocessing
    signals.GRACE_SECONDS = 0.2
    lock = threading.Lock()
    with exit_on_interrupt():
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(99,))
        worker.start(); print(worker.pid)
        lock.acquire()
        try:
            tell(); time.sleep(9)
        finally:
            lock.acquire()
    """
    code, out, said = ended(text)
    assert (code, said) == (143, "interrupted: give the same command again\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(out), 0)


def test_a_forked_worker_ends_as_if_nothing_were_set(ended):
    text = """
    import multiprocessing
    with exit_on_interrupt():
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(99,))
        worker.start(); time.sleep(0.1); worker.terminate(); worker.join()
        print(worker.exitcode)
    """
    assert ended(text) == (0, "-15\n", "")


def test_a_forked_worker_has_pythons_own_handlers(ended):
    """A handler of ours is only run between bytecodes: a worker that waits in C would never end."""
    text = """
    with exit_on_interrupt():
        ours = [signal.getsignal(each) for each in signals.SIGNALS]
        if (worker := os.fork()) == 0:
            print([signal.getsignal(each) for each in signals.SIGNALS] == [
                signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL], flush=True)
            os._exit(0)
        os.waitpid(worker, 0)
        print([signal.getsignal(each) for each in signals.SIGNALS] == ours)
    """
    assert ended(text) == (0, "True\nTrue\n", "")


def test_without_a_signal_all_is_as_before():
    before = [signal.getsignal(each) for each in SIGNALS], sys.unraisablehook, sys.excepthook
    with exit_on_interrupt():
        assert signal.getsignal(signal.SIGTERM) != before[0][1]
    with pytest.raises(ZeroDivisionError), exit_on_interrupt():
        _ = 1 / 0
    after = [signal.getsignal(each) for each in SIGNALS], sys.unraisablehook, sys.excepthook
    assert after == before
