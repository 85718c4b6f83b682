"""The lines that `verify` prints: what is no damage, and that all is sound. Problems are printed as an error."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.inventory.unfinished import UnfinishedFacts
from pipeline.text_table import aligned, sized
from pipeline.verify.verdict import ReadIndependently, Recomputed, Verdict
from storage_schemas.format.errors import first_few
from storage_schemas.rejected import rejected_line


def verdict_lines(verdict: Verdict, uri: str) -> Iterator[str]:
    """Yield what is unfinished, left over, rejected, recomputed and read independently; last, that a sound cache is so.

    Args:
        verdict: what `verify` found.
        uri: of the cache.
    """
    yield from _unfinished_lines(verdict.unfinished)
    yield from _leftover_lines(verdict.leftovers, "objects", "that nothing in the cache names (see `make gc`)")
    yield from _leftover_lines(verdict.foreign, "files", "that Stillhouse did not write; `make gc` leaves them alone")
    if verdict.rejected:
        yield f"verify: {rejected_line(uri, verdict.rejected)}"
    for recomputed in verdict.recomputed:
        yield from _recomputed_lines(recomputed)
    if verdict.independent is not None:
        yield _independent_line(verdict.independent)
    if not verdict.problems:
        counts = f"{verdict.units} units, {verdict.objects} committed objects, {sized(verdict.bytes)}"
        if verdict.quick:
            yield f"verify: sound: {counts}, all there and of the right size; the bytes of arrays were not read"
        else:
            yield f"verify: sound: {counts}, every byte read and as committed"


def _unfinished_lines(unfinished: Sequence[UnfinishedFacts]) -> Iterator[str]:
    if unfinished:
        rows = [[facts.unit, f"{facts.done}/{facts.of}", facts.command] for facts in unfinished]
        yield from aligned([["unfinished", "done", "finished by"], *rows], left=3)


def _leftover_lines(leftovers: Mapping[str, int], kind: str, what: str) -> Iterator[str]:
    if leftovers:
        size = sized(sum(leftovers.values()))
        yield f"leftovers: {len(leftovers)} {kind}, {size}, {what}"
        yield from (f"  {line}" for line in first_few(leftovers))


def _recomputed_lines(recomputed: Recomputed) -> Iterator[str]:
    yield (
        f"recomputed {recomputed.teacher}: {recomputed.views} views, max relative error of a token "
        f"{recomputed.largest_error:.2g}, tolerance {recomputed.tolerance:.2g}"
    )
    if recomputed.left_out:
        yield (
            f"recomputed {recomputed.teacher}: {recomputed.left_out} views left out: "
            "this cache lacks their details, or other views of their mosaics"
        )


def _independent_line(independent: ReadIndependently) -> str:
    counts = f"{independent.chunks} chunks of {independent.arrays} arrays ({sized(independent.bytes)})"
    return f"independent: zarr-python {independent.version} reads {counts} as our reader does, byte for byte"
