"""Ranges of bytes are read together where they touch."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.objects.spans import coalesce


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda span: (span[0], sum(span)))))
def test_merged_ranges_cover_the_bytes_asked_for_and_no_others_with_gaps_between(spans: list[tuple[int, int]]) -> None:
    merged = coalesce(spans)
    asked = {byte for start, stop in spans for byte in range(start, stop)}
    assert {byte for start, stop in merged for byte in range(start, stop)} == asked
    assert all(start <= stop < after for (start, stop), (after, _) in pairwise(merged))
    assert all(any(first <= start and stop <= last for first, last in merged) for start, stop in spans)
