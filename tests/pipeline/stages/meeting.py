"""A worker that shows how many workers run at the same time."""

import os
import time
from pathlib import Path
from typing import final


@final
class Meeting:
    """A worker that waits for others, and then for a signal to end."""

    def meet(self, where: tuple[Path, int, str]) -> int:
        """Wait until so many processes have met in a folder, and a file is there; return this process.

        Args:
            where: the folder; how many processes; the file's name, empty for none.
        """
        folder, processes, signal = where
        (folder / f"process-{os.getpid()}").touch()
        until = time.monotonic() + 60
        while len(list(folder.glob("process-*"))) < processes or not (folder / signal).exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        return os.getpid()

    def end(self, now: bool) -> None:
        """End at once, as a killed process does."""
        if now:
            os._exit(1)


@final
class Clumsy:
    """A worker that raises an error of no kind that is ours."""

    def fail(self, mark: Path) -> None:
        """Note the attempt, and raise."""
        mark.write_text(mark.read_text() + "." if mark.exists() else ".")
        raise ZeroDivisionError("a fault in a worker")
