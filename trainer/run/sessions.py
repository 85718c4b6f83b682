"""Sessions: the stretches of time in which a run was trained. They say how long it took, and with which versions."""

import importlib.metadata
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from trainer.run_folder import RunFolder, read_json, write_json

LIBRARIES = ("torch", "lightning", "timm")
"""Libraries that training computes with."""


@contextmanager
def recorded_session(run: RunFolder, start: int, device: str, step: Callable[[], int]) -> Iterator[None]:
    """Add a session to `sessions.json` when the block begins, and its end when the block ends or raises.

    A process that is killed leaves a session without an end: its `to_step` and `seconds` stay null.

    Args:
        run: the run's folder.
        start: the step after which the session begins.
        device: what the student is trained on, such as `cpu`.
        step: gives the steps behind the run when the block ends.
    """
    before = read_sessions(run)
    session: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "after_step": start,
        "to_step": None,
        "seconds": None,
        "device": device,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    write_json(run.sessions, {"sessions": [*before, session]})
    began = time.monotonic()
    try:
        yield
    finally:
        session |= {"to_step": step(), "seconds": round(time.monotonic() - began, 1)}
        write_json(run.sessions, {"sessions": [*before, session]})


def read_sessions(run: RunFolder) -> list[dict[str, Any]]:
    """Return the sessions of a run, oldest first; none for a run that an earlier version trained.

    Raises:
        CorruptionError: the file is not JSON.
    """
    return read_json(run.sessions)["sessions"] if run.sessions.exists() else []
