"""The page: everything that was gathered, put into the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from jinja2 import Environment, PackageLoader, StrictUndefined

from storage_schemas.format.identity import digest
from storage_schemas.format.stats import PAPER_DISPERSIONS, ChannelStats
from storage_schemas.format.views import ViewSet
from trainer.data.set_source import SetSource
from trainer.data.source import Source
from trainer.report import numbers_as_text as text
from trainer.report.closing_table import RANDOM, ClosingRow
from trainer.report.pictures import ViewPictures
from trainer.report.plots import Plot
from trainer.report.png import ERROR_COLOUR, ERROR_FULL
from trainer.report.results import RunResult

MEAN_LIMIT, VARIANCE_LIMIT = 0.1, 0.05
"""Largest PHI-S residuals (rms of means, mean variance − 1) that pass for standardised."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """How far one teacher's stored features are from standard."""

    grid: str
    """Tokens of a window."""
    mean: float
    variance: float

    @property
    def standard(self) -> bool:
        """Whether mean and variance pass for standardised."""
        return self.mean <= MEAN_LIMIT and abs(self.variance) <= VARIANCE_LIMIT


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualLine:
    """One view set, or all of them together."""

    name: str
    training_views: int
    heldout_views: int
    teachers: tuple[Residual | None, ...]
    """In the order of the cache; None for a teacher that has not seen the set."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSection:
    """One run on the page."""

    result: RunResult
    plots: Sequence[Plot]


def render_page(
    source: Source,
    recipe: str,
    rows: Sequence[ClosingRow],
    students: Sequence[StudentSection],
    pictures: Sequence[ViewPictures],
    colours: Mapping[str, int],
) -> str:
    """Return the page.

    Args:
        source: the cache.
        recipe: name of the recipe that made it.
        rows: the closing table.
        students: the runs, in the order of the pictures.
        pictures: of the views.
        colours: number of each teacher's colour.
    """
    environment = Environment(
        loader=PackageLoader("trainer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": text.bytes_text,
        "count": text.count_text,
        "number": text.number_text,
        "signed": text.signed_text,
    }
    return environment.get_template("page.html.jinja").render(
        uri=source.cache.store.uri,
        identity=digest(source.identity),
        recipe=recipe,
        source=source,
        rows=rows,
        students=students,
        pictures=_by_set(source, pictures),
        residuals=_residuals(source),
        limits=(MEAN_LIMIT, VARIANCE_LIMIT),
        dispersions=_dispersions(source, colours),
        colours=colours,
        random=[row.teacher for row in rows if row.random_weights],
        random_words=RANDOM,
        error_colour=ERROR_COLOUR,
        error_full=ERROR_FULL,
        dash=text.NONE,
    )


def _by_set(source: Source, pictures: Sequence[ViewPictures]) -> dict[str, list[ViewPictures]]:
    return {view_set.name: [one for one in pictures if one.view.view_set == view_set] for view_set in source.sets}


def _residuals(source: Source) -> list[ResidualLine]:
    """Return a line for each view set, and one for all of them together."""
    sets = [
        ResidualLine(
            name=view_set.name,
            training_views=len(one.rows["train"]),
            heldout_views=len(one.rows["heldout"]),
            teachers=tuple(_residual_of_set(source, view_set, one, name) for name in source.teachers),
        )
        for view_set, one in source.sets.items()
    ]
    everything = ResidualLine(
        name="all",
        training_views=sum(line.training_views for line in sets),
        heldout_views=sum(line.heldout_views for line in sets),
        teachers=tuple(_residual(one.stats.pooled, "") for one in source.teachers.values()),
    )
    return [*sets, everything]


def _residual_of_set(source: Source, view_set: ViewSet, one: SetSource, teacher: str) -> Residual | None:
    stats = source.teachers[teacher].stats.sets.get(view_set)
    if stats is None or teacher not in one.features:
        return None
    tokens = one.features[teacher].tokens
    return _residual(stats, f"{tokens} × {tokens}")


def _residual(stats: ChannelStats, grid: str) -> Residual:
    return Residual(grid=grid, mean=stats.mean_residual, variance=stats.variance_residual)


def _dispersions(source: Source, colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return names, values, colours (-1 for the paper's) and the length of a bar (percent)."""
    here = [
        (name, one.stats.dispersion, colours[name])
        for name, one in source.teachers.items()
        if one.stats.dispersion is not None
    ]
    bars = [*here, *((name, value, -1) for name, value in PAPER_DISPERSIONS.items())]
    longest = max(value for _, value, _ in bars)
    return [
        {"name": name, "value": value, "colour": colour, "length": round(100 * value / longest, 2)}
        for name, value, colour in bars
    ]
