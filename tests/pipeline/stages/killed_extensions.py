"""A program of test_killed_extension's: kills extensions at chosen moments, and takes each up again.

    python killed_extensions.py MADE IMAGES FOLDER EVERY

MADE is a cache of `SMALL`, IMAGES are those that it is extended to. It prints what `killed_runs` does, and of each kill
beside that: which of the old files are not what they were, and how many problems `verify` then has with the cache.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

from extensions import BASE, grow, grown, may_change
from killed_runs import at_each_rename, in_child, torn_commits
from stage_runs import contents

from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

SMALL = replace(BASE, teachers=BASE.teachers[1:2])
"""A teacher that needs details, alone."""
LARGE = grown(SMALL, low=(128, 192))
TURNING_POINTS = (3, 4, 6, 26)
"""The manifest is about to be published; arrays to be made longer; a new one to be made; features to be declared."""


def extended(images: Path, cache: Path) -> int:
    """Extend a cache, and run its teachers."""
    grow(LARGE, images, cache)
    return 0


def counted(images: Path, cache: Path, counts: Path) -> int:
    """Extend it undisturbed, leaving the number of renames."""
    at_each_rename(lambda number: counts.write_text(str(number)) and None)
    return extended(images, cache)


def killed(images: Path, cache: Path, moment: int) -> int:
    """Extend it until the moment."""
    at_each_rename(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == moment else None)
    return extended(images, cache)


def wrong(cache: Path) -> int:
    """Return how many problems `verify` has, at most 99."""
    return min(99, len(verify_cache(Cache(store=Store(uri=str(cache))), VerifyOptions()).problems))


if __name__ == "__main__":
    made, images, folder = map(Path, sys.argv[1:4])
    before, every, counts = contents(made), int(sys.argv[4]), folder / "renames"
    whole = Path(shutil.copytree(made, folder / "undisturbed"))
    status = in_child(lambda: counted(images, whole, counts))
    moments = int(counts.read_text())
    print(json.dumps({"undisturbed": status, "moments": moments}), flush=True)
    for moment in sorted({*TURNING_POINTS, *range(1, moments + 1, every)}):
        cache = Path(shutil.copytree(made, folder / f"killed-{moment:03d}"))
        ended = in_child(lambda: killed(images, cache, moment))  # noqa: B023
        after = contents(cache)
        lost = [name for name, held in before.items() if after.get(name) != held and not may_change(name)]
        checks = {"torn": in_child(lambda: torn_commits(cache)), "wrong": in_child(lambda: wrong(cache))}  # noqa: B023
        resumed = in_child(lambda: extended(images, cache))  # noqa: B023
        outcome = {"cache": cache.name, "killed": ended, "lost": lost, **checks, "resumed": resumed}
        print(json.dumps(outcome), flush=True)
