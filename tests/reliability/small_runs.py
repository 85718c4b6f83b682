"""A program of these tests: it carries out small runs, each in a process of its own, forked after all imports.

    python small_runs.py

Each line of its input is a JSON object with the fields of a run; for each it prints one: how the process ended, and
what it said on standard error. A run that is refused ends with status 2 and one message, as from the command line; any
other error ends it with status 1 and where it happened. Where several are asked for at once, it says of all together
that they ended with status 0, and a JSON list of how each did.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.features.worker import FeatureExtractor
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.stats.stage import measure_teachers
from pipeline.stats.worker import FeatureMeasurer
from pipeline.views.stage import make_views
from pipeline.views.worker import ViewCutter
from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store
from storage_schemas.read_cache import open_read_cache
from teachers.own import own_class
from trainer.data.source import open_source
from trainer.run.fit import fit
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings

TEACHER = "teachers.quarter_mean:QuarterMean"
LOCAL = RunConfig(executor="local")
RECIPE = Recipe(
    name="small",
    views=ViewsConfig(low=(128,), high=(), heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
    teachers=(TeacherChoice(name=own_class(TEACHER).declared.name, source=TEACHER, weights="own", precision="fp32"),),
)
TRAINING = TrainRecipe(
    name="small",
    student="test_vit",
    steps=2,
    heads=HeadSettings(width=32),
    data=DataSettings(batch_low=4, batch_high=1),
    optimiser=OptimiserSettings(warmup=1),
    running=RunningSettings(checkpoint_every=1, loggers=("csv",), accelerator="cpu"),
)


def extract(cache: Cache, run: Mapping[str, Any]) -> None:
    """Cut views, run the teacher, measure it."""
    make_views(cache, RECIPE, [teacher_spec(choice) for choice in RECIPE.teachers], run["images"], LOCAL, str)
    for choice in RECIPE.teachers:
        extract_teacher(plan_extraction(cache, RECIPE, choice), LOCAL, str)
    measure_teachers(cache, cache.teachers(), LOCAL, str)


def train(cache: Cache, run: Mapping[str, Any]) -> None:
    """Train a student for two steps."""
    if "read_cache" in run:
        cache = Cache(store=cache.store, kept=open_read_cache(run["read_cache"], run["read_cache_bytes"], cache.store))
    source, folder = open_source(cache), RunFolder(path=Path(run["folder"]))
    if not folder.card.exists():
        fit(TrainingRun(recipe=TRAINING, source=source, folder=folder), str)


STEPS: Mapping[str, Callable[[Cache, Mapping[str, Any]], None]] = {"extract": extract, "train": train}


def carry_out(run: Mapping[str, Any]) -> int:
    """Carry a run out in this process, under the limits that it names."""
    if "largest_file" in run:
        resource.setrlimit(resource.RLIMIT_FSIZE, (run["largest_file"], run["largest_file"]))
    if run.get("obeys_permissions") and os.geteuid() == 0:
        obey_permissions()
    if "failing_flush" in run:
        fail_at_flush(run["failing_flush"])
    if "dies_at" in run:
        die_at(run["dies_at"])
    cache = Cache(store=Store(uri=run["cache"], retries=RetryPolicy(**run.get("retries", {}))))
    try:
        STEPS[run["step"]](cache, run)
    except AbstractStillhouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def obey_permissions() -> None:
    """Drop the capabilities by which root reads and writes in spite of permissions."""
    header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    kept = ~(1 << 1 | 1 << 2) & 0xFFFFFFFF  # all but CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(24)
    libc.capget(header, held)
    low_effective, low_permitted, low_inherited, *high = struct.unpack("6I", held.raw)
    capabilities = struct.pack("6I", low_effective & kept, low_permitted & kept, low_inherited, *high)
    if libc.capset(header, capabilities):
        raise OSError(ctypes.get_errno(), "capset")


def fail_at_flush(number: int) -> None:
    """Let the n-th flush to the disk fail, as on a broken disk."""
    flush, made = os.fsync, 0

    def failing(descriptor: int) -> None:
        nonlocal made
        made += 1
        if made == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    os.fsync = failing


def die_at(step: str) -> None:
    """Kill this process after a worker has carried out its first step, before the second."""
    [worker] = [kind for kind in (ViewCutter, FeatureExtractor, FeatureMeasurer) if hasattr(kind, step)]
    carried_out = getattr(worker, step)

    def dying(*told: Any) -> None:
        carried_out(*told)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(worker, step, dying)


def in_child(run: Mapping[str, Any]) -> dict[str, Any]:
    """Carry a run out in a forked process, and return how it ended."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(said.fileno(), 2)
            status = 1
            try:
                status = carry_out(run)
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)
        _, ended = os.waitpid(child, 0)
        said.seek(0)
        return {"status": os.waitstatus_to_exitcode(ended), "said": said.read().decode()}


def at_once(run: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Carry out a run `count` times at once, each in a forked process, and return how all ended."""
    pipes = [os.pipe() for _ in range(count)]
    for _, end in pipes:
        if os.fork() == 0:
            os.write(end, json.dumps(in_child(run)).encode())
            os._exit(0)
        os.close(end)
    ended = []
    for start, _ in pipes:
        with os.fdopen(start) as told:
            ended.append(json.load(told))
        os.wait()
    return {"status": 0, "said": json.dumps(ended)}


if __name__ == "__main__":
    for line in sys.stdin:
        run = json.loads(line)
        count = run.pop("at_once", 1)
        print(json.dumps(in_child(run) if count == 1 else at_once(run, count)), flush=True)
