"""Maps of depth and of surface normals, beside the images of a cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
from jaxtyping import Float32
from PIL import Image

from storage_schemas.format.errors import MissingError, Problem, SettingError, first_problems
from trainer.downstream.dense_settings import DepthSettings, MapFormat, NormalsSettings

SHORTEST = 0.5
"""Length below which a stored normal is no direction: its pixel does not count."""
PNG_BITS = 24
"""Where a PNG file says how many bits a channel has (bytes from its start)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MapFiles:
    """The maps of the images of a cache."""

    task: str
    """`depth` or `normals`."""
    paths: Mapping[str, Path]
    """Key of each image → its map."""
    sizes: Mapping[str, tuple[int, int]]
    """Key of each image → its height and width (pixels)."""
    format: MapFormat

    def depth(self, key: str, settings: DepthSettings) -> Float32[np.ndarray, "height width"]:
        """Return the depth of every pixel (m); NaN where it does not count.

        Raises:
            SettingError: the map has another size than its image, or is no map of depth.
        """
        metres = self._read(key, 2).astype(np.float64) * settings.unit
        with np.errstate(invalid="ignore"):
            counted = (metres >= settings.least) & (metres <= settings.most) & (metres > 0)
        return np.where(counted, metres, np.nan).astype(np.float32)

    def normals(self, key: str) -> Float32[np.ndarray, "height width 3"]:
        """Return the unit normal of every pixel; NaN where it does not count.

        Raises:
            SettingError: the map has another size than its image, or is no map of normals.
        """
        stored = self._read(key, 3)
        vectors = stored / 127.5 - 1 if self.format == "png" else stored.astype(np.float64)
        length = np.linalg.norm(vectors, axis=2, keepdims=True)
        counted = np.isfinite(length) & (length >= SHORTEST)
        if self.format == "png":
            counted &= stored.any(axis=2, keepdims=True)
        return np.where(counted, vectors / np.where(counted, length, 1), np.nan).astype(np.float32)

    def _read(self, key: str, dimensions: int) -> np.ndarray:
        path, size = self.paths[key], self.sizes[key]
        stored = _read_npy(path, self.task) if self.format == "npy" else _read_png(path, self.task)
        expected = size if dimensions == 2 else (*size, 3)
        if stored.shape != expected:
            found = f"has the shape {stored.shape}, expected {expected} for its image {key}"
            fix = "give the maps of the images that the cache was cut from"
            raise SettingError(self.task, [Problem(place=str(path), found=found, fix=fix)])
        return stored


def find_maps(task: str, folder: Path, form: MapFormat, sizes: Mapping[str, tuple[int, int]]) -> MapFiles:
    """Find the map of every image.

    Args:
        task: `depth` or `normals`.
        folder: folder of maps.
        form: how they are stored.
        sizes: key of each image → its height and width (pixels).

    Raises:
        MissingError: an image has no map.
    """
    paths = {key: (folder / PurePosixPath(key)).with_suffix(f".{form}") for key in sizes}
    if missing := [key for key, path in paths.items() if not path.is_file()]:
        fix = "give the folder in which the paths of maps agree with the keys of images"
        problems = [Problem(place=key, found=f"has no map {paths[key]}", fix=fix) for key in missing]
        raise MissingError(task, first_problems(problems))
    return MapFiles(task=task, paths=paths, sizes=sizes, format=form)


def require_depth(settings: DepthSettings) -> None:
    """Refuse settings of depth that are not possible, before any feature is computed.

    Raises:
        SettingError: no folder, no unit, or a range without depths.
        MissingError: the folder does not exist.
    """
    _require_folder("depth", settings.maps)
    problems = []
    if not 0 < settings.unit < np.inf:
        fix = "give the metres of one step of the stored values: 0.001 for millimetres"
        problems.append(Problem(place="unit", found=f"{settings.unit} is not a number above 0", fix=fix))
    if not 0 <= settings.least < settings.most:
        problems.append(Problem(place="least, most", found=f"no depth lies from {settings.least} to {settings.most} m"))
    if problems:
        raise SettingError("depth", problems)


def require_normals(settings: NormalsSettings) -> None:
    """Refuse settings of normals that are not possible, before any feature is computed.

    Raises:
        SettingError: no folder is given.
        MissingError: the folder does not exist.
    """
    _require_folder("normals", settings.maps)


def _require_folder(task: str, folder: Path) -> None:
    if folder == Path():
        raise SettingError(task, [Problem(place=task, found="no folder of maps is given")])
    if not folder.is_dir():
        raise MissingError(task, [Problem(place=str(folder), found="is no folder")])


def _read_npy(path: Path, task: str) -> np.ndarray:
    try:
        stored = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SettingError(task, [Problem(place=str(path), found=f"cannot be read: {error}")]) from error
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "fiu":
        raise SettingError(task, [Problem(place=str(path), found="does not hold an array of real numbers")])
    return stored


def _read_png(path: Path, task: str) -> np.ndarray:
    """Read a PNG file of the one kind that a task takes."""
    wanted, modes = ("16-bit grey", ("I;16", "I")) if task == "depth" else ("8-bit RGB", ("RGB",))
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, stored = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise SettingError(task, [Problem(place=str(path), found=f"cannot be read: {error}")]) from error
    bits = path.read_bytes()[PNG_BITS]  # Pillow drops the lower 8 bits of 16-bit RGB without a word
    if mode not in modes or bits != (16 if task == "depth" else 8):
        found = f"is a PNG with {bits} bits a channel (mode {mode} of Pillow), expected {wanted}"
        raise SettingError(task, [Problem(place=str(path), found=found, fix="write it so, or as npy")])
    return stored
