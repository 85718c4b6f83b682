"""The facts of `inspect` as plain text. Digests are shown by their first digits."""

from collections.abc import Iterator, Sequence

from pipeline.inspect.facts import CacheFacts, FeatureFacts, TeacherFacts, ViewSetFacts, WriterFacts
from pipeline.inspect.view import ArrayNumbers, ViewFacts
from pipeline.stats.facts import StatsFacts
from pipeline.stats.text import RESIDUAL_HEAD, residual_cells
from pipeline.text_table import aligned, sized
from storage_schemas.format.computed_by import ComputedBy
from storage_schemas.format.stats import POOLED

DIGITS = 12
"""Hexadecimal digits shown of a digest: enough to tell two digests apart."""


def cache_lines(facts: CacheFacts) -> Iterator[str]:
    """Return the lines on a whole cache."""
    identity = "no views yet" if facts.identity is None else f"identity {facts.identity[:DIGITS]}"
    grown = f" in {facts.generations} generations" if facts.generations > 1 else ""
    yield f"{facts.cache}: recipe {facts.recipe}, format {facts.format}, {identity}, {facts.images:,} images{grown}"
    if facts.passed_over:
        yield f"passed over in DATA: {'; '.join(f'{count:,} {kind}' for kind, count in facts.passed_over.items())}"
    if facts.exported_from is not None:
        yield f"exported from views of identity {facts.exported_from[:DIGITS]}"
    if facts.view_sets:
        yield ""
        yield from _view_sets(facts.view_sets)
    for teacher in facts.teachers:
        yield ""
        yield from _teacher(teacher)
    yield ""
    yield from _unfinished(facts)
    yield from map(_writer, facts.writers)


def _view_sets(sets: tuple[ViewSetFacts, ...]) -> Iterator[str]:
    head = ["view set", "canvas", "drawn", "cut", "rejected", "rows per shard", "shards", "pixels"]
    teachers = sorted({detail.teacher for view_set in sets for detail in view_set.details})
    rows = [head + [f"detail {teacher}" for teacher in teachers]]
    for view_set in sets:
        cells = [f"{detail.committed}/{detail.shards}, {sized(detail.bytes)}" for detail in view_set.details]
        counts = (view_set.drawn, view_set.cut, view_set.rejected, view_set.rows_per_shard)
        shards = f"{view_set.committed}/{view_set.shards}"
        numbers = [f"{count:,}" for count in counts]
        rows.append([view_set.name, f"{view_set.side} px", *numbers, shards, sized(view_set.bytes), *cells])
    yield from aligned(rows)


def _teacher(teacher: TeacherFacts) -> Iterator[str]:
    noise = ": RANDOM WEIGHTS, a demonstration, not a teacher" if teacher.random_weights else ""
    summary = "no summary" if teacher.summary_dim is None else f"summaries of {teacher.summary_dim}"
    sizes = "any size" if teacher.size_rule == "any" else f"{teacher.native} px alone ({teacher.size_rule})"
    yield f"teacher {teacher.name}{noise}"
    yield f"  model    {teacher.model}: {teacher.dim} channels, {summary}, patch {teacher.patch}, {sizes}"
    yield f"  licence  {teacher.licence}"
    yield f"  weights  {teacher.weights_sha256[:DIGITS]}, run in {teacher.precision}, {teacher.batch} inputs a forward"
    yield from _computed_by(teacher.computed_by)
    source = "" if teacher.exported_from is None else f", exported from {teacher.exported_from[:DIGITS]}"
    yield f"  stored   {sized(teacher.bytes)} in {teacher.storage}, identity {teacher.identity[:DIGITS]}{source}"
    yield f"  PHI-S    φ = {teacher.phi_s.scale:.4g}, fitted on {teacher.phi_s.tokens:,} tokens"
    yield f"  stats    {_stats(teacher.stats)}"
    yield from (f"  {line}" for line in aligned(list(_set_rows(teacher))))
    if teacher.stats is not None:
        yield from (f"  {line}" for line in teacher.stats.advice)


