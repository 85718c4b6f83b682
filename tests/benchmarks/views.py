"""What cutting views costs beyond decoding, cropping and resizing; and the memory that it takes.

    python -m tests.benchmarks.views

Rate: photographs that are generated here go through `views` in one process, and in another through a bare loop of the
same decoder, crop and resize that keeps nothing. The two share the same cores, one of them or two, and take turns of a
second, the other one stopped: the speed of a machine changes from minute to minute by more than what is measured. On
two cores each side decodes in one thread, and `views` writes in others. Of `views` everything is counted from listing
the folder to the last commit record; of the loop, reading, decoding, cropping and resizing. The ratio of their rates is
printed by the clock, while each had its turn, and by the processor's time: the median over several pairs of processes,
and their span. Of each pair a first whole run of `views` is not counted, and the second is.
Memory: the highest resident set of a process that cuts 1,000 images, and of one that cuts 10,000.
"""

import io
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.images.decoding import OVERSAMPLING
from pipeline.images.listing import list_images
from pipeline.views.crop import Crop, draw_crop
from pipeline.views.sampling import draw_views
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store

RECIPE = Recipe(name="benchmark", views=ViewsConfig(high=()))
LOCAL = RunConfig(executor="local", threads=1)
PAIRS = 7
"""Of processes: a process is faster or slower than the next by some percent for as long as it lives."""
TURN_SECONDS = 1.0
SIZES = {(640, 480): 2000, (1024, 768): 1000, (1600, 1200): 500, (4000, 3000): 150}
"""Of the photographs (pixels), and how many there are: shards of all resolutions, whole ones but for the largest."""
SCENES = 8
SPAWN = multiprocessing.get_context("spawn")


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


def cut_views(data: Path | str, where: Path) -> None:
    """Run `views` over a folder, or whatever `data` names."""
    make_views(Cache(store=Store(uri=str(where))), RECIPE, [], str(data), LOCAL, lambda _: None)


def cut_again_and_again(line: Connection, data: Path, where: Path) -> None:
    """Run `views` as often as it is asked for, and say so each time that it is done."""
    while True:
        line.recv()
        cut_views(data, where)
        line.send(len(os.listdir(data)))


def bare_loop(line: Connection, tally: Any, data: Path) -> None:
    """Decode, crop and resize the same views, over and over, counting them."""
    config = RECIPE.views
    views = [
        (view_set.resolution + config.margin * config.patch, view.image.uri.removeprefix("file://"), view.image.key)
        for view_set, drawn in draw_views(list_images(str(data)), config).items()
        for view in drawn
    ]
    sizes = {path: Image.open(path).size for _, path, _ in views}
    crops = {path: draw_crop(*sizes[path], config, (config.seed, key, 0)) for _, path, key in views}
    line.recv()
    parent = os.getppid()
    while os.getppid() == parent:  # nobody else ends what a killed benchmark leaves
        for side, path, _ in views:
            _bare_cut(Path(path).read_bytes(), crops[path], side)
            tally.value += 1


def _bare_cut(body: bytes, crop: Crop, side: int) -> np.ndarray:
    image = Image.open(io.BytesIO(body), formats=("JPEG",))
    room = min(crop.width, crop.height) / (OVERSAMPLING * side)
    shrink = next(one for one in (8, 4, 2, 1) if one <= max(room, 1))
    image.draft("RGB", (image.width // shrink, image.height // shrink))
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    canvas = image.resize((side, side), Image.Resampling.BICUBIC, box=tuple(edge / shrink for edge in box))
    return np.asarray(canvas)[:, :: -1 if crop.flip else 1]


@dataclass(slots=True, eq=False)
class Side:
    """A process that runs only when it is its turn."""

    process: SpawnProcess
    line: Connection
    clock: float = 0.0
    """Seconds that it had so far."""

    def turn(self, seconds: float) -> tuple[float, bool]:
        """Have it run for so long, or until it has said something; return how long that was, and which of the two."""
        assert self.process.pid is not None
        began = time.perf_counter()
        os.kill(self.process.pid, signal.SIGCONT)
        said = self.line.poll(seconds)
        os.kill(self.process.pid, signal.SIGSTOP)
        taken = time.perf_counter() - began
        self.clock += taken
        return taken, said

    def taken(self) -> np.ndarray:
        """Return what it had so far: seconds by the clock, and of the processor."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return np.array([self.clock, (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")])


@contextmanager
def in_process(work: Callable[..., None], *arguments: Any) -> Iterator[Side]:
    """Start a process on the cores of this one; it is ended with the block."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    try:
        yield Side(process, ours)
    finally:
        process.kill()
        process.join()


def measure_rate(root: Path, data: Path, cores: set[int]) -> None:
    """Print the rates over a folder, and their ratios."""
    per_image = np.array([_run_by_turns(root / "cache", data, cores) for _ in range(PAIRS)])
    rates = 1 / np.median(per_image[:, :, 0], axis=0)
    ratios = per_image[:, 1] / per_image[:, 0]
    clock, processor = (f"{np.median(one):.3f} ({one.min():.3f} to {one.max():.3f})" for one in ratios.T)
    print(
        f"{data.name}, cores {len(cores)}: by the clock views {rates[0]:.1f} images/s, bare loop {rates[1]:.1f}, ratio "
        f"{clock}; by the processor's time {processor}",
        flush=True,
    )


def _run_by_turns(cache: Path, data: Path, cores: set[int]) -> np.ndarray:
    """Return the seconds of two new processes for an image: `views` and the bare loop, by the clock and of the
    processor.
    """
    tally, all_cores = SPAWN.RawValue("Q"), os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    with in_process(cut_again_and_again, data, cache) as stage, in_process(bare_loop, tally, data) as bare:
        os.sched_setaffinity(0, all_cores)  # whose turn it is, is told from another core where there is one
        bare.line.send("begin")
        while not tally.value:
            bare.turn(TURN_SECONDS)
        for _ in ("warming up", "counted"):
            per_image = _run(stage, bare, tally)
            shutil.rmtree(cache)
    return per_image


def _run(stage: Side, bare: Side, tally: Any) -> np.ndarray:
    """Return the seconds of both for an image, by the clock and of the processor, over a whole run of `views`."""
    before, counted = np.array([stage.taken(), bare.taken()]), tally.value
    stage.line.send("begin")
    done = False
    while not done:
        taken, done = stage.turn(TURN_SECONDS)
        bare.turn(taken)
    images = np.array([[stage.line.recv()], [tally.value - counted]])
    return (np.array([stage.taken(), bare.taken()]) - before) / images


def measure_memory(root: Path) -> None:
    """Print the highest resident set of a process that cuts 1,000 images, and of one that cuts 10,000."""
    for count in (1000, 10_000):
        data = write_photographs(root / f"small-{count}", count, (320, 240))
        with in_process(tell_peak, data, root / f"memory-{count}") as cutting:
            print(f"{count} images: {cutting.line.recv() / 2**10:.0f} MiB", flush=True)


def tell_peak(line: Connection, data: Path, where: Path) -> None:
    """Run `views` over a folder, and tell the highest resident set (KiB)."""
    cut_views(data, where)
    # getrusage would give the peak of the process that started this one, where that was higher
    line.send(int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]))


def main() -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory() as root:
        measure_memory(Path(root))
        cores = sorted(os.sched_getaffinity(0))
        for size, count in SIZES.items():
            data = write_photographs(Path(root) / "{}x{}".format(*size), count, size)
            for used in (1, 2):
                measure_rate(Path(root), data, set(cores[-used:]))


if __name__ == "__main__":
    main()
