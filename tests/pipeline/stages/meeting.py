"""A worker by which one sees how many there are at once."""

import os
import time
from pathlib import Path
from typing import final


@final
class Meeting:
    """A worker that waits for others, and then for leave to go."""

    def meet(self, where: tuple[Path, int, str]) -> int:
        """Wait until so many processes are in the room and it holds a file of that name; say which this one is."""
        room, company, leave = where
        (room / f"process-{os.getpid()}").touch()
        until = time.monotonic() + 60
        while len(list(room.glob("process-*"))) < company or not (room / leave).exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        return os.getpid()

    def end(self, now: bool) -> None:
        """End without a word, as what is killed does."""
        if now:
            os._exit(1)
