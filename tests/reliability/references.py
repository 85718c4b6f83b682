"""The right bytes of every object of a tiny cache: made once for each history by undisturbed runs, and checked.

The check: every view exists once, and everything that a teacher stored follows from the stored pixels.
"""

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import final

import numpy as np
import pyarrow.parquet as pq
import xxhash
import zarr
from tiny_caches import IMAGES, MADE, MORE, TEACHERS, TOO_SMALL, History, TinyCache, image_key, recipe_of

from pipeline.views.sampling import draw_set
from storage_schemas.format.encodings import INT8_STEP
from storage_schemas.format.phi_s import PhiS, to_stored

PATCH = 16
ROUNDING = {"float16": 2.0**-9, "float32": 1e-4, "int8": 0.51 * INT8_STEP}
"""Largest error of a number by encoding; the numbers are below 4."""
ABOVE = "features.zarr/teachers/zarr.json"
"""The group of all teachers."""
Arrays = Mapping[str, tuple[np.ndarray, int]]
"""Sharded arrays by path, each with the row slots of a shard."""
SHARDED = ("/pixels", "/detail/fixed", "/spatial", "/summary")
"""Endings of their paths."""
Objects = Mapping[str, str]
"""XXH3 of each object, by its name."""


@final
class References:
    """Undisturbed caches, by their history."""

    def __init__(self, root: Path, images: Path) -> None:
        self._root, self._images = root, images
        self._folders: dict[tuple[object, ...], Path] = {}
        self._objects: dict[tuple[object, ...], Objects] = {}
        self._arrays: dict[tuple[object, ...], Arrays] = {}
        self.bodies: dict[str, Path] = {}
        """A file of each XXH3."""

    def views(self, history: History) -> Objects:
        """Return the objects of views, with the details of every teacher."""
        return self._made(("views", history), "")

    def features(self, teacher: str, fitted: History, history: History) -> Objects:
        """Return the objects of a teacher but for its statistics: PHI-S fitted at one history, features at another."""
        return self._made(("features", history, teacher, fitted), teacher)

    def measured(self, teacher: str, fitted: History, runs: tuple[History, ...]) -> Objects:
        """Return the objects of a teacher's statistics; later runs merge into those of the first."""
        return self._made(("measured", runs[-1], teacher, fitted, runs), f"{teacher}/stats")

    def arrays(self, history: History, teacher: str = "", fitted: History = ()) -> Arrays:
        """Return the sharded arrays of views or of features, by plain zarr-python, with their rows per shard."""
        key = ("features", history, teacher, fitted) if teacher else ("views", history)
        if key not in self._arrays:
            group = zarr.open_group(self._folder(key) / "features.zarr", mode="r")
            paths = [
                name.removeprefix("features.zarr/").removesuffix("/zarr.json") for name in self._made(key, teacher)
            ]
            arrays = {path: group[path] for path in sorted(paths) if path.endswith(SHARDED)}
            self._arrays[key] = {path: (array[...], array.shards[0]) for path, array in arrays.items()}
        return self._arrays[key]

    def lay(self, where: Path, objects: Mapping[str, str]) -> None:
        """Put objects into a cache."""
        for name, sha in objects.items():
            path = where / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            os.link(self.bodies[sha], path)

    def _made(self, key: tuple, part: str) -> Objects:
        if key not in self._objects:
            folder = self._folder(key)
            every = hashes(folder)
            parts = {part, ABOVE} if key[0] == "features" else {part}
            self._objects[key] = {name: sha for name, sha in every.items() if part_of(name) in parts}
            self.bodies |= {sha: folder / name for name, sha in every.items()}
            self._check(key)
        return self._objects[key]

    def _check(self, key: tuple) -> None:
        kind, history, *of = key
        if kind == "views":
            check_views(self._folder(key), history)
            before = self.views(history[:-1]) if history != MADE else {}
        elif kind == "features":
            check_features(self._folder(key), of[0])
            before = self.features(*of, history[:-1]) if history != of[1] else {}
        else:
            return
        changed = [name for name, sha in before.items() if self._objects[key][name] != sha]
        assert all(grows(name) for name in changed), changed

    def _folder(self, key: tuple) -> Path:
        if key not in self._folders:
            before = _before(*key)
            earlier = self._folder(before) if before else None
            where = self._root / str(len(self._folders))
            shutil.rmtree(where, ignore_errors=True)
            if earlier is not None:
                shutil.copytree(earlier, where)
            self._grow(TinyCache(where=where, images=self._images), before, *key)
            self._folders[key] = where
        return self._folders[key]

    def _grow(self, made: TinyCache, before: tuple, kind: str, history: History, teacher: str = "", *_: object) -> None:
        for length in range(len(before[1]) + 1 if before else 1, len(history) + 1):
            made.cut(history[:length], TEACHERS, extend=length > 1)
        if kind != "views":
            made.extract(history, TEACHERS, teacher)
        if kind == "measured":
            made.measure(teacher)


def _before(kind: str, history: History, teacher: str = "", fitted: History = (), runs: tuple = ()) -> tuple:
    """Return the cache that a cache is made from, one step before it; nothing for the first."""
    if kind == "views":
        return () if history == MADE else ("views", history[:-1])
    if kind == "features":
        return ("views", history) if fitted == history else ("features", history[:-1], teacher, fitted)
    if len(runs) > 1:
        return ("measured", runs[-2], teacher, fitted, runs[:-1])
    return ("features", history, teacher, fitted)


