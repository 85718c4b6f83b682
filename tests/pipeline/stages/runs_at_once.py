"""A program for test_runs_at_once: it starts several runs on one cache at the same time, each in a process of its own.

    python runs_at_once.py IMAGES

Each line of its input is a JSON list: a cache, and the work of each run: `all` (views, the first teacher, its
statistics), a teacher's name (only its features), or `rougher` (the first teacher, its PHI-S fitted on fewer tokens).
For each line it prints a JSON list with the exit status and the messages of each run. All imports happen once, before
any thread starts; each run is a fork that waits until all others are ready.
"""

import json
import os
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from stage_runs import LOCAL, own, run_stages

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError
from storage_schemas.objects.store import Store

RECIPE = Recipe(
    name="at-once",
    views=ViewsConfig(low=(128,), high=(), heldout=0.2, tokens_per_shard=320, canvas_tokens=24),
    teachers=(
        own("teachers.quarter_mean:QuarterMean"),
        own("teachers.quarter_mean:QuarterMeanFixed"),
        own("teachers.quarter_mean:QuarterMeanCanvas"),
    ),
)
ROUGHER = replace(RECIPE, calibration=CalibrationConfig(views=1, tokens_per_channel=5))


def carry_out(work: str, images: Path, cache: Path) -> int:
    """Carry out one run in this process."""
    try:
        if work == "all":
            run_stages(replace(RECIPE, teachers=RECIPE.teachers[:1]), images, cache, LOCAL)
            return 0
        recipe = ROUGHER if work == "rougher" else RECIPE
        choice = recipe.teachers[0] if work == "rougher" else recipe.teacher(work)
        extract_teacher(plan_extraction(Cache(store=Store(uri=str(cache))), recipe, choice), LOCAL, str)
    except AbstractStillhouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def started(work: str, images: Path, cache: Path, messages: Path, ready: int) -> int:
    """Start a run that waits for a byte from a pipe, and return its process."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        status = 1
        try:
            os.read(ready, 1)
            status = carry_out(work, images, cache)
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
    return child


def at_once(images: Path, cache: Path, works: list[str]) -> list[dict[str, Any]]:
    """Carry out runs at the same time, and return the status and the messages of each."""
    ready, go = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(number) for number in range(len(works))]
        runs = [started(work, images, cache, file, ready) for work, file in zip(works, files, strict=True)]
        os.write(go, b"." * len(works))
        statuses = [os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]) for run in runs]
        ended = zip(runs, statuses, files, strict=True)
        return [{"process": run, "status": status, "messages": file.read_text()} for run, status, file in ended]


if __name__ == "__main__":
    Image.init()  # loads Pillow's plugins before the fork; else each run would load them, at its own pace
    for line in sys.stdin:
        cache, *works = json.loads(line)
        print(json.dumps(at_once(Path(sys.argv[1]), Path(cache), works)), flush=True)
