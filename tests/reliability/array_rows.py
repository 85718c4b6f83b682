"""Rows of the arrays of a tiny cache: where they are, their right values, and reading them as a trainer does."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from cache_model import LOG, VIEWS, CacheModel
from references import table_rows
from tiny_caches import TEACHERS

from pipeline.inventory.arrays import detail_identity
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """A row of an array."""

    unit: str
    """The unit of the array."""
    array: str
    teacher: str
    """Whose features or details these are; empty for canvases."""
    shape: tuple[int, ...]
    rows_per_shard: int
    row: int = 0

    def at(self, number: int) -> "Place":
        """Return a row of the same array."""
        return replace(self, row=number % self.shape[0])

    @property
    def shard(self) -> int:
        """The shard that holds it."""
        return self.row // self.rows_per_shard

    @property
    def object(self) -> str:
        """The object that holds it."""
        return f"features.zarr/{self.array}/c/{self.shard}" + "/0" * (len(self.shape) - 1)

    @property
    def record(self) -> str:
        """The commit record of its shard."""
        return f"{LOG}{self.unit}/{self.shard:05d}.parquet"


def places(model: CacheModel) -> list[Place]:
    """Return the first row of every array, also of those that do not exist yet because their set is not cut."""
    views = model.references.arrays(model.history)
    every = [_place(path, value) for path, value in views.items() if "/detail/" not in path or "fixed" in model.roster]
    for teacher in filter(model.is_declared, TEACHERS):
        said = model.references.arrays(model.history, teacher, model.fitted[teacher])
        every += [_place(path, value) for path, value in said.items()]
    return every


def _place(path: str, stored: tuple[np.ndarray, int]) -> Place:
    parts, (array, rows_per_shard) = path.split("/"), stored
    unit = path if "detail" in parts else path.rpartition("/")[0]
    teacher = parts[1] if parts[0] == "teachers" else parts[3] if "detail" in parts else ""
    return Place(unit=unit, array=path, teacher=teacher, shape=array.shape, rows_per_shard=rows_per_shard)


def value_of(model: CacheModel, place: Place) -> np.ndarray | None:
    """Return the right value of a row, by plain zarr-python; None where there is none."""
    if place.record not in model.sound:
        return None
    table = (
        f"tables/views/{place.unit.split('/')[1 if place.unit.startswith('views') else 2]}/{place.shard:05d}.parquet"
    )
    file = model.references.bodies[model.references.views(model.history)[table]]
    if place.row not in [row["row"] for row in table_rows(file)]:
        return None
    of = (place.teacher, model.fitted[place.teacher]) if place.unit.startswith("teachers") else ()
    return model.references.arrays(model.history, *of)[place.array][0][place.row]


def read(cache: Cache, place: Place) -> np.ndarray:
    """Read a row through the manifests and the commit log, as a trainer does."""
    views = cache.views_manifest()
    if views is None:
        raise MissingError("views", [Problem(place=VIEWS, found="no manifest")])
    identity = views.digest
    if place.unit.startswith("teachers"):
        manifest = cache.teacher_manifest(place.teacher)
        if manifest is None:
            lost = f"features.zarr/teachers/{place.teacher}/zarr.json"
            raise MissingError("teacher", [Problem(place=lost, found="no manifest")])
        identity = manifest.digest
    elif place.teacher:
        identity = detail_identity(views, place.teacher, place.shape[1])
    return cache.array(place.array, cache.records(place.unit, identity)).read([place.row])[0]