def files(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and the stat result of every file below a folder."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir():
                yield from files(entry.path)
            else:
                yield entry.path, entry.stat()


def hashes(folder: Path) -> dict[str, str]:
    """Return the XXH3 of every object of a cache, by its name, but for leases."""
    start, found = len(f"{folder}/"), files(str(folder)) if folder.exists() else ()
    return {path[start:]: _xxh3(path, told) for path, told in found if not path.startswith(f"{folder}/leases/")}


XXH3: dict[tuple[int, int, int], str] = {}
"""XXH3 of files by inode, time of change and size: most files do not change from one step to the next."""


def _xxh3(path: str, told: os.stat_result) -> str:
    key = (told.st_ino, told.st_mtime_ns, told.st_size)
    if key not in XXH3:
        XXH3[key] = xxhash.xxh3_128(Path(path).read_bytes()).hexdigest()
    return XXH3[key]


def part_of(name: str) -> str:
    """Return the teacher that an object belongs to, with `/stats` for its statistics; nothing for objects of views."""
    parts = name.split("/")
    if name == ABOVE:
        return ABOVE
    if parts[:2] == ["features.zarr", "teachers"]:
        return f"{parts[2]}/stats" if parts[3] == "stats" else parts[2]
    if parts[:2] == ["tables", "placements"]:
        return parts[2]
    return parts[3] if parts[:3] == ["tables", "shards", "teachers"] else ""


def grows(name: str) -> bool:
    """Say whether an object is a manifest or the metadata of an array."""
    return name.endswith(("views/zarr.json", "pixels/zarr.json", "spatial/zarr.json", "summary/zarr.json")) or (
        name.endswith("/zarr.json") and name.split("/")[-2] in TEACHERS
    )


@cache
def named_by(record: Path) -> dict[str, str]:
    """Return the objects that a commit record names, each with its XXH3, by plain pyarrow."""
    rows = pq.ParquetFile(io.BytesIO(record.read_bytes())).read(use_threads=False).to_pylist()
    return {row["path"]: row["xxh3"] for row in rows}


def check_views(folder: Path, history: History) -> None:
    """Check that a cache has every view of every image once, and rejects images that are too small."""
    config = recipe_of(history).views
    keys = [image_key(number) for number in range(IMAGES + MORE * history.count("images"))]
    drawn = {(key, draw, draw_set(key, draw, config).name) for key in keys for draw in range(config.draws)}
    if "views" in history:  # the first views were drawn before there was a second resolution
        before = recipe_of(MADE).views
        early = keys[: IMAGES + MORE * history[: history.index("views")].count("images")]
        drawn |= {(key, 0, draw_set(key, 0, before).name) for key in early}
    small = {key for key in drawn if key[0] in map(image_key, TOO_SMALL)}
    assert sorted(_rows(folder, "views")) == sorted(drawn - small)
    assert sorted(_rows(folder, "rejected")) == sorted(small)


def _rows(folder: Path, table: str) -> list[tuple[str, int, str]]:
    files = sorted((folder / "tables" / table).rglob("*.parquet"))
    return [(row["image"], row["draw"], file.parent.name) for file in files for row in table_rows(file)]


@cache
def table_rows(file: Path) -> list[dict]:
    """Return the rows of a part of a table, by plain pyarrow."""
    return pq.ParquetFile(file).read(use_threads=False).to_pylist()


def check_features(folder: Path, teacher: str) -> None:
    """Check everything that a teacher stored against the features of the stored pixels."""
    arrays = zarr.open_group(folder / "features.zarr", mode="r")
    said = arrays[f"teachers/{teacher}"]
    mean, rotation, scale = (said[f"phi_s/{name}"][...] for name in ("mean", "rotation", "scale"))
    phi_s = PhiS(mean=mean, rotation=rotation, scale=float(scale))
    encoding = TEACHERS[teacher].encoding
    for file in sorted((folder / "tables/placements" / teacher).rglob("*.parquet")):
        name = file.parent.name
        for placed in table_rows(file):
            raw = quarters(seen(arrays[f"views/{name}"], teacher, name, placed))
            stored = said[f"{name}/spatial"][placed["row"]] * np.float32(INT8_STEP if encoding == "int8" else 1)
            assert np.abs(stored - to_stored(phi_s, raw)).max() <= ROUNDING[encoding], (teacher, name, placed)
            if teacher != "canvas":
                assert np.allclose(said[f"{name}/summary"][placed["row"]], raw.mean(axis=(0, 1)), atol=1e-5)


def seen(views: zarr.Group, teacher: str, name: str, placed: Mapping[str, int]) -> np.ndarray:
    """Return the pixels that a teacher saw of a view."""
    if teacher == "fixed":
        return views["detail/fixed"][placed["row"]]
    top, left, side = placed["offset_row"] * PATCH, placed["offset_col"] * PATCH, int(name.partition("-")[2])
    return views["pixels"][placed["row"]][top : top + side, left : left + side]


def quarters(pixels: np.ndarray) -> np.ndarray:
    """Return the mean colour of each quarter of each patch."""
    tokens, half = len(pixels) // PATCH, PATCH // 2
    blocks = pixels.astype(np.float64).reshape(tokens, 2, half, tokens, 2, half, 3) / 255
    return blocks.mean(axis=(2, 5)).transpose(0, 2, 1, 3, 4).reshape(tokens, tokens, 12)
