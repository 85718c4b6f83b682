"""The statistics of a teacher as `stats` and `inspect` show them, with the C-RADIOv4 report's figures beside them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final, get_args

from pipeline.inventory.commands import extract_command
from pipeline.stats.committed import CommittedFeatures
from storage_schemas.cache import Cache
from storage_schemas.format.encodings import Encoding, MeasuredEncoding
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.layout import FEATURES
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.snapshots import HEADS
from storage_schemas.format.stats import (
    PAPER_DISPERSIONS,
    POOLED,
    TOLERANCE,
    ChannelStats,
    TeacherStats,
    effective_rank,
)
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.unit_log import LOG
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
    """Whether the residual is above the tolerance; see `ChannelStats.is_off`."""
    effective_rank: float
    """exp of the entropy of the covariance's normalised eigenvalues (axes); Roy and Vetterli 2007."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityFacts:
    """The fidelity of an encoding on the spatial features of a view set."""

    view_set: str
    """The set, or `all`."""
    encoding: str
    stored: bool
    """Whether the features are stored in it."""
    fidelity: float | None
    """Variance of the features over the encoding's mean squared error; null where it changes no number."""
    expected: bool
    """Whether the error is not measured, but expected from the spacing of the encoding's numbers: the features were
    rounded to this encoding, or to fewer bits, before they were stored."""
    saturated: float
    """Share of the numbers at or beyond the largest value of `int8`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StatsFacts:
    """The statistics of one teacher."""

    current: bool
    """Whether the statistics are of the features that are stored now, and of all of them."""
    unmeasured: int
    """Shards that were added since they were measured; 0 where other features were measured."""
    views: int
    """Views measured."""
    encoding: str
    """Encoding of the features that were measured."""
    tolerance: float
    """Residual above which a view set is off."""
    residuals: tuple[ResidualFacts, ...]
    """One for each set; the last is for `all` sets together."""
    fidelities: tuple[FidelityFacts, ...]
    """One for each set and encoding; the last are for `all` sets together."""
    advice: tuple[str, ...]
    """Which sets are off, and what to do about it; empty where none is."""
    dispersion: float | None
    """Disp(Θ_y) (rad²) of the training views; null for a teacher without a summary."""
    heldout_dispersion: float | None
    """The same of held-out views, about the mean direction of the training views; null where there is none."""
    over_all_views: bool
    """Whether an earlier version measured `dispersion`, over training and held-out views together."""
    paper_model: str | None
    """The teacher's name in Table 3 of the C-RADIOv4 report; null where it is not in the table."""
    paper_dispersion: float | None
    """Disp(Θ_y) (rad²) of that model in the report; null where there is none."""


def stats_facts(
    cache: Cache, views: ViewsManifest, manifest: TeacherManifest, tolerance: float = TOLERANCE
) -> StatsFacts | None:
    """Read a teacher's statistics, and return them as facts; None before the teacher was measured.

    Args:
        cache: the cache.
        views: manifest of its views.
        manifest: of the teacher.
        tolerance: the residual above which a view set is off.
    """
    stats = cache.stats(manifest.spec.name)
    if stats is None:
        return None
    return facts_of(stats, views, manifest, tolerance, _fit_again(cache, cache.require(), manifest.spec.name))


def facts_of(
    stats: TeacherStats, views: ViewsManifest, manifest: TeacherManifest, tolerance: float, fit_again: str
) -> StatsFacts:
    """Return a teacher's statistics as facts.

    Args:
        stats: the statistics.
        views: manifest of the cache's views.
        manifest: of the teacher.
        tolerance: the residual above which a view set is off.
        fit_again: how the user can have PHI-S fitted again.
    """
    sets = {**{view_set.name: channels for view_set, channels in stats.sets.items()}, POOLED: stats.pooled}
    residuals = tuple(_residuals(name, channels, tolerance) for name, channels in sets.items())
    same = stats.identity == manifest.digest
    new = stats.unmeasured({view_set: shape.grid.shards for view_set, shape in views.sets.items()}) if same else 0
    paper = paper_name(manifest.spec)
    return StatsFacts(
        current=same and not new,
        unmeasured=new,
        views=stats.views,
        encoding=manifest.identity["encoding"],
        tolerance=tolerance,
        residuals=residuals,
        fidelities=tuple(_fidelities(sets, manifest.identity["encoding"])),
        advice=tuple(residual_advice(residuals, tolerance, fit_again)),
        dispersion=stats.dispersion,
        heldout_dispersion=stats.heldout_dispersion,
        over_all_views=stats.dispersion is not None and stats.training_views is None,
        paper_model=paper,
        paper_dispersion=None if paper is None else PAPER_DISPERSIONS[paper],
    )


