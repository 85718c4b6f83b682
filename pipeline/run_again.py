"""Running a teacher again on one view, beside the views that it was run with, and measuring how far the result is."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pipeline.extract_shard import teacher_pixels
from pipeline.features import view_features, views_per_input
from pipeline.placements import Placement, placements_of
from pipeline.running_teacher import RunningTeacher
from pipeline.units import Unit
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, read_commit
from storage_schemas.encodings import as_numbers, as_stored
from storage_schemas.errors import MissingError, Problem
from storage_schemas.geometry import CanvasGeometry
from storage_schemas.layout import summary_array
from storage_schemas.manifest import TeacherManifest
from storage_schemas.phi_s import to_stored


def distance(cache: Cache, running: RunningTeacher, manifest: TeacherManifest, unit: Unit, row: int) -> float:
    """Run the batch that a view was in again, and return how far its stored features are from the result.

    Args:
        cache: the cache.
        running: the teacher that the features are of.
        manifest: its manifest.
        unit: its features of a set.
        row: the view's row in the set.

    Returns:
        The largest `token_distance` of its spatial tokens (PHI-S units) and its summary (raw units).

    Raises:
        MissingError: PHI-S, pixels or the shard are gone.
        CorruptionError: they are damaged.
    """
    name, view_set, shard = manifest.spec.name, unit.view_set, row // unit.grid.rows_per_shard
    phi_s = cache.phi_s(name)
    if phi_s is None:
        raise MissingError("PHI-S", [Problem(place=f"teachers/{name}/phi_s", found="is gone")])
    commits = {shard: read_commit(cache.store, unit.name, shard)}
    placements = placements_of(cache.placements(view_set, name, commits))
    batch, position = _batch(placements, row, manifest, unit.shape.geometry)
    source = teacher_pixels(cache, manifest.spec, view_set, shard)
    features = next(view_features(running, view_set, source, unit.shape.geometry, batch))
    raw = features.maps[manifest.spec.layer][position].float().cpu().numpy()
    expected = as_numbers(as_stored(to_stored(phi_s, raw), manifest.identity["encoding"]))
    apart = [token_distance(as_numbers(_entry(cache, unit.arrays[0].path, commits, row)), expected)]
    if features.summary is not None and manifest.spec.summary_dim is not None:
        summary = features.summary[position].float().cpu().numpy()
        apart.append(token_distance(_entry(cache, summary_array(view_set, name), commits, row), summary))
    return max(apart)


def token_distance(
    stored: Float[np.ndarray, "*tokens channels"], expected: Float[np.ndarray, "*tokens channels"]
) -> float:
    """Return the largest |stored − expected| of any token, as a share of the greater of |expected| and its rms."""
    lengths = np.linalg.norm(expected.astype(np.float64), axis=-1)
    apart = np.linalg.norm(stored.astype(np.float64) - expected, axis=-1)
    least = max(float(np.sqrt(np.mean(lengths**2))), float(np.finfo(np.float32).tiny))
    return float(np.max(apart / np.maximum(lengths, least)))


def _batch(
    placements: Sequence[Placement], row: int, manifest: TeacherManifest, geometry: CanvasGeometry
) -> tuple[Sequence[Placement], int]:
    """Return the placements of the batch that a row was in, whole mosaics of it, and the row's position there.

    Of features that come from another cache the batch is not known: the row's mosaic alone, or views beside it.
    """
    if manifest.exported and manifest.spec.size_rule == "canvas":
        [mosaic] = [one.mosaic for one in placements if one.row == row]
        batch = [one for one in placements if one.mosaic == mosaic]
        return batch, [one.row for one in batch].index(row)
    length = manifest.identity["batch"] * views_per_input(manifest.spec, geometry)
    position = [one.row for one in placements].index(row)
    first = position - position % length
    return placements[first : first + length], position - first


def _entry(cache: Cache, path: str, commits: dict[int, list[ShardRecord]], row: int) -> np.ndarray:
    return cache.array(path, commits).read([row])[0]
