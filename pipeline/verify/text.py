"""What `verify` says when it found no damage, and of what is no damage."""

from collections.abc import Iterator

from pipeline.text_table import aligned, sized
from pipeline.verify.stage import Verdict

SHOWN = 10
"""Leftovers that are named; the others are counted."""


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """Say what is unfinished, what is left over, and what was run again; last, where nothing is damaged, that."""
    if verdict.unfinished:
        rows = [[one.unit, f"{one.done}/{one.of}", one.command] for one in verdict.unfinished]
        yield from aligned([["unfinished", "done", "finished by"], *rows], left=3)
    if verdict.leftovers:
        size = sized(sum(verdict.leftovers.values()))
        yield f"leftovers: {len(verdict.leftovers)} objects, {size}, that nothing names and nobody reads"
        yield from (f"  {name}" for name in list(verdict.leftovers)[:SHOWN])
        if len(verdict.leftovers) > SHOWN:
            yield f"  and {len(verdict.leftovers) - SHOWN} more"
    for one in verdict.recomputed:
        yield (
            f"recomputed {one.teacher}: {one.views} views, the farthest {one.farthest:.2g} of a token's length "
            f"from what is stored; rounding explains {one.tolerance:.2g}"
        )
        if one.left_out:
            yield (
                f"recomputed {one.teacher}: {one.left_out} views cannot be run again here: "
                "details that it saw, or others of their mosaics, are not in this cache"
            )
    if not verdict.problems:
        units = f"{verdict.units} units, {verdict.objects} committed objects, {sized(verdict.bytes)}"
        if verdict.quick:
            yield f"verify: sound: {units}, all there and of the right size; what is in the arrays was not read"
        else:
            yield f"verify: sound: {units}, every byte read and as committed"
