"""The page: the template, filled with the tables, plots and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from jinja2 import Environment, PackageLoader, StrictUndefined

from storage_schemas.format.identity import digest
from storage_schemas.format.stats import PAPER_DISPERSIONS, TOLERANCE, ChannelStats
from storage_schemas.format.views import ViewSet
from trainer.data.set_source import SetSource
from trainer.data.source import Source
from trainer.downstream.results import RESULTS, scores_in
from trainer.report import numbers_as_text as text
from trainer.report.closing_table import RANDOM, ClosingRow
from trainer.report.comparison import compare
from trainer.report.evaluation_scores import Evaluated, evaluation_scores
from trainer.report.pictures import ViewPictures
from trainer.report.plots import Plot
from trainer.report.png import ERROR_COLOUR, ERROR_FULL
from trainer.report.rejected_images import rejected_images
from trainer.report.results import RunResult
from trainer.report.run_list import changed_text


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """How far one teacher's stored features are from zero mean and unit variance."""

    grid: str
    """Tokens of a window; empty for all view sets together."""
    mean: float
    """Root mean square over channels of the mean (PHI-S units)."""
    deviation: float
    """Root mean square over channels of the variance minus 1 (PHI-S units squared): deviations do not cancel."""
    off: bool
    """Whether the features are too far from standard, by the rule of `make stats`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualLine:
    """One row of the table of residuals: a view set, or all view sets together."""

    name: str
    training_views: int
    heldout_views: int
    teachers: tuple[Residual | None, ...]
    """In the order of the cache; None for a teacher without features of the set."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSection:
    """The section of one run."""

    result: RunResult
    plots: Sequence[Plot]


def render_page(
    source: Source,
    recipe: str,
    rows: Sequence[ClosingRow],
    students: Sequence[StudentSection],
    pictures: Sequence[ViewPictures],
    colours: Mapping[str, int],
    evaluated: Sequence[Evaluated] = (),
) -> str:
    """Return the page.

    Args:
        source: the cache.
        recipe: name of the recipe that made the cache.
        rows: the closing table.
        students: the runs, in the order of the pictures.
        pictures: pictures of the views.
        colours: number of each teacher's colour.
        evaluated: teachers and models that were evaluated.
    """
    results = [student.result for student in students]
    environment = Environment(
        loader=PackageLoader("trainer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": text.bytes_text,
        "changed": changed_text,
        "zip": zip,
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
        comparison=compare(results, list(source.teachers)) if students else None,
        evaluation=evaluation_scores([_evaluated(result) for result in results], evaluated),
        rejected=rejected_images(source.cache, source.identity["views"], source.sets),
        pictures=_by_set(source, pictures),
        residuals=_residuals(source),
        tolerance=TOLERANCE,
        dispersions=_dispersions(source, colours),
        colours=colours,
        random=[row.teacher for row in rows if row.random_weights],
        random_words=RANDOM,
        error_colour=ERROR_COLOUR,
        error_full=ERROR_FULL,
        dash=text.NONE,
    )


def _evaluated(result: RunResult) -> Evaluated:
    return Evaluated(name=result.name, trained=True, scores=scores_in(result.run.path / RESULTS))


def _by_set(source: Source, pictures: Sequence[ViewPictures]) -> dict[str, list[ViewPictures]]:
    by_set: dict[str, list[ViewPictures]] = {view_set.name: [] for view_set in source.sets}
    for picture in pictures:
        by_set[picture.view.view_set.name].append(picture)
    return by_set


def _residuals(source: Source) -> list[ResidualLine]:
    """Return a line for each view set, and a last one for all view sets together."""
    sets = [
        ResidualLine(
            name=view_set.name,
            training_views=len(set_source.rows["train"]),
            heldout_views=len(set_source.rows["heldout"]),
            teachers=tuple(_residual_of_set(source, view_set, set_source, name) for name in source.teachers),
        )
        for view_set, set_source in source.sets.items()
    ]
    everything = ResidualLine(
        name="all",
        training_views=sum(line.training_views for line in sets),
        heldout_views=sum(line.heldout_views for line in sets),
        teachers=tuple(_residual(teacher.stats.pooled, "") for teacher in source.teachers.values()),
    )
    return [*sets, everything]


def _residual_of_set(source: Source, view_set: ViewSet, set_source: SetSource, teacher: str) -> Residual | None:
    stats = source.teachers[teacher].stats.sets.get(view_set)
    if stats is None or teacher not in set_source.features:
        return None
    tokens = set_source.features[teacher].tokens
    return _residual(stats, f"{tokens} × {tokens}")


def _residual(stats: ChannelStats, grid: str) -> Residual:
    return Residual(grid=grid, mean=stats.mean_residual, deviation=stats.variance_deviation, off=stats.is_off())


def _dispersions(source: Source, colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the bars of the dispersions: name, value, colour (-1 for those of the paper), length (percent)."""
    here = [
        (name, teacher.stats.dispersion, colours[name])
        for name, teacher in source.teachers.items()
        if teacher.stats.dispersion is not None
    ]
    bars = [*here, *((name, value, -1) for name, value in PAPER_DISPERSIONS.items())]
    longest = max(value for _, value, _ in bars)
    return [
        {"name": name, "value": value, "colour": colour, "length": round(100 * value / longest, 2)}
        for name, value, colour in bars
    ]
