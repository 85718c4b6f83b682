"""What cutting views costs beyond decoding, cropping and resizing; and the memory that it takes.

    python -m tests.benchmarks.views

Rate: photographs that are generated here go through `views` in one process on one core, and through a bare loop of the
same decoder, crop and resize that keeps nothing; the two by turns. The ratio of their rates is printed by the clock,
which counts waiting for the disk and for whatever else the machine does, and by the processor's time, which does not;
the best of several rounds of each side, since what else the machine does only ever slows them.
Memory: the highest resident set of a process that cuts 1,000 images, and of one that cuts 10,000.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.cut import Crop, draw_crop
from pipeline.draw import draw_views
from pipeline.image_list import list_images
from pipeline.images import OVERSAMPLING
from pipeline.stage_views import make_views
from storage_schemas.cache import Cache
from storage_schemas.store import Store

RECIPE = Recipe(name="benchmark", views=ViewsConfig(high=()))
LOCAL = RunConfig(executor="local", threads=1)
ROUNDS = 5
SIZES = ((640, 480), (1024, 768), (1600, 1200), (4000, 3000))
"""Of the photographs (pixels): the rate is measured for each."""
PIXELS = 400 * 2**20
"""Of all photographs of a size together."""


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write JPEGs, no two alike, of about two bits a pixel, as photographs have at this quality."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    scenes = [_scene(draws, *size) for _ in range(4)]
    for number in range(count):
        scene = np.roll(scenes[number % len(scenes)], (7 * number, 13 * number), axis=(0, 1))
        Image.fromarray(scene).save(folder / f"{number:06d}.jpg", quality=90)
    return folder


def _scene(draws: np.random.Generator, width: int, height: int) -> np.ndarray:
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    amplitude = np.maximum(np.hypot(down, across), 1 / max(width, height)) ** -1.4
    waves = np.fft.rfft2(draws.standard_normal((3, height, width))) * amplitude
    field = np.fft.irfft2(waves, (height, width))
    field = (field - field.mean()) / field.std()
    return np.clip(128 + 45 * field, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def cut_views(data: Path, where: Path) -> np.ndarray:
    """Return the seconds that `views` takes over a folder: by the clock, and of the processor."""
    start = _now()
    make_views(Cache(store=Store(uri=str(where))), RECIPE, [], str(data), LOCAL, lambda _: None)
    return _now() - start


def bare_loop(data: Path) -> np.ndarray:
    """Return the seconds of decoding, cropping and resizing the same views, and of nothing else."""
    config = RECIPE.views
    views = [
        (view_set.resolution + config.margin * config.patch, view.image.uri.removeprefix("file://"), view.image.key)
        for view_set, drawn in draw_views(list_images(str(data)), config).items()
        for view in drawn
    ]
    sizes = {path: Image.open(path).size for _, path, _ in views}
    crops = {path: draw_crop(*sizes[path], config, (config.seed, key, 0)) for _, path, key in views}
    start = _now()
    for side, path, _ in views:
        _bare_cut(Path(path).read_bytes(), crops[path], side)
    return _now() - start


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _bare_cut(body: bytes, crop: Crop, side: int) -> np.ndarray:
    image = Image.open(io.BytesIO(body), formats=("JPEG",))
    room = min(crop.width, crop.height) / (OVERSAMPLING * side)
    shrink = next(one for one in (8, 4, 2, 1) if one <= max(room, 1))
    image.draft("RGB", (image.width // shrink, image.height // shrink))
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    canvas = image.resize((side, side), Image.Resampling.BICUBIC, box=tuple(edge / shrink for edge in box))
    return np.asarray(canvas)[:, :: -1 if crop.flip else 1]


def measure_rate(root: Path, size: tuple[int, int]) -> None:
    """Print the rates over photographs of a size, the best of several rounds of each side, and their ratios."""
    count = min(1000, PIXELS // (size[0] * size[1]))
    data = write_photographs(root / f"photographs-{size[0]}", count, size)
    stage, bare = [], []
    for turn in range(ROUNDS):
        stage.append(cut_views(data, root / f"cache-{turn}"))
        bare.append(bare_loop(data))
        shutil.rmtree(root / f"cache-{turn}")
    (clock, processor), (bare_clock, bare_processor) = np.min(stage, axis=0), np.min(bare, axis=0)
    print(
        f"{size[0]} × {size[1]}: views {count / processor:.1f} images/s, bare loop {count / bare_processor:.1f}, "
        f"ratio {bare_processor / processor:.3f}; by the clock {bare_clock / clock:.3f}",
        flush=True,
    )


def measure_memory(root: Path) -> None:
    """Print the highest resident set of a process that cuts 1,000 images, and of one that cuts 10,000."""
    for count in (1000, 10_000):
        data = write_photographs(root / f"small-{count}", count, (320, 240))
        command = [sys.executable, "-m", "tests.benchmarks.views", str(data), str(root / f"memory-{count}")]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"{count} images: {int(peak) / 2**10:.0f} MiB", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure both; or, given a folder and a cache, cut the one into the other and print the peak (KiB)."""
    if arguments:
        cut_views(*map(Path, arguments))
        # getrusage would give the peak of the process that started this one, where that was higher
        print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
        return
    with tempfile.TemporaryDirectory() as root:
        measure_memory(Path(root))
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        for size in SIZES:
            measure_rate(Path(root), size)


if __name__ == "__main__":
    main(sys.argv[1:])
