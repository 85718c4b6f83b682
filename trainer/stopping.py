"""Signals that ask a command to stop: SIGTERM, Ctrl-C, and for training SIGUSR1 and SIGUSR2.

Training stops at the end of a step, so that a checkpoint can be written. Everything else stops at once.
"""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final

ALWAYS = ("INT", "TERM")
"""Signals that every command obeys, without `SIG`."""
SIGNALS = (*ALWAYS, "USR1", "USR2")
"""All signals that may stop a run."""
AGAIN = "run the same command again: it resumes"


@final
class Stopped(BaseException):
    """A signal has stopped the command. It is no `Exception`: no library may take it for a fault and continue."""

    def __init__(self, number: int, reached: str = "") -> None:
        """Say what stopped the command.

        Args:
            number: number of the signal.
            reached: what the command has done, ` after step 3 of 9`; empty if it has nothing to say.
        """
        super().__init__(number, reached)
        self.number, self.reached = number, reached

    def __str__(self) -> str:
        name = "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name
        return f"stopped by {name}{self.reached}"

    @property
    def status(self) -> int:
        """The exit status that shells expect: 128 plus the signal's number."""
        return 128 + self.number


@final
class StopRequest:
    """Whether a signal has asked this process to stop."""

    def __init__(self) -> None:
        self.received = 0
        """Number of the first signal; 0 if there was none."""
        self.deferred = False
        """Whether the command looks at `received` by itself. Otherwise a signal raises `Stopped` at once."""

    @contextmanager
    def on_signals(self, names: Iterable[str]) -> Iterator[None]:
        """Obey signals while the block runs. Outside the main thread this does nothing, because Python cannot.

        A signal that is ignored, as SIGINT in a background job of a shell, stays ignored.

        Args:
            names: names of signals, without `SIG`.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.Signals[f"SIG{name}"] for name in names]
        before = {number: signal.getsignal(number) for number in numbers}
        for number in (number for number, handler in before.items() if handler is not signal.SIG_IGN):
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        # `timeout` and schedulers may send a signal twice; only a second Ctrl-C means that the user will not wait
        first, self.received = not self.received, self.received or number
        if (first and not self.deferred) or (not first and number == signal.SIGINT):
            raise Stopped(number)
