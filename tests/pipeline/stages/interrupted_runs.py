"""A program of test_interrupted's: sends signals to commands that run in this machine's processes, without Ray.

    python interrupted_runs.py IMAGES FOLDER COUNT

Each stage runs undisturbed once, as the command that a user gives, and is timed. Then, for each signal, one cache goes
through all stages. Each stage is interrupted COUNT times, at moments spread over the time it took; every run goes on
where the one before it stopped, and the last is left alone. Prints a JSON list for each run: cache, stage, signal,
status, and what it wrote to standard error. All imports are done once; each run is a fork of this process.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from PIL import Image

# each stage imports its own modules when its command runs: here they are imported before the first fork
import pipeline.export.stage
import pipeline.features.stage
import pipeline.stats.stage
import pipeline.verify.stage
import pipeline.views.stage  # noqa: F401
from pipeline.__main__ import main

VIEWS = "--views.low 128 --views.high --views.high-share 0 --views.canvas-tokens 0 --views.tokens-per-shard 320"
SIGNALS = ("SIGINT", "SIGTERM")


def commands(images: Path, cache: Path) -> dict[str, list[str]]:
    """Return the command line of each stage."""
    recipe, here = ["--cache", str(cache), "--data", str(images), *VIEWS.split()], ["--run.executor", "local"]
    teacher = ["--teacher", "teachers.quarter_mean:QuarterMeanFixed", "--calibration.tokens-per-channel", "2"]
    copy = ["--to", f"{cache}-export", "--encoding", "int8"]
    return {
        "views": ["views", *recipe, *here],
        "extract": ["extract", *recipe, *teacher, *here],
        "stats": ["stats", "--cache", str(cache), *here],
        "export": ["export", "--cache", str(cache), *copy, *here],
    }


def run(command: list[str], errors: Path, signalled: str = "", after: float = 0.0) -> int:
    """Run a command in a fork that sends itself a signal after a time (seconds). Return its exit status."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        timer = threading.Timer(after, os.kill, (os.getpid(), getattr(signal, signalled or "SIGINT")))
        timer.daemon = True
        if signalled:
            timer.start()
        status = 1
        try:
            status = main(command)
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def told(cache: Path, stage: str, signalled: str, status: int, errors: Path) -> int:
    """Print what came of a run. Return its status."""
    print(json.dumps([cache.name, stage, signalled, status, errors.read_text()]), flush=True)
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    Image.init()  # else each run would look for Pillow's plugins
    os.fsync = lambda _: None  # no power fails here
    images, folder, count, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), dict[str, float]()
    errors, whole = folder / "errors", folder / "undisturbed"
    for stage, command in commands(images, whole).items():
        began = time.monotonic()
        told(whole, stage, "", run(command, errors), errors)
        seconds[stage] = time.monotonic() - began
    for signalled in SIGNALS:
        cache = folder / signalled
        for stage, command in commands(images, cache).items():
            for number in range(count):
                after = seconds[stage] * (number + 0.5) / count
                told(cache, stage, signalled, run(command, errors, signalled, after), errors)
            told(cache, stage, "", run(command, errors), errors)
