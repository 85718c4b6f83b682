"""A program of test_resume's: kills runs with SIGKILL, and has others take them up.

    python killed_runs.py IMAGES FOLDER renames EVERY
    python killed_runs.py IMAGES FOLDER random COUNT SEED

By renames, a run is killed when it is about to give its n-th object its name, for every EVERY-th n. At random, COUNT
runs are killed, each a drawn time after it began a drawn step, or began at all: wherever it then is, decoding, in a
forward, in a write, in a flush. Steps are drawn, as moments of a whole run would fall as fast or slow as the machine
is just then. What such a run leaves the next one takes up, until one is done before it could be killed. Two series of
these go on at a time.

All imports are done once, before any thread is started; each run is a process forked from there, and notes each shard
that it begins. Prints a JSON object for the undisturbed run, and one for each cache: of every run that worked on it how
it ended, what it began, and what was committed and whether a commit was torn when it had ended.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import xxhash
from PIL import Image
from stage_runs import LOCAL, own, run_stages

from pipeline.config import Recipe, ViewsConfig
from pipeline.features.worker import FeatureExtractor
from pipeline.stats.worker import FeatureMeasurer
from pipeline.views.worker import ViewCutter
from storage_schemas.commits import read_commits
from storage_schemas.objects.store import Store

RECIPE = Recipe(
    name="killed",
    views=ViewsConfig(low=(128,), high=(), heldout=0.2, tokens_per_shard=320, canvas_tokens=0),
    teachers=(own("teachers.quarter_mean:QuarterMeanFixed"),),
)
"""A teacher that needs details as well as canvases."""
LANES = 2
"""Runs that are killed at random at a time."""
Kill = Callable[[str, Path, Path], int]
"""Carries a run out, or part of it: takes images, a cache and where to note what is begun; returns how that ended."""
STEPS = (
    (ViewCutter, "cut"),
    (FeatureExtractor, "observe"),
    (FeatureExtractor, "extract"),
    (FeatureMeasurer, "measure"),
)


def in_child(step: Callable[[], int]) -> int:
    """Run a step in a forked process and return how that ended."""
    return os.waitpid(started(step), 0)[1]


def started(step: Callable[[], int]) -> int:
    """Start a step in a forked process and return its number."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(step())
    return child


def whole_run(images: str, cache: Path, begun: Path) -> int:
    """Cut views, run a teacher that needs details as well, measure it; note what is begun."""
    note_begun(begun)
    run_stages(RECIPE, Path(images), cache, LOCAL)
    return 0


