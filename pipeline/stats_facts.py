"""What `stats` measured of a teacher, beside what the report of C-RADIOv4 has of the same model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import numpy as np

from pipeline.cache_facts import FidelityFacts, ResidualFacts, StatsFacts
from pipeline.dispersion import PAPER_DISPERSIONS
from pipeline.make_command import extract_command
from pipeline.residuals import POOLED, TOLERANCE, residual, residual_advice
from pipeline.spectrum import effective_rank
from storage_schemas.cache import Cache
from storage_schemas.encodings import Encoding
from storage_schemas.errors import MissingError, Problem
from storage_schemas.layout import FEATURES
from storage_schemas.manifest import TeacherManifest, ViewsManifest
from storage_schemas.stats import ChannelStats
from storage_schemas.teacher import TeacherSpec
from teachers.catalogue import CATALOGUE

PAPER_NAMES: Mapping[str, str] = {
    "siglip2-g-384": "SigLIP2-g-384",
    "dinov3-h-plus": "DINOv3-H+",
    "dinov3-7b": "DINOv3-7B",
}
"""Catalogue name → the model's name in Table 3 of the report."""


def stats_facts(
    cache: Cache, views: ViewsManifest, manifest: TeacherManifest, tolerance: float = TOLERANCE
) -> StatsFacts | None:
    """Return what was measured of a teacher, or None before anything was.

    Args:
        cache: the cache.
        views: what it says of its views.
        manifest: what it says of the teacher.
        tolerance: the residual above which a view set is off.
    """
    name = manifest.spec.name
    stats = cache.stats(name)
    if stats is None:
        return None
    sets = [_residuals(view_set.name, channels, tolerance) for view_set, channels in stats.sets.items()]
    residuals = (*sets, _residuals(POOLED, stats.pooled, tolerance))
    same = stats.identity == manifest.digest
    new = stats.unmeasured({one: shape.grid.shards for one, shape in views.sets.items()}) if same else 0
    paper, stored = paper_name(manifest.spec), manifest.identity["encoding"]
    return StatsFacts(
        current=same and not new,
        unmeasured=new,
        views=stats.views,
        tolerance=tolerance,
        residuals=residuals,
        fidelities=tuple(
            _fidelities({**{one.name: of for one, of in stats.sets.items()}, POOLED: stats.pooled}, stored)
        ),
        advice=tuple(residual_advice(residuals, tolerance, _fitted_again(cache, name))),
        dispersion=stats.dispersion,
        paper_model=paper,
        paper_dispersion=None if paper is None else PAPER_DISPERSIONS[paper],
    )


def measured_facts(
    cache: Cache, teachers: Sequence[str], tolerance: float
) -> tuple[dict[str, StatsFacts], dict[str, float]]:
    """Return what was measured of teachers, and the φ of each (raw teacher units).

    Raises:
        MissingError: one was not measured, or has no features.
    """
    facts, scales, views = {}, {}, cache.views_manifest()
    for teacher in teachers:
        manifest, phi_s = cache.teacher_manifest(teacher), cache.phi_s(teacher)
        stats = None if views is None or manifest is None else stats_facts(cache, views, manifest, tolerance)
        if stats is None or phi_s is None:
            problem = Problem(place=f"teachers/{teacher}/stats", found="was not measured", fix="run `make stats`")
            raise MissingError("statistics", [problem])
        facts[teacher], scales[teacher] = stats, phi_s.scale
    return facts, scales


def paper_name(spec: TeacherSpec) -> str | None:
    """Return a teacher's name in Table 3 of the report, or None: another model, or seeded noise in its place."""
    if spec.random_weights:
        return None
    for name, paper in PAPER_NAMES.items():
        entry = CATALOGUE[name].spec
        if (entry.model, entry.dim, entry.native) == (spec.model, spec.dim, spec.native):
            return paper
    return None


def _residuals(name: str, channels: ChannelStats, tolerance: float) -> ResidualFacts:
    found = residual(channels.mean_residual, channels.variance_deviation)
    return ResidualFacts(
        view_set=name,
        tokens=channels.tokens,
        mean=channels.mean_residual,
        variance=channels.variance_residual,
        deviation=channels.variance_deviation,
        residual=found,
        off=found > tolerance,
        effective_rank=effective_rank(channels.spectrum),
    )


def _fidelities(sets: Mapping[str, ChannelStats], stored: Encoding) -> Iterator[FidelityFacts]:
    for name, channels in sets.items():
        for encoding in get_args(Encoding):
            fidelity = channels.fidelity(encoding)
            yield FidelityFacts(
                view_set=name,
                encoding=encoding,
                stored=encoding == stored,
                fidelity=fidelity,
                expected=fidelity is not None and np.dtype(encoding).itemsize >= np.dtype(stored).itemsize,
                saturated=channels.rounding.saturated,
            )


def _fitted_again(cache: Cache, teacher: str) -> str:
    kept = f"{FEATURES}/teachers/{teacher}, tables/shards/teachers/{teacher} and tables/placements/{teacher}"
    command = extract_command(cache, cache.require(), teacher)
    return f"to fit it again delete {kept}, and run `{command}` with more --calibration.views"
