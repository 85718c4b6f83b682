"""A program of test_resume's: kills a run at chosen moments, and takes each up again.

    python killed_runs.py IMAGES FOLDER EVERY

The moment is counted in objects: a run is killed with SIGKILL when it is about to give the n-th its name, for every
EVERY-th n. All imports are done once, before any thread is started; each run is a process forked from there. Prints a
JSON object for each: what was killed, what was torn, how the second run ended.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pipeline.stage_extract
import pipeline.stage_stats
import pipeline.stage_views
import teachers.quarter_mean
from pipeline.__main__ import main
from storage_schemas.commits import read_commits
from storage_schemas.store import Store

IMPORTED = (pipeline.stage_views, pipeline.stage_extract, pipeline.stage_stats, teachers.quarter_mean)
TEACHER = "teachers.quarter_mean:QuarterMeanFixed"
VIEWS = ["--views.draws=1", "--views.low=128", "--views.high=256", "--views.tokens-per-shard=600"]


def in_child(step: Callable[[], int]) -> int:
    """Run a step in a forked process and return how that ended."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(step())
    return os.waitpid(child, 0)[1]


def whole_run(images: str, cache: Path) -> int:
    """Cut views, run a teacher that needs details as well, measure it."""
    common = ["--cache", str(cache), "--run.executor", "local"]
    status = main(["extract", "--data", images, "--teacher", TEACHER, *common, *VIEWS])
    return status or main(["stats", *common])


def at_each_rename(act: Callable[[int], None]) -> None:
    """From here on, call `act` with the number of each rename that is about to be made in this process."""
    made = 0

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal made
        if event == "os.rename":
            made += 1
            act(made)

    sys.addaudithook(hook)


def counted_run(images: str, cache: Path, counts: Path) -> int:
    """Run undisturbed, leaving the number of renames."""
    at_each_rename(lambda number: counts.write_text(str(number)) and None)
    return whole_run(images, cache)


def killed_run(images: str, cache: Path, moment: int) -> int:
    """Run until the moment."""
    at_each_rename(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == moment else None)
    return whole_run(images, cache)


def torn_commits(cache: Path) -> int:
    """Return 1 when a commit record names an object that is not there or is not the one it says, 0 otherwise."""
    log, store = cache / "tables" / "shards", Store(uri=str(cache))
    units = {path.parent.relative_to(log).as_posix() for path in log.rglob("*.parquet")}
    records = [one for unit in units for parts in read_commits(store, unit).values() for one in parts]
    paths = [(cache / one.path, one.sha256) for one in records]
    return int(any(not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha for path, sha in paths))


if __name__ == "__main__":
    images, folder, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    counts = folder / "renames"
    undisturbed = in_child(lambda: counted_run(images, folder / "undisturbed", counts))
    moments = int(counts.read_text())
    print(json.dumps({"undisturbed": undisturbed, "moments": moments}), flush=True)
    for moment in range(1, moments + 1, every):
        cache = folder / f"killed-{moment:03d}"
        killed = in_child(lambda: killed_run(images, cache, moment))  # noqa: B023
        torn = in_child(lambda: torn_commits(cache))  # noqa: B023
        resumed = in_child(lambda: whole_run(images, cache))  # noqa: B023
        outcome = {"cache": cache.name, "killed": killed, "torn": torn, "resumed": resumed}
        print(json.dumps(outcome), flush=True)