def measured_facts(
    cache: Cache, teachers: Iterable[CommittedFeatures], tolerance: float
) -> tuple[dict[str, StatsFacts], dict[str, float]]:
    """Return the statistics of measured teachers as facts, and the φ of each (raw teacher units).

    Raises:
        MissingError: one was not measured, or has no PHI-S.
    """
    facts, scales = {}, {}
    for features in teachers:
        name, stats, phi_s = features.name, features.stats, cache.phi_s(features.name)
        if stats is None or phi_s is None:
            problem = Problem(place=f"teachers/{name}/stats", found="was not measured", fix="run `make stats`")
            raise MissingError("statistics", [problem])
        fit_again = _fit_again(cache, features.recipe, name)
        facts[name] = facts_of(stats, features.views, features.manifest, tolerance, fit_again)
        scales[name] = phi_s.scale
    return facts, scales


def paper_name(spec: TeacherSpec) -> str | None:
    """Return a teacher's name in Table 3 of the report; None for another model, and for random weights."""
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


_BYTES: Mapping[Encoding, int] = {"float32": 4, "float16": 2, "int8": 1, "pca8": 1}
"""Bytes of a stored number. The error of an encoding with fewer bytes than the stored one can be measured."""


def _fidelities(sets: Mapping[str, ChannelStats], stored: Encoding) -> Iterator[FidelityFacts]:
    for name, channels in sets.items():
        for encoding in get_args(MeasuredEncoding):
            fidelity = channels.fidelity(encoding)
            yield FidelityFacts(
                view_set=name,
                encoding=encoding,
                stored=encoding == stored,
                fidelity=fidelity,
                expected=fidelity is not None and _BYTES[encoding] >= _BYTES[stored],
                saturated=channels.rounding.saturated,
            )


def _fit_again(cache: Cache, recipe: str, teacher: str) -> str:
    folders = ", ".join(f"{folder}/teachers/{teacher}" for folder in (FEATURES, HEADS, LOG))
    folders += f" and tables/placements/{teacher}"
    command = extract_command(cache, recipe, teacher)
    return f"to fit it again delete {folders}, and run `{command}` with more --calibration.views"


def residual_advice(residuals: Sequence[ResidualFacts], tolerance: float, fit_again: str) -> Iterator[str]:
    """Tell which view sets are off, and what to do about it; yield nothing where none is.

    Args:
        residuals: of each set, and of all of them together.
        tolerance: the residual above which a set is off.
        fit_again: how the user can have PHI-S fitted again.
    """
    sets = [residual for residual in residuals if residual.off and residual.view_set != POOLED]
    pooled = next((residual for residual in residuals if residual.off and residual.view_set == POOLED), None)
    if sets:
        named = ", ".join(
            f"{residual.view_set} ({residual.residual:.3g}, variance {1 + residual.variance:.3g})" for residual in sets
        )
        yield f"OFF by more than {tolerance:g}: {named}"
    if pooled is not None:
        found = f"all view sets together are off by {pooled.residual:.3g}, more than {tolerance:g}"
        yield f"{found}: PHI-S was fitted on too few views, or on different ones; {fit_again}"
    elif sets:
        yield (
            "all sets together are not off: the features of this teacher vary more at some resolutions than at others, "
            "and one PHI-S map serves all. In training, a set of variance v weighs v times as much as one of variance "
            "1; `--loss.balance view-set` divides the loss of each set by its variance. Nothing needs to be fitted or "
            "stored again; to accept these sets, raise --tolerance"
        )