def _computed_by(history: Sequence[ComputedBy]) -> Iterator[str]:
    """Yield a line for each version of the code and the libraries that computed the features."""
    for label, version in zip(("computed", *["then"] * len(history)), history, strict=False):
        libraries = ", ".join(f"{name} {release}" for name, release in version.libraries.items())
        code = ", ".join(f"{name} {sha256[:DIGITS]}" for name, sha256 in version.code.items())
        text = "; ".join(part for part in (libraries, f"own code {code}" if code else "") if part)
        yield f"  {label:<8} by {text or 'code and libraries that are not recorded'}"


def _stats(stats: StatsFacts | None) -> str:
    if stats is None:
        return "not measured"
    measured = f"{stats.views:,} views" + _staleness(stats)
    if stats.dispersion is None:
        return measured
    notes = []
    if stats.heldout_dispersion is not None:
        notes.append(f"of held-out views {stats.heldout_dispersion:.4g}")
    if stats.paper_model:
        notes.append(f"the report has {stats.paper_dispersion:.3f} for {stats.paper_model}")
    beside = f" ({'; '.join(notes)})" if notes else ""
    return f"{measured}, dispersion of summaries {stats.dispersion:.4g} rad²{beside}"


def _staleness(stats: StatsFacts) -> str:
    if stats.unmeasured:
        return f" WITHOUT {stats.unmeasured} SHARD{'S' * (stats.unmeasured > 1)} THAT CAME SINCE"
    return "" if stats.current else " OF OTHER FEATURES THAN THESE"


def _set_rows(teacher: TeacherFacts) -> Iterator[list[str]]:
    residuals = {} if teacher.stats is None else {facts.view_set: facts for facts in teacher.stats.residuals}
    yield ["view set", "tokens", "views", "shards", "bytes", *RESIDUAL_HEAD]
    for features in teacher.sets:
        tokens = f"{features.tokens} × {features.tokens}"
        yield [features.view_set, tokens, *_stored([features]), *residual_cells(residuals.get(features.view_set))]
    yield ["all", "", *_stored(teacher.sets), *residual_cells(residuals.get(POOLED))]


def _stored(sets: Sequence[FeatureFacts]) -> list[str]:
    """Return the cells on what is stored of some sets together."""
    committed, shards = sum(features.committed for features in sets), sum(features.shards for features in sets)
    views, size = sum(features.views for features in sets), sum(features.bytes for features in sets)
    return [f"{views:,}", f"{committed}/{shards}", sized(size)]


def _writer(writer: WriterFacts) -> str:
    if writer.ended:
        return f"{writer.lease}: {writer.work or 'a run'} ended before it had finished; the next run continues it"
    beat = "" if writer.last_sign is None else f", last heartbeat {writer.last_sign}"
    process = f"process {writer.process} on {writer.host} ({writer.work})"
    return f"{writer.lease} is being written by {process}, since {writer.since}{beat}"


def _unfinished(facts: CacheFacts) -> Iterator[str]:
    if not facts.unfinished:
        yield "nothing is unfinished"
        return
    rows = [[left.unit, f"{left.done}/{left.of}", left.command] for left in facts.unfinished]
    yield from aligned([["unfinished", "done", "finished by"], *rows], left=3)


def view_lines(facts: ViewFacts) -> Iterator[str]:
    """Return the lines on one view."""
    yield f"{facts.cache}: view {facts.view_set}/{facts.row}, in shard {facts.shard}"
    yield ""
    yield from aligned([[name, str(value)] for name, value in facts.view.items()], left=2)
    if facts.placements:
        yield ""
        heads = next(iter(facts.placements.values()))
        rows = [[teacher, *map(_shown, placement.values())] for teacher, placement in facts.placements.items()]
        yield from aligned([["placement", *heads], *rows])
    yield ""
    yield from aligned([["array", "entry", "min", "max", "mean", "std"], *map(_cells, facts.arrays)])


def _cells(numbers: ArrayNumbers) -> list[str]:
    entry = f"{numbers.dtype} {' × '.join(map(str, numbers.shape))}"
    return [numbers.array, entry, *(f"{value:.5g}" for value in (numbers.min, numbers.max, numbers.mean, numbers.std))]


def _shown(value: object) -> str:
    return "" if value is None else str(value)
