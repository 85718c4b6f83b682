"""`run.json`: the figures of each stage, for programs to read. It is no part of the cache: no two runs are alike."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.workers.throughput import Throughput, as_record
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.publish import publish_json
from storage_schemas.objects.store import Store

State = Literal["running", "done", "stopped"]


def report_stage(where: str, stage: str, state: State, figures: Throughput) -> None:
    """Put a stage's figures in the place of those that a report holds of it; other stages' stay.

    Args:
        where: the report: a file, or any URI that fsspec reaches. Empty for none.
        stage: such as `extract dinov3`.
        state: what has become of it.
        figures: so far.

    Raises:
        SettingError: what is there is no report.
    """
    if not where:
        return
    folder, _, name = where.rpartition("/")
    store = Store(uri=folder or (os.sep if where.startswith(os.sep) else "."))
    with _alone(store):
        stages = _held(store, name)
        stages[stage] = {"state": state, "updated": datetime.now(UTC).isoformat(), **as_record(figures)}
        publish_json(store, name, {"stages": stages})


def _held(store: Store, name: str) -> dict[str, Any]:
    if not store.exists(name):
        return {}
    try:
        return dict(json.loads(store.read(name))["stages"])
    except (ValueError, KeyError, TypeError):
        fix = "give --run.report another place"
        problem = Problem(place=f"{store.uri}/{name}", found="is there, and is no report of ours", fix=fix)
        raise SettingError("run report", [problem]) from None


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Keep others of this machine from reading between our reading and our writing. An object store has no locks."""
    if not store.is_local:
        yield
        return
    folder = store.path("")
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
