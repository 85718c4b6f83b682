"""What several draws of an image cost in `views`, beside another version of the code; their pixels are compared.

    python -m tests.benchmarks.draws PATH      (a checkout of the other version)

Photographs of 1600 × 1200 that are generated here go through `views` of both versions with EXECUTOR=local, whole runs
by turns, each version in a process of its own that lives through all turns. The first turn of each is not counted.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

from storage_schemas.cache import Cache
from storage_schemas.format.layout import pixels_array
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from tests.benchmarks.views import write_photographs

CASES = ((12, 130), (1, 500))
"""Draws, and photographs: at 256 px the 12 draws fill twelve shards."""
TURNS = 4
RUN = """
import os, shutil, sys, time
from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store
data, where, draws = sys.argv[1], sys.argv[2], int(sys.argv[3])
recipe = Recipe(name="benchmark", views=ViewsConfig(low=(256,), high=(), draws=draws))
for line in sys.stdin:
    shutil.rmtree(where, ignore_errors=True)
    clock, processor = time.perf_counter(), time.process_time()
    make_views(Cache(store=Store(uri=where)), recipe, [], data, RunConfig(executor="local"), lambda _: None)
    print(time.perf_counter() - clock, time.process_time() - processor, flush=True)
"""


def start(tree: Path, data: Path, where: Path, draws: int) -> "subprocess.Popen[str]":
    """Start a process of a version of the code, which cuts all views whenever it is told to."""
    command = [sys.executable, "-c", RUN, str(data), str(where), str(draws)]
    return subprocess.Popen(
        command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, stdin=-1, stdout=-1, text=True
    )


def turn(process: "subprocess.Popen[str]") -> list[float]:
    """Cut all views once; return the seconds by the clock, and of the processor."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    return [float(text) for text in process.stdout.readline().split()]


def compare(where: Path, other: Path) -> int:
    """Compare the canvases of every view in two caches; return how many there are."""
    sides = []
    for folder in (where, other):
        cache, view_set = Cache(store=Store(uri=str(folder))), ViewSet(partition="low", resolution=256)
        manifest = cache.manifests([]).views
        assert manifest
        table = cache.views(view_set, cache.records(f"views/{view_set.name}", manifest.digest)).to_pylist()
        rows = {(view["image"], view["draw"]): view["row"] for view in table}
        sides.append((rows, zarr.open_group(folder / "features.zarr", mode="r")[pixels_array(view_set)]))
    (ours, now), (theirs, before) = sides
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        np.testing.assert_array_equal(now[row], before[theirs[key]])
    return len(ours)


def main() -> None:
    """Measure both versions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path, help="a checkout of the other version")
    other = parser.parse_args().other.resolve()
    with tempfile.TemporaryDirectory() as root:
        for draws, count in CASES:
            data = write_photographs(Path(root) / f"photographs-{draws}", count, (1600, 1200))
            places = [Path(root) / f"{name}-{draws}" for name in ("before", "now")]
            sides = [start(tree, data, where, draws) for tree, where in zip((other, Path.cwd()), places, strict=True)]
            taken = np.array([[turn(side) for side in sides] for _ in range(TURNS)])[1:]
            for side in sides:
                side.kill()
                side.wait()
            views = compare(places[1], places[0])
            rates = views / np.median(taken, axis=0)
            ratios = np.median(taken[:, 0] / taken[:, 1], axis=0)
            print(f"{draws} draws, {views} views, the same pixels", flush=True)
            for kind, name in enumerate(("by the clock", "of the processor's time")):
                before, now = rates[:, kind]
                print(f"  {name}: {before:.1f} -> {now:.1f} views/s ({ratios[kind]:.2f})", flush=True)


if __name__ == "__main__":
    main()
