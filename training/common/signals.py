"""End this process in order when it is told to: Ctrl-C, `kill`, a terminal that is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

GRACE_SECONDS = 8.0  # for the orderly end; `docker stop` kills after 10, torch's launcher after 30


class Interrupted(KeyboardInterrupt):
    """The process was told to end by a signal; libraries treat it as they treat Ctrl-C.

    Attributes:
        way_on: how to go on, in words; whoever knows more of it on the way out replaces it.
        exit_code: 128 and the signal's number, as shells have it: 130 after Ctrl-C, 143 after `kill`.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number
        self.way_on = "give the same command again"


@contextlib.contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """End the process in order on each of `SIGNALS`: one line, from the first process, and its exit code.

    By default SIGTERM ends a process on the spot. Its workers then live on for seconds, and with
    them the lock of the run folder, which they have inherited. Here a signal raises `Interrupted` in
    the main thread. The next ones are ignored: they would break off the orderly end, and a launcher
    passes on what a terminal has sent to all already. If the orderly end takes more than
    `GRACE_SECONDS`, the process and its workers end on the spot. A signal that was ignored before, as
    under nohup, stays ignored.

    >>> with exit_on_interrupt():
    ...     main()
    """
    ending = _Ending()
    ending.install()
    try:
        yield
    except Interrupted as interrupt:
        ending.say(interrupt.way_on)
        sys.exit(interrupt.exit_code)
    finally:
        if ending.number is None:
            ending.uninstall()


class _Ending:
    """The handler of `SIGNALS`, two hooks and a thread, for as long as they are installed."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.handlers: dict[int, Any] = {}  # those before
        self.hooks = sys.unraisablehook, sys.excepthook
        self.number: int | None = None  # of the signal that ends the process
        self.is_lost = False  # whether `Interrupted` was raised where Python ignores exceptions
        self.told = threading.Lock()  # released when the thread has something to do
        self.has_said = False

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for each in SIGNALS:
            if signal.getsignal(each) != signal.SIG_IGN:
                self.handlers[each] = signal.signal(each, self._on_signal)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_worker_alone)
        sys.unraisablehook = self._on_unraisable
        self.told.acquire()
        # Now: a handler may run where another thread cannot be started.
        threading.Thread(target=self._watch, daemon=True).start()

    def uninstall(self) -> None:
        if not self.told.locked():
            return
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook, sys.excepthook = self.hooks
        self.told.release()

    def say(self, way_on: str) -> None:
        if not self.has_said and os.environ.get("LOCAL_RANK", "0") == "0":
            self.has_said = True
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stderr.write(f"interrupted: {way_on}\n")
                sys.stderr.flush()

    def _leave_worker_alone(self) -> None:
        """Give a forked worker Python's own handlers: SIGTERM then ends it on the spot.

        Ours would run between two of its bytecodes: a signal that comes just before the worker waits for
        a lock in C would be seen when it has the lock, and a pool that ends its workers waits for ever.
        """
        for number in self.handlers:
            if signal.getsignal(number) == self._on_signal:  # not once it is uninstalled
                is_ctrl_c = number == signal.SIGINT
                signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: Any) -> None:
        if os.getpid() != self.process:  # a worker that was told to end as it was forked
            _end_worker(number)
        elif self.number is None:
            self.number = number
            self._let_workers_die()
            self.told.release()
            raise Interrupted(number)
        elif self.is_lost:
            self.is_lost = False
            raise Interrupted(self.number)

    def _let_workers_die(self) -> None:
        """Say nothing of workers, which a signal to the whole group reaches too."""
        if hasattr(signal, "SIGCHLD"):  # torch raises where a worker of its DataLoader dies
            # Not SIG_DFL: Python speaks of a race where the signal is on its way already.
            signal.signal(signal.SIGCHLD, lambda *_: None)
        sys.excepthook = self._on_uncaught

    def _on_uncaught(self, *error: Any) -> None:
        # A thread that hands files to the workers prints where one of them hangs up.
        if threading.current_thread() is threading.main_thread():
            self.hooks[1](*error)

    def _on_unraisable(self, unraisable: Any) -> None:
        """Note that `Interrupted` was raised inside a callback of the garbage collector, and lost.

        A collection takes a good part of a second, at every start of a training; a signal that comes
        meanwhile is seen in the first callback.
        """
        if isinstance(unraisable.exc_value, Interrupted):
            self.is_lost = True
        else:
            self.hooks[0](unraisable)

    def _watch(self) -> None:
        """Raise again what was lost, and end the process where the orderly end does not come to its end.

        An exception may come while a lock is taken that is never released then, as in the start of a
        queue; Python cannot tell.
        """
        self.told.acquire()
        if self.number is None:
            return
        latest = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < latest:
            time.sleep(0.05)
            if self.is_lost:
                os.kill(self.process, self.number)
        _kill_workers()
        self.say("give the same command again")
        os._exit(128 + self.number)


def _kill_workers() -> None:
    """Kill what was started by multiprocessing, or by its copy that `datasets` uses."""
    for name in ("multiprocessing", "multiprocess"):
        if name in sys.modules:
            for child in sys.modules[name].active_children():
                child.kill()
                child.join(1)


def _end_worker(number: int) -> None:
    """Do in a forked worker what Python does by default: the handler is meant for its parent."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
