"""Ctrl-C and SIGTERM: a command ends in one line and the status that shells expect, 128 plus the signal's number.

A signal raises `KeyboardInterrupt` in the main thread, so that open files are removed and leases are given back. Ray
takes the handlers of signals for itself when it starts, and it replaces the exception by one of its own. So the signal
is remembered here, and `catch_signals` is called again after Ray has started.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM)
REPEATED_SECONDS = 2.0
"""A second signal within this time belongs to the first: `timeout` and schedulers send one to a process and one to its
group. A later one ends the process at once."""

_active: list[bool] = []
"""Not empty while a command runs whose signals are caught."""
_received: list[tuple[int, float]] = []
"""The signal that interrupted the command, and when (seconds, monotonic clock)."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Catch signals while the block runs. Outside the main thread nothing is caught, because Python cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in CAUGHT}
    _received.clear()
    _active.append(True)
    catch_signals()
    try:
        yield
    finally:
        _active.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def catch_signals() -> None:
    """Handle the signals in an `interruptible` block. A signal that the parent process had ignored stays ignored."""
    if not _active or threading.current_thread() is not threading.main_thread():
        return
    for number in CAUGHT:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interruption_status() -> int:
    """Return the exit status of an interrupted command: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + _interrupted_by()


def interruption_line(kept: str) -> str:
    """Return the line that tells the user what ended a command.

    Args:
        kept: what becomes of the work done so far.
    """
    name = "Ctrl-C" if _interrupted_by() == signal.SIGINT else signal.Signals(_interrupted_by()).name
    return f"interrupted by {name}{kept}"


def note_signal(number: int) -> None:
    """Remember a signal that another handler has received."""
    _received.append((number, time.monotonic()))


def _interrupted_by() -> int:
    return _received[0][0] if _received else signal.SIGINT


def _interrupt(number: int, _: FrameType | None) -> None:
    if not _received:
        note_signal(number)
        raise KeyboardInterrupt
    if time.monotonic() - _received[0][1] > REPEATED_SECONDS:
        os._exit(128 + number)
