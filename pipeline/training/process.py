"""One process of a training run: `python -m trainer train`, started as torchrun would start it, and listened to."""

import ctypes
import io
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, final

from pipeline.workers.installation import ROOT, code_sha256, require_same_installation

LISTEN_SECONDS = 0.3
"""How long one look waits for something to be said."""
TRAINER = ("trainer",)
"""The package that is run."""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before there is a fork to load it in


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a process is started with."""

    arguments: tuple[str, ...]
    """Of `python -m trainer`."""
    environment: Mapping[str, str]
    """Beside what the process finds where it starts."""
    folder: str
    """That relative paths start from."""
    code: str
    """Digest of the trainer that is meant."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a process said since it was last listened to."""

    said: tuple[tuple[str, str], ...]
    """(`out` or `err`, text), in their order; text keeps its line ends."""
    status: int | None
    """How it ended, once it has and all is heard; below zero, the signal that ended it."""


@final
class TrainingProcess:
    """The process. It ends with the one that holds it, whatever ends that."""

    def free_port(self, _: None) -> int:
        """Return a port that nobody listens on here."""
        with socket.socket() as free:
            free.bind(("", 0))
            return free.getsockname()[1]

    def start(self, launch: Launch) -> None:
        """Start it.

        Raises:
            SettingError: another trainer is installed here than is meant.
        """
        here = code_sha256(TRAINER)
        require_same_installation({"trainer": launch.code}, {"trainer": here}, socket.gethostname())
        self._said: queue.Queue[tuple[str, str]] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *launch.arguments],
            cwd=launch.folder,
            env=environment(launch.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_end_with_parent,
        )
        streams = {"out": self._process.stdout, "err": self._process.stderr}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True) for name, stream in streams.items()
        ]
        for reader in self._readers:
            reader.start()

    def listen(self, _: None) -> Heard:
        """Return what it said meanwhile; wait a little where it said nothing yet."""
        ended = not any(reader.is_alive() for reader in self._readers)  # before the queue is emptied
        said = []
        try:
            said.append(self._said.get(timeout=0.0 if ended else LISTEN_SECONDS))
            while True:
                said.append(self._said.get_nowait())
        except queue.Empty:
            pass
        return Heard(said=tuple(said), status=self._process.wait() if ended else None)

    def _read(self, name: str, stream: IO[bytes]) -> None:
        # a progress bar ends its text by going back to the start of the line
        with io.TextIOWrapper(stream, errors="replace", newline="") as texts:
            for text in texts:
                self._said.put((name, text))


def environment(told: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that is told its place.

    Args:
        told: torchrun's variables.
    """
    # a Slurm that Ray was started under would tell it another place
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **told}


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
