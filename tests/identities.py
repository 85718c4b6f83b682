"""Identities with every field that a stored document must have, for caches of noise."""

from typing import Any

from storage_schemas.format.identity import digest
from storage_schemas.format.teacher import TeacherSpec


def views_identity(recipe: str, **more: Any) -> dict[str, Any]:
    """What views were cut from."""
    images = {"count": 0, "keys_sha256": digest({})}
    return {"recipe": recipe, "views": {}, "images": images} | more


def features_identity(spec: TeacherSpec, views: str, **more: Any) -> dict[str, Any]:
    """What features were computed from."""
    stored = {"precision": "fp32", "batch": 1, "encoding": "float16", "compression": "none"}
    digests = {"weights_sha256": digest({}), "phi_s_sha256": digest({})}
    return {"views": views, "teacher": spec.attributes()} | stored | digests | more