def note_begun(notes: Path) -> None:
    """From here on, have workers note each shard that they begin, and with what."""
    file = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noting(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def noted(worker: Any, task: Any) -> Any:
            for part in task.shards if name == "cut" else [task]:
                os.write(file, f"{name} {part.view_set.name} {getattr(part, 'shard', '')}\n".encode())
            return step(worker, task)

        return noted

    for kind, name in STEPS:
        setattr(kind, name, noting(name, getattr(kind, name)))


def at_each_rename(act: Callable[[int], None]) -> None:
    """From here on, call `act` with the number of each rename that is about to be made in this process."""
    made = 0

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal made
        if event == "os.rename":
            made += 1
            act(made)

    sys.addaudithook(hook)


def counted_run(images: str, cache: Path, begun: Path, counts: Path) -> int:
    """Run undisturbed, leaving the number of renames."""
    at_each_rename(lambda number: counts.write_text(str(number)) and None)
    return whole_run(images, cache, begun)


def killed_at_rename(images: str, cache: Path, begun: Path, moment: int) -> int:
    """Run until it is about to make that rename."""

    def dying() -> int:
        at_each_rename(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == moment else None)
        return whole_run(images, cache, begun)

    return in_child(dying)


def whole(images: str, cache: Path, begun: Path) -> int:
    """Run to the end."""
    return in_child(lambda: whole_run(images, cache, begun))


def killed_after(images: str, cache: Path, begun: Path, step: str, seconds: float) -> int:
    """Run for so long from where such a step begins (or, with none named, from the start), or to the end."""
    child = started(lambda: whole_run(images, cache, begun))
    while step and not any(line.startswith(f"{step} ") for line in lines(begun)):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def torn_commits(cache: Path) -> int:
    """Return 1 when a commit record names an object that is not there or is not the one it says, 0 otherwise."""
    log, store = cache / "tables" / "shards", Store(uri=str(cache))
    units = {path.parent.relative_to(log).as_posix() for path in log.rglob("*.parquet")}
    records = [one for unit in units for parts in read_commits(store, unit).values() for one in parts]
    paths = [(cache / one.path, one.xxh3) for one in records]
    return int(any(not path.exists() or xxhash.xxh3_128(path.read_bytes()).hexdigest() != xxh3 for path, xxh3 in paths))


def lines(notes: Path) -> list[str]:
    """Return what a run noted."""
    return notes.read_text().splitlines() if notes.exists() else []


def taken_up(images: str, cache: Path, kills: Iterator[Kill]) -> dict[str, Any]:
    """Kill one run after the other on a cache, and let the last one finish."""
    runs: list[dict[str, Any]] = []
    while not runs or runs[-1]["ended"] == signal.SIGKILL:
        begun, kill = cache.with_suffix(f".{len(runs)}"), next(kills, whole)
        ended, log = kill(images, cache, begun), cache / "tables" / "shards"
        committed = [path.relative_to(log).with_suffix("").as_posix() for path in log.rglob("*.parquet")]
        torn = in_child(lambda: torn_commits(cache))
        runs.append({"ended": ended, "begun": lines(begun), "committed": committed, "torn": torn})
    return {"cache": cache.name, "runs": runs}


def by_renames(images: str, folder: Path, moments: int, every: int) -> Iterator[dict[str, Any]]:
    """Kill a run at every so many renames, each on a cache of its own."""
    for moment in range(1, moments + 1, every):
        kill = partial(killed_at_rename, moment=moment)
        yield taken_up(images, folder / f"killed-{moment:03d}", iter([kill]))


def at_random(images: str, folder: Path, seconds: float, count: int, seed: str) -> Iterator[dict[str, Any]]:
    """Kill so many runs, each within so many seconds of the step that is drawn for it."""
    lanes = [started(partial(in_lane, images, folder, seconds, count, seed, lane)) for lane in range(LANES)]
    for lane, process in enumerate(lanes):
        if os.waitpid(process, 0)[1] == 0:
            yield from map(json.loads, (folder / f"lane-{lane}").read_text().splitlines())


def in_lane(images: str, folder: Path, seconds: float, count: int, seed: str, lane: int) -> int:
    """Do every LANES-th part of it, and note what came of it."""
    draw, left = random.Random(f"{seed}-{lane}"), len(range(lane, count, LANES))
    steps = ["", *(name for _, name in STEPS)]

    def kills() -> Iterator[Kill]:
        for _ in range(left):
            yield partial(killed_after, step=draw.choice(steps), seconds=draw.uniform(0, seconds))

    with (folder / f"lane-{lane}").open("w") as outcomes:
        number = 0
        while left:
            outcome = taken_up(images, folder / f"killed-{lane}-{number:03d}", kills())
            left -= sum(run["ended"] == signal.SIGKILL for run in outcome["runs"])
            outcomes.write(json.dumps(outcome) + "\n")
            number += 1
    return 0


if __name__ == "__main__":
    Image.init()  # else each run would look for Pillow's plugins
    images, folder, mode, amount, *seed = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), *sys.argv[5:]
    counts, notes = folder / "renames", folder / "undisturbed.0"
    began = time.monotonic()
    status = in_child(lambda: counted_run(images, folder / "undisturbed", notes, counts))
    begun, moments = lines(notes), int(counts.read_text())
    seconds = (time.monotonic() - began) / len(begun)
    print(json.dumps({"undisturbed": status, "moments": moments, "begun": begun}), flush=True)
    runs = by_renames(images, folder, moments, amount) if mode == "renames" else None
    for outcome in runs or at_random(images, folder, seconds, amount, *seed):
        print(json.dumps(outcome), flush=True)
