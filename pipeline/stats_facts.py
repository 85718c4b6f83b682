"""What `stats` measured of a teacher, beside what the report of C-RADIOv4 has of the same model."""

from collections.abc import Mapping

from pipeline.cache_facts import ResidualFacts, StatsFacts
from pipeline.dispersion import PAPER_DISPERSIONS
from storage_schemas.cache import Cache
from storage_schemas.manifest import TeacherManifest
from storage_schemas.stats import ChannelStats
from storage_schemas.teacher import TeacherSpec
from teachers.catalogue import CATALOGUE

PAPER_NAMES: Mapping[str, str] = {
    "siglip2-g-384": "SigLIP2-g-384",
    "dinov3-h-plus": "DINOv3-H+",
    "dinov3-7b": "DINOv3-7B",
}
"""Catalogue name → the model's name in Table 3 of the report."""


def stats_facts(cache: Cache, manifest: TeacherManifest) -> StatsFacts | None:
    """Return what was measured of a teacher, or None before anything was."""
    stats = cache.stats(manifest.spec.name)
    if stats is None:
        return None
    sets = [_residuals(view_set.name, channels) for view_set, channels in stats.sets.items()]
    paper = paper_name(manifest.spec)
    return StatsFacts(
        current=stats.identity == manifest.digest,
        views=stats.views,
        residuals=(*sets, _residuals("all", stats.pooled)),
        dispersion=stats.dispersion,
        paper_model=paper,
        paper_dispersion=None if paper is None else PAPER_DISPERSIONS[paper],
    )


def paper_name(spec: TeacherSpec) -> str | None:
    """Return a teacher's name in Table 3 of the report, or None: another model, or seeded noise in its place."""
    if spec.random_weights:
        return None
    for name, paper in PAPER_NAMES.items():
        entry = CATALOGUE[name].spec
        if (entry.model, entry.dim, entry.native) == (spec.model, spec.dim, spec.native):
            return paper
    return None


def _residuals(name: str, channels: ChannelStats) -> ResidualFacts:
    return ResidualFacts(
        view_set=name, tokens=channels.tokens, mean=channels.mean_residual, variance=channels.variance_residual
    )
