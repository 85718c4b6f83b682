"""What `inspect --view` says, as plain text."""

from collections.abc import Iterator

from pipeline.text_table import aligned
from pipeline.view_facts import ArrayNumbers, ViewFacts


def view_lines(facts: ViewFacts) -> Iterator[str]:
    """Say what is known of a view."""
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
