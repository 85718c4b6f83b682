"""The arrays that a cache's manifests imply: their shapes, types and shards, and the identity of details."""

from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.identity import digest
from storage_schemas.format.layout import detail_array, pixels_array, spatial_array, summary_array
from storage_schemas.format.manifest import ViewSetManifest, ViewsManifest
from storage_schemas.format.shard_format import OLD_LEVEL, ArraySpec
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, teacher_tokens


def detail_identity(views: ViewsManifest, teacher: str, side: int) -> str:
    """Return the identity of a teacher's details of a set: the digest in their commit records.

    Args:
        views: manifest of the cache's views.
        teacher: whose windows they are.
        side: side of a window (pixels).
    """
    return digest({"views": views.digest, "teacher": teacher, "side": side})


def pixels_spec(view_set: ViewSet, manifest: ViewSetManifest) -> ArraySpec:
    """Return the array of a set's canvases."""
    side = manifest.geometry.side
    return _pixels(pixels_array(view_set), manifest, side)


def detail_spec(view_set: ViewSet, manifest: ViewSetManifest, teacher: str, side: int) -> ArraySpec:
    """Return the array of a fixed teacher's windows."""
    return _pixels(detail_array(view_set, teacher), manifest, side)


def _pixels(path: str, manifest: ViewSetManifest, side: int) -> ArraySpec:
    grid = manifest.grid
    return ArraySpec(path=path, shape=(grid.rows, side, side, 3), dtype="uint8", rows_per_shard=grid.rows_per_shard)


def spatial_spec(view_set: ViewSet, shape: ViewSetManifest, spec: TeacherSpec, storage: FeatureStorage) -> ArraySpec:
    """Return the array of a teacher's spatial features of a set."""
    tokens, grid = teacher_tokens(spec, view_set, shape.geometry), shape.grid
    return ArraySpec(
        path=spatial_array(view_set, spec.name),
        shape=(grid.rows, tokens, tokens, storage.channels(spec.dim)),
        dtype=storage.dtype,
        rows_per_shard=grid.rows_per_shard,
        compression=storage.compression,
        # an array that is not compressed records no level, and is read back with that of the first caches
        level=storage.level if storage.compression == "zstd" else OLD_LEVEL,
        step=storage.step,
        latents="" if storage.latents is None else storage.latents.sha256,
    )


def summary_spec(view_set: ViewSet, shape: ViewSetManifest, spec: TeacherSpec) -> ArraySpec:
    """Return the array of a teacher's summaries of a set.

    Raises:
        MissingError: the teacher has no summary.
    """
    if spec.summary_dim is None:
        raise MissingError("summary", [Problem(place=f"teacher {spec.name}", found="has none")])
    return ArraySpec(
        path=summary_array(view_set, spec.name),
        shape=(shape.grid.rows, spec.summary_dim),
        dtype="float32",
        rows_per_shard=shape.grid.rows_per_shard,
    )
