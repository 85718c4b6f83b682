"""Disks that fail at a flush, and processes that are killed as they touch a file."""

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from storage_schemas.format.errors import AbstractStillhouseError


@final
class Flushes:
    """Takes the place of `os.fsync`: it does nothing, or fails at a chosen call."""

    left = 0

    def flush(self, _: int) -> None:
        """Count down to the failure."""
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    @contextmanager
    def failing_at(self, moment: int) -> Iterator[None]:
        """Fail at the n-th flush of the block."""
        self.left = moment
        try:
            yield
        finally:
            self.left = 0


FLUSHES = Flushes()


@final
@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended."""

    killed: bool
    whole: bool
    refused: bool
    said: str


def killed_at(moment: int, act: Callable[[], None]) -> Ended:
    """Call a function in a forked process, which is killed as it makes, opens for writing or renames its n-th file.

    Raises:
        AssertionError: it ended otherwise than by that, by completing or by a refusal.
    """
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os._exit(_in_child(moment, act, said.fileno()))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        text = said.read().decode()
    assert status in (-signal.SIGKILL, 0, 2), text
    return Ended(killed=status == -signal.SIGKILL, whole=status == 0, refused=status == 2, said=text)


def _in_child(moment: int, act: Callable[[], None], said: int) -> int:
    left = moment

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in ("os.rename", "os.mkdir", "os.remove") or (event == "open" and arguments[1] == "xb"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    status = 1
    try:
        act()
        status = 0
    except AbstractStillhouseError as error:
        os.write(said, str(error).encode())
        status = 2
    except BaseException:
        os.write(said, traceback.format_exc().encode())
    return status
