"""`run.json`: the figures of each stage, for programs. It is not part of the cache, because every run has its own."""

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
    """Write a stage's figures to a report; the figures of other stages in it stay.

    Args:
        where: the report: a file, or any URI that fsspec can open. Empty for no report.
        stage: its name, such as `extract dinov3`.
        state: of the stage.
        figures: so far.

    Raises:
        SettingError: something else than a report is there.
    """
    if not where:
        return
    folder, _, name = where.rpartition("/")
    store = Store(uri=folder or (os.sep if where.startswith(os.sep) else "."))
    with _locked(store):
        stages = _stages_in(store, name)
        stages[stage] = {"state": state, "updated": datetime.now(UTC).isoformat(), **as_record(figures)}
        publish_json(store, name, {"stages": stages})


def _stages_in(store: Store, name: str) -> dict[str, Any]:
    if not store.exists(name):
        return {}
    try:
        return dict(json.loads(store.read(name))["stages"])
    except (ValueError, KeyError, TypeError):
        fix = "give --run.report another place"
        problem = Problem(place=f"{store.uri}/{name}", found="exists, and is not a run report", fix=fix)
        raise SettingError("run report", [problem]) from None


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Lock the report's folder while it is read and written again. An object store has no locks."""
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
