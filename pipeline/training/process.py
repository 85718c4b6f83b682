"""One process of a training run: `python -m trainer train`, started as torchrun would start it; its output is read."""

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

READ_SECONDS = 0.3
"""How long `read_output` waits for the first text."""
TRAINER = ("trainer",)
"""The package that runs in the process."""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: a forked child must not load libraries


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a process."""

    arguments: tuple[str, ...]
    """Arguments of `python -m trainer`."""
    environment: Mapping[str, str]
    """Variables to add to the environment of the node."""
    folder: str
    """Working folder: relative paths start from it."""
    code: str
    """Digest of the driver's trainer package."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a process printed since its output was last read."""

    texts: tuple[tuple[str, str], ...]
    """(`out` or `err`, text) in the order of printing; texts keep their line ends."""
    status: int | None
    """Exit status, once the process has ended and all of its output was read; below zero, the signal that ended it."""


@final
class TrainingProcess:
    """A worker that starts the process. On Linux the kernel kills the process when the worker's process ends."""

    def free_port(self, _: None) -> int:
        """Return a free port of this node."""
        with socket.socket() as free:
            free.bind(("", 0))
            return free.getsockname()[1]

    def start(self, launch: Launch) -> None:
        """Start the process.

        Raises:
            SettingError: the trainer installed on this node is not the driver's.
        """
        here = code_sha256(TRAINER)
        require_same_installation({"trainer": launch.code}, {"trainer": here}, socket.gethostname())
        self._texts: queue.Queue[tuple[str, str]] = queue.Queue()
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

    def read_output(self, _: None) -> Output:
        """Return what the process printed since the last call; wait a little where there is nothing yet."""
        ended = not any(reader.is_alive() for reader in self._readers)  # asked before the queue is emptied
        texts = []
        try:
            texts.append(self._texts.get(timeout=0.0 if ended else READ_SECONDS))
            while True:
                texts.append(self._texts.get_nowait())
        except queue.Empty:
            pass
        return Output(texts=tuple(texts), status=self._process.wait() if ended else None)

    def stop(self, _: None) -> None:
        """Ask the process to stop: the trainer writes a checkpoint at the end of its step, and ends."""
        self._process.send_signal(signal.SIGTERM)

    def _read(self, name: str, stream: IO[bytes]) -> None:
        # newline="": a progress bar ends each text with a carriage return, which must stay one
        with io.TextIOWrapper(stream, errors="replace", newline="") as texts:
            for text in texts:
                self._texts.put((name, text))


def environment(torchrun: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process: this node's, with torchrun's variables.

    Args:
        torchrun: variables that torchrun would set: rank, world size, address.
    """
    # where Slurm started Ray, its variables would name another rank
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **torchrun}


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
