"""A teacher's features, straight from the cache: brought back to raw units, whatever they are stored in."""

import numpy as np
from jaxtyping import Float32

from storage_schemas.cache import Cache
from storage_schemas.cached_views import TeacherReader
from storage_schemas.format.encodings import as_numbers
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.identity import digest
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.near_names import did_you_mean
from storage_schemas.format.phi_s import to_raw
from trainer.downstream.chosen_views import ChosenViews, choose_views
from trainer.downstream.features import EvaluationFeatures, Tokens
from trainer.downstream.options import ViewChoice


def require_teacher(cache: Cache, name: str) -> TeacherManifest:
    """Return the manifest of a teacher.

    Raises:
        MissingError: the cache has no features of it.
    """
    manifest = cache.teacher_manifest(name)
    if manifest is None:
        found, known = "the cache has no features of this teacher", cache.teachers()
        raise MissingError("teacher", [Problem(place=name, found=found, fix=did_you_mean(name, known))])
    return manifest


def teacher_digest(views: ChosenViews, manifest: TeacherManifest) -> str:
    """Return the digest of everything that a teacher's features of some views depend on."""
    return digest({"features": manifest.digest, **views.identity})


def teacher_features(cache: Cache, name: str, view_set: str, choice: ViewChoice) -> EvaluationFeatures:
    """Return a teacher's features of the views of one set. Tokens are read when a task asks for them.

    Args:
        cache: the cache.
        name: name of the teacher.
        view_set: name of the view set.
        choice: which of its views.

    Raises:
        MissingError: the cache has no features of the teacher for the set, or shards are missing.
        SettingError: it has no such view set.
        CorruptionError: stored bytes are not those that were committed.
    """
    manifest, views = require_teacher(cache, name), choose_views(cache, view_set, choice, (name,))
    reader, rows = views.reader.teachers[name], views.rows
    tokens = manifest.tokens[views.view_set]
    return EvaluationFeatures(
        **views.facts(reader.offsets[rows]),
        origin=name,
        model=manifest.spec.model,
        digest=teacher_digest(views, manifest),
        summary=None if reader.summary is None else reader.summary.read(rows.tolist()),
        shape=(tokens, tokens, manifest.spec.dim),
        tokens=_reading(reader, views),
    )


def _reading(reader: TeacherReader, views: ChosenViews) -> Tokens:
    def read(part: slice) -> Float32[np.ndarray, "views rows cols channels"]:
        numbers = as_numbers(reader.spatial.read(views.rows[part].tolist()), reader.coding)
        return numbers.astype(np.float32) if reader.phi_s is None else to_raw(reader.phi_s, numbers)

    return read
