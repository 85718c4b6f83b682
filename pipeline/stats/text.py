"""The output of `stats`: tables of PHI-S residuals, dispersions and encodings, and advice."""

from collections.abc import Iterator, Mapping
from typing import get_args

from pipeline.stats.facts import FidelityFacts, ResidualFacts, StatsFacts
from pipeline.text_table import aligned
from storage_schemas.format.encodings import MeasuredEncoding
from storage_schemas.format.stats import PAPER_DISPERSIONS

RESIDUAL_HEAD = ("tokens measured", "rms of mean", "variance − 1", "rms of variance − 1", "effective rank")
"""Heads of the columns of `residual_cells`."""


def stats_lines(facts: Mapping[str, StatsFacts], scales: Mapping[str, float]) -> Iterator[str]:
    """Yield the lines of the output.

    Args:
        facts: statistics by teacher.
        scales: φ of each (raw teacher units).
    """
    rows = [["teacher", "view set", *RESIDUAL_HEAD]]
    for name, stats in facts.items():
        rows += [[name, residual.view_set, *residual_cells(residual)] for residual in stats.residuals]
    yield from aligned(rows, left=2)
    yield ""
    head = ["teacher", "name in report", "φ", "views", "dispersion", "of held-out views", "report's dispersion"]
    yield from aligned([head, *_dispersions(facts, scales)], left=2)
    yield ""
    yield from aligned(list(_fidelity_rows(facts)), left=3)
    yield "fidelity F: variance over the mean squared error of the encoding; ~ is expected from rounding, else measured"
    for name, stats in facts.items():
        yield from (f"{name}: {line}" for line in stats.advice)


def residual_cells(residual: ResidualFacts | None) -> list[str]:
    """Return the cells of one view set, empty where it was not measured."""
    if residual is None:
        return [""] * len(RESIDUAL_HEAD)
    return [
        f"{residual.tokens:,}",
        f"{residual.mean:.4f}",
        f"{residual.variance:+.4f}",
        f"{residual.deviation:.4f}",
        f"{residual.effective_rank:.1f}",
    ]


def _fidelity_rows(facts: Mapping[str, StatsFacts]) -> Iterator[list[str]]:
    """Yield a row for each teacher and view set, with the fidelity of each encoding."""
    encodings = get_args(MeasuredEncoding)
    yield ["teacher", "view set", "stored as", *(f"F of {encoding}" for encoding in encodings), "beyond int8"]
    for name, stats in facts.items():
        for position in range(0, len(stats.fidelities), len(encodings)):
            of_set = stats.fidelities[position : position + len(encodings)]
            yield [name, of_set[0].view_set, stats.encoding, *map(_fidelity, of_set), f"{of_set[0].saturated:.2g}"]


def _fidelity(facts: FidelityFacts) -> str:
    if facts.fidelity is None:
        return "exact"
    return f"{'~' if facts.expected else ''}{facts.fidelity:,.4g}"


def _dispersions(facts: Mapping[str, StatsFacts], scales: Mapping[str, float]) -> Iterator[list[str]]:
    """Yield a row for each teacher, and one for each model of the report that is not among them."""
    for name, stats in facts.items():
        ours = "no summary" if stats.dispersion is None else f"{stats.dispersion:.3f} rad²"
        report = "" if stats.paper_dispersion is None else f"{stats.paper_dispersion:.3f} rad²"
        heldout = "" if stats.heldout_dispersion is None else f"{stats.heldout_dispersion:.3f} rad²"
        heldout = "measured with them" if stats.over_all_views else heldout
        yield [name, stats.paper_model or "", f"{scales[name]:.4g}", f"{stats.views:,}", ours, heldout, report]
    for model in sorted(PAPER_DISPERSIONS.keys() - {stats.paper_model for stats in facts.values()}):
        yield ["", model, "", "", "", "", f"{PAPER_DISPERSIONS[model]:.3f} rad²"]
