"""The catalogue as tables, for the terminal and for `docs/teachers.md`.

`python -m teachers.table docs/teachers.md` rewrites the tables of that page.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from storage_schemas.format.teacher import SizeRule, SummaryKind, TeacherSpec
from teachers.catalogue import CATALOGUE
from teachers.cost import tflop_per_input
from teachers.entry import CatalogueEntry
from teachers.kinds import LIBRARIES, kind_of
from teachers.source import precision_of, spec_of

SIDES = (256, 432, 1152)
"""Sides of the inputs (pixels) for which the cost of a teacher of any size is shown."""

Row = Sequence[str]


def terminal_table() -> str:
    """Return the catalogue as aligned text: shapes, sizes, precision, licence, parameters and TFLOP per input."""
    rows = [[*shape, *cost[1:]] for shape, cost in zip(shape_rows(), cost_rows(), strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def described_teacher(source: str, summary: SummaryKind, size_rule: SizeRule | None) -> list[str]:
    """Return what is known of a teacher before its weights are read, as lines of a name and a value.

    Args:
        source: a name in the catalogue, `timm:<model.tag>`, or `module:Class`.
        summary: where the summary of a library's model comes from.
        size_rule: which sizes a library's model gets; None for its own rule.

    Raises:
        SettingError, ContractError: as `spec_of`.
    """
    spec = spec_of(source, summary=summary, size_rule=size_rule)
    facts = {
        "teacher": source,
        "name in a cache": spec.name,
        "model": spec.model,
        "channels": str(spec.dim),
        "summary": "none" if spec.summary_dim is None else f"{spec.summary_dim} channels",
        "patch": f"{spec.patch} px",
        "sizes": _sizes(spec),
        "tokens": f"{spec.native_tokens} × {spec.native_tokens} at {spec.native} px",
        "mean": ", ".join(map(str, spec.mean)),
        "std": ", ".join(map(str, spec.std)),
        "licence": spec.licence,
        "precision": precision_of(source, None),
    }
    if kind_of(source) in LIBRARIES:
        facts |= _library_facts(source, summary, size_rule, facts["summary"])
    width = max(map(len, facts))
    return [f"{name:<{width}}  {value}" for name, value in facts.items()]


def _library_facts(source: str, summary: SummaryKind, size_rule: SizeRule | None, channels: str) -> dict[str, str]:
    from teachers.library import library_model  # imports torch

    model = library_model(source, summary, size_rule)
    published = model.publication
    alike = ", ".join(str(block) for block, alike in enumerate(model.alike) if alike)
    return {
        "summary": channels if summary == "none" else f"{channels}, {model.pooling}",
        "prefix tokens": str(model.prefix_tokens),
        "final norm": "applied to maps" if model.normed else "not applied to maps",
        "layers": alike or "the last block alone",
        "parameters": f"{model.parameters / 1e6:,.1f} M",
        "TFLOP": f"{tflop_per_input(source, model.spec.native):.3g} at {model.spec.native} px",
        "weights": f"https://huggingface.co/{published.hub}" if published.hub else published.also or "none published",
    }


def shape_rows() -> list[Row]:
    """Return a heading, and for each model its dimensions, accepted sizes, precision and licence."""
    head = ("teacher", "C", "summary", "patch", "prefix", "sizes (px)", "precision", "licence")
    return [head, *(_shape_row(entry) for entry in CATALOGUE.values())]


def cost_rows() -> list[Row]:
    """Return a heading, and for each model its parameters and TFLOP per input, of each of `SIDES` or its only size."""
    head = ("teacher", "parameters", *(f"TFLOP at {side}" for side in SIDES), "at its own size")
    return [head, *(_cost_row(entry) for entry in CATALOGUE.values())]


def source_rows() -> list[Row]:
    """Return a heading, and for each model with published weights where they are."""
    head = ("teacher", "model", "hub", "gated", "also")
    entries = [entry for entry in CATALOGUE.values() if entry.hub]
    rows = [
        (entry.spec.name, entry.spec.model, entry.hub or "", "yes" if entry.gated else "no", entry.also)
        for entry in entries
    ]
    return [head, *rows]


def pixel_rows() -> list[Row]:
    """Return a heading, and for each kind of preprocessing the teachers that share it."""
    shared: dict[Row, list[str]] = {}
    for entry in CATALOGUE.values():
        mean, std = (", ".join(map(str, values)) for values in (entry.spec.mean, entry.spec.std))
        published = "; ".join(f"{resize.by}: {resize.resize}, {resize.resample}" for resize in entry.published)
        shared.setdefault((mean, std, published), []).append(entry.spec.name)
    return [
        ("teachers", "mean", "std", "published resizing"),
        *((", ".join(names), *key) for key, names in shared.items()),
    ]


TABLES: Mapping[str, Callable[[], list[Row]]] = {
    "shapes": shape_rows,
    "costs": cost_rows,
    "sources": source_rows,
    "pixels": pixel_rows,
}
"""The tables of a page: NAME in `<!-- table: NAME -->` … `<!-- end -->`."""


def refreshed(page: str) -> str:
    """Return a page with each of its `TABLES` updated."""
    between = r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)"
    return re.sub(between, lambda match: match[1] + markdown(TABLES[match[2]]()) + match[3], page, flags=re.DOTALL)


def markdown(rows: Sequence[Row]) -> str:
    """Return rows, the first of them the heading, as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "".join(f"{line}\n" for line in lines)


def _shape_row(entry: CatalogueEntry) -> Row:
    spec = entry.spec
    summary = "none" if spec.summary_dim is None else str(spec.summary_dim)
    return (
        spec.name,
        str(spec.dim),
        summary,
        str(spec.patch),
        str(entry.prefix_tokens),
        _sizes(spec),
        entry.precision,
        spec.licence,
    )


def _sizes(spec: TeacherSpec) -> str:
    return f"multiples of {spec.patch}" if spec.size_rule == "any" else f"only {spec.native} ({spec.size_rule})"


def _cost_row(entry: CatalogueEntry) -> Row:
    name = entry.spec.name
    parameters = f"{entry.parameters / 1e6:,.1f} M"
    if entry.spec.size_rule == "any":
        return (name, parameters, *(_tflop(name, side) for side in SIDES), "")
    return (name, parameters, *("" for _ in SIDES), f"{_tflop(name, entry.spec.native)} at {entry.spec.native}")


def _tflop(source: str, side: int) -> str:
    return f"{tflop_per_input(source, side):.3g}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(refreshed(target.read_text()))
