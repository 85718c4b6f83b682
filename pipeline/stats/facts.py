"""What `stats` measured of a teacher, beside what the report of C-RADIOv4 has of the same model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final, get_args

import numpy as np

from pipeline.inventory.commands import extract_command
from storage_schemas.cache import Cache
from storage_schemas.format.encodings import Encoding
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.layout import FEATURES
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.stats import PAPER_DISPERSIONS, POOLED, TOLERANCE, ChannelStats, effective_rank
from storage_schemas.format.teacher import TeacherSpec
from teachers.catalogue import CATALOGUE

PAPER_NAMES: Mapping[str, str] = {
    "siglip2-g-384": "SigLIP2-g-384",
    "dinov3-h-plus": "DINOv3-H+",
    "dinov3-7b": "DINOv3-7B",
}
"""Catalogue name → the model's name in Table 3 of the report."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualFacts:
    """How far stored spatial features are from zero mean and unit variance."""

    view_set: str
    """The set, or `all`."""
    tokens: int
    """Tokens measured."""
    mean: float
    """Root mean square over channels of the mean (PHI-S units)."""
    variance: float
    """Mean over channels of the variance, less 1 (PHI-S units squared)."""
    deviation: float
    """Root mean square over channels of the variance less 1 (PHI-S units squared)."""
    residual: float
    """The greater of `mean` and `deviation`."""
    off: bool
    """Whether that is above the tolerance."""
    effective_rank: float
    """exp of the entropy of the covariance's normalised eigenvalues (axes); Roy and Vetterli 2007."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityFacts:
    """What an encoding leaves of the spatial features of a view set."""

    view_set: str
    """The set, or `all`."""
    encoding: str
    stored: bool
    """Whether the features are stored in it."""
    fidelity: float | None
    """Variance of the features over the mean squared error of the encoding; null where it changes no number."""
    expected: bool
    """Whether the error is expected of how far apart the encoding's numbers are, and not measured: the features were
    rounded to it, or to fewer bits, before they were stored."""
    saturated: float
    """Share of the numbers that are as large as `int8` holds, or larger."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StatsFacts:
    """What `stats` measured."""

    current: bool
    """Whether these are the features that were measured, and all of them."""
    unmeasured: int
    """Shards that were added since; 0 where other features were measured."""
    views: int
    """Views measured."""
    tolerance: float
    """Residual above which a set is off."""
    residuals: tuple[ResidualFacts, ...]
    """Each set, and last `all` of them together."""
    fidelities: tuple[FidelityFacts, ...]
    """Each set in each encoding, and last `all` of them together."""
    advice: tuple[str, ...]
    """Which sets are off, and what to do; empty where none is."""
    dispersion: float | None
    """Disp(Θ_y) (rad²); null for a teacher without a summary."""
    paper_model: str | None
    """The teacher's name in Table 3 of the C-RADIOv4 report; null where it is none of those."""
    paper_dispersion: float | None
    """Disp(Θ_y) (rad²) of that model in the report; null likewise."""


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
    return ResidualFacts(
        view_set=name,
        tokens=channels.tokens,
        mean=channels.mean_residual,
        variance=channels.variance_residual,
        deviation=channels.variance_deviation,
        residual=channels.residual,
        off=channels.is_off(tolerance),
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


def residual_advice(residuals: Sequence[ResidualFacts], tolerance: float, again: str) -> Iterator[str]:
    """Say which view sets are off, and what to do; nothing where none is.

    Args:
        residuals: each set, and all of them together.
        tolerance: the residual from which on a set is off.
        again: how PHI-S is fitted again.
    """
    sets = [one for one in residuals if one.off and one.view_set != POOLED]
    pooled = next((one for one in residuals if one.off and one.view_set == POOLED), None)
    if sets:
        named = ", ".join(f"{one.view_set} ({one.residual:.3g})" for one in sets)
        yield f"OFF by more than {tolerance:g}: {named}"
    if pooled is not None:
        found = f"all view sets together are off by {pooled.residual:.3g}, more than {tolerance:g}"
        yield f"{found}: PHI-S was fitted on too few views, or on others than these; {again}"
    elif sets:
        found = "all together are not: at these resolutions the teacher speaks otherwise, and one map serves all"
        yield f"{found}; leave these sets out of training (data.proportions), or accept them (--tolerance)"
