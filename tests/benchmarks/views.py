"""What cutting views costs beyond decoding, cropping and resizing; and the memory that it takes.

    python -m tests.benchmarks.views

Rate: photographs that are generated here go through `views` in one process, and through a bare loop of the same
decoder, crop and resize that keeps nothing; the two by turns, on the same cores: on one alone, and on two, where each
side decodes in one thread, and `views` writes in others. Of `views` everything is counted from listing the folder to
the last commit record; of the loop, reading, decoding, cropping and resizing. The ratio of their rates is printed by
the clock, which counts waiting for the disk and for whatever else the machine does, and by the processor's time, which
does not: of every turn, and their median.
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
ROUNDS = 7
SIZES = {(640, 480): 2000, (1024, 768): 1000, (1600, 1200): 500, (4000, 3000): 150}
"""Of the photographs (pixels), and how many there are: shards of all resolutions, whole ones but for the largest."""
SCENES = 8


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write JPEGs of a few scenes, no two files alike, of about two bits a pixel, as photographs have so encoded."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    scenes = [_encoded(_scene(draws, *size)) for _ in range(SCENES)]
    for number in range(count):
        # what follows the end of the image makes it another file, and is not decoded
        (folder / f"{number:06d}.jpg").write_bytes(scenes[number % SCENES] + f"{number:06d}".encode())
    return folder


def _encoded(scene: np.ndarray) -> bytes:
    body = io.BytesIO()
    Image.fromarray(scene).save(body, format="JPEG", quality=90)
    return body.getvalue()


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


def measure_rate(root: Path, data: Path, cores: set[int]) -> None:
    """Print the rates over a folder, and their ratios: medians, and the span of the turns."""
    for thread in os.listdir("/proc/self/task"):  # those that hash are kept
        os.sched_setaffinity(int(thread), cores)
    count = len(os.listdir(data))
    stage, bare = [], []
    for turn in range(ROUNDS):
        stage.append(cut_views(data, root / f"cache-{turn}"))
        bare.append(bare_loop(data))
        shutil.rmtree(root / f"cache-{turn}")
    rates = [count / float(np.median(side, axis=0)[0]) for side in (stage, bare)]
    ratios = np.array(bare) / np.array(stage)
    clock, processor = (f"{np.median(one):.3f} ({one.min():.3f} to {one.max():.3f})" for one in ratios.T)
    print(
        f"{data.name}, cores {len(cores)}: by the clock views {rates[0]:.1f} images/s, bare loop {rates[1]:.1f}, ratio "
        f"{clock}; by the processor's time {processor}",
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
        cores = sorted(os.sched_getaffinity(0))
        for size, count in SIZES.items():
            data = write_photographs(Path(root) / "{}x{}".format(*size), count, size)
            for used in (1, 2):
                measure_rate(Path(root), data, set(cores[-used:]))


if __name__ == "__main__":
    main(sys.argv[1:])
