"""Signals in reader processes: a signal that stops the run must not end its readers before the step has ended.

Ctrl-C in a terminal, and schedulers, send a signal to all processes of a program, not only to the one that trains.
"""

import signal
from multiprocessing import forkserver, resource_tracker
from types import FrameType

from trainer.stopping import SIGNALS

BLOCKED = [signal.Signals[f"SIG{name}"] for name in SIGNALS]


def start_forkserver() -> None:
    """Start the process that forks the readers, if it does not run yet, with the signals blocked in it and in them.

    So are they in the process that counts their semaphores, which forgets them when it is killed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        resource_tracker.ensure_running()  # it unblocks some of them in this process
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_second_sigterm(_reader: int) -> None:
    """Let SIGTERM end this reader, but not the first: that may be the signal that stops the run.

    The training process asks its readers to end, and sends SIGTERM, twice if necessary, to those that do not.
    """
    signal.signal(signal.SIGTERM, _spare_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _spare_once(_number: int, _: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
