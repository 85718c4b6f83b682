"""What extracting costs beyond the teacher's forwards.

    python -m tests.benchmarks.extract [--source dinov3-s --resolution 256 --views 128 --batch 16 --device cpu]

A teacher with random weights, which cost what real ones do, goes over generated views: as `extract` does (reading
canvases, cutting windows, PHI-S, float16, checksums, writing shards and commits), in this process and in one Ray actor,
and in a bare loop of the same forwards over windows that lie in memory, normalised. The sides take turns; what is
printed is the ratio of the best times. Starting Ray, building the teacher and fitting PHI-S are not counted.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.features.extraction import Extraction, plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.features.teacher import RunningTeacher, run_teacher
from pipeline.features.worker import FeatureExtractor
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.views.placements import place_views, window_starts
from pipeline.views.stage import make_views
from pipeline.workers.open_pool import open_pool
from storage_schemas.cache import Cache
from storage_schemas.format.geometry import cut_windows
from storage_schemas.format.layout import features_unit, pixels_array, views_unit
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from teachers.base import normalise

ROUNDS = 3


def write_images(folder: Path, count: int) -> Path:
    """Write images of seeded colours."""
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((400, 400), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg")
    return folder


def recipe_of(options: argparse.Namespace) -> Recipe:
    """One teacher, one resolution, shards of the usual size: 128 views at 256 px."""
    choice = TeacherChoice(
        name="teacher", source=options.source, weights="random:0", precision=options.precision, batch=options.batch
    )
    views = ViewsConfig(low=(options.resolution,), high=(), heldout=0, canvas_tokens=0)
    return Recipe(
        name="benchmark", views=views, teachers=(choice,), calibration=CalibrationConfig(views=4, tokens_per_channel=1)
    )


def windows_of(cache: Cache, extraction: Extraction, batch: int) -> list[torch.Tensor]:
    """Return what the teacher sees, batch by batch as `extract` makes them, normalised, in memory."""
    [(view_set, shape)] = extraction.views.sets.items()
    commits = cache.records(views_unit(view_set), extraction.views.digest)
    pixels = cache.array(pixels_array(view_set), commits)
    batches = []
    for shard, records in commits.items():
        table = cache.views(view_set, {shard: records})
        settings = extraction.recipe.views
        placed = place_views(
            extraction.maps[0], settings.seed, settings.teacher_shifts, view_set, shape.geometry, table
        )
        for first in range(0, len(placed), batch):
            some = placed[first : first + batch]
            windows = cut_windows(pixels.read([one.row for one in some]), shape.geometry, window_starts(some))
            batches.append(normalise(torch.from_numpy(windows), extraction.maps[0]))
    return batches


def forwards(running: RunningTeacher, batches: list[torch.Tensor]) -> None:
    """Run the teacher, and keep nothing."""
    for windows in batches:
        running.teacher.encode(windows.to(running.teacher.device))
    if running.teacher.device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def extracting(extraction: Extraction, run: RunConfig) -> Iterator[Callable[[], None]]:
    """Give what extracts every shard again."""
    manifest = extraction.cache.teacher_manifest("teacher")
    assert manifest is not None
    [(view_set, shape)] = extraction.views.sets.items()
    identities = {"teacher": manifest.digest}
    tasks = [extraction.task(view_set, shard, identities) for shard in range(shape.grid.shards)]
    with open_pool(extraction.worker(run), run, tasks=len(tasks)) as pool:
        list(pool.run(FeatureExtractor.identify, [None]))

        def again() -> None:
            forget(extraction, view_set)
            list(pool.run(FeatureExtractor.extract, tasks))

        again()
        yield again


def forget(extraction: Extraction, view_set: ViewSet) -> None:
    """Delete the features' commits and shards."""
    root = Path(extraction.cache.store.uri)
    unit = features_unit(view_set, "teacher")
    for folder in (root / "tables/shards" / unit, root / "features.zarr" / unit / "spatial/c"):
        shutil.rmtree(folder, ignore_errors=True)


def timed(step: Callable[[], Any]) -> float:
    """Return the seconds that a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="dinov3-s")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--views", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    options = parser.parse_args()
    recipe, root = recipe_of(options), Path(tempfile.mkdtemp())
    cache, choice = Cache(store=Store(uri=str(root / "cache"))), recipe.teachers[0]
    local = RunConfig(executor="local", device=options.device)
    images = write_images(root / "images", options.views)
    make_views(cache, recipe, [teacher_spec(choice)], str(images), local, print)
    extraction = plan_extraction(cache, recipe, choice)
    extract_teacher(extraction, local, print)
    running = run_teacher(choice, options.device)
    batches = windows_of(cache, extraction, options.batch)
    print(f"| {options.source} at {options.resolution} px, {options.device} | extract, s | bare loop, s | ratio |")
    print("|---|---|---|---|")
    try:
        for executor in options.executors:
            run = replace(local, executor=executor, workers=1 if executor == "ray" else 0)
            with extracting(extraction, run) as again:
                times = [(timed(again), timed(lambda: forwards(running, batches))) for _ in range(ROUNDS)]
            ours, bare = (min(side) for side in zip(*times, strict=True))
            print(f"| {executor} | {ours:.2f} | {bare:.2f} | {ours / bare:.3f} |")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
