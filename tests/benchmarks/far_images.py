"""What `views` gains by asking for images ahead, where each takes a while to come.

    python -m tests.benchmarks.far_images

Photographs that are generated here are cut from a folder, and from a store that gives the same files, each after a
time; from that also one after another, as from a folder. By turns in one process, medians of three rounds: images per
second, from listing to the last commit record. What a client of S3 itself computes for a request is not in it.
"""

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, final

import fsspec
from fsspec.asyn import AsyncFileSystem

from pipeline.images.reader import ImageReader
from tests.benchmarks.views import cut_views, write_photographs

IMAGES = 400
ROUNDS = 3
DELAYS = (0.01, 0.03, 0.06, 0.1)
"""Seconds before an image comes."""


@final
class Far(AsyncFileSystem):
    """The files of this machine, after a while."""

    protocol = "far"
    cachable = False
    delay: ClassVar[float] = 0.0

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        await asyncio.sleep(self.delay)
        return Path(path).read_bytes()[start:end]

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": 0, "type": "directory"}

    async def _find(self, path: str, **_: Any) -> list[str]:
        return [entry.path for entry in os.scandir(path)]


def rate(data: str, root: Path) -> float:
    """Return how many images a second are cut."""
    with tempfile.TemporaryDirectory(dir=root) as cache:
        began = time.perf_counter()
        cut_views(data, Path(cache))
        return IMAGES / (time.perf_counter() - began)


def main() -> None:
    """Measure all three at each delay."""
    fsspec.register_implementation("far", Far)
    ahead = ImageReader.read_all
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = write_photographs(root / "photographs", IMAGES, (640, 480))
        rate(str(data), root)
        for delay in DELAYS:
            Far.delay = delay
            rates: dict[str, list[float]] = {"folder": [], "ahead": [], "one by one": []}
            for _ in range(ROUNDS):
                rates["folder"].append(rate(str(data), root))
                rates["ahead"].append(rate(f"far://{data}", root))
                ImageReader.read_all = lambda self, named: map(self.read, named)  # type: ignore[method-assign]
                rates["one by one"].append(rate(f"far://{data}", root))
                ImageReader.read_all = ahead  # type: ignore[method-assign]
            medians = {way: statistics.median(found) for way, found in rates.items()}
            said = ", ".join(f"{way} {found:.0f}" for way, found in medians.items())
            gain = medians["ahead"] / medians["one by one"]
            print(f"{1000 * delay:.0f} ms an image: images/s {said}; ahead over one by one {gain:.1f}", flush=True)


if __name__ == "__main__":
    main()
