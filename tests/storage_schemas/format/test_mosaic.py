"""Cells of a mosaic lie in tokens, apart, inside the canvas, and are dealt by the key alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError
from storage_schemas.format.mosaic import MosaicLayout, draw_cells

LAYOUTS = st.integers(1, 80).flatmap(
    lambda canvas: st.integers(1, canvas).map(lambda window: MosaicLayout(canvas_tokens=canvas, window_tokens=window))
)


@pytest.mark.parametrize(
    ("resolution", "per_side", "cell_tokens"),
    [
        (128, 9, 8),
        (192, 6, 12),
        (224, 5, 14),
        (256, 4, 18),
        (384, 3, 24),
        (432, 2, 36),
        (512, 2, 36),
        (768, 1, 72),
        (1024, 1, 72),
        (1152, 1, 72),
    ],
)
def test_the_papers_resolutions_share_a_canvas_of_72_tokens_as_designed(
    resolution: int, per_side: int, cell_tokens: int
) -> None:
    layout = MosaicLayout(canvas_tokens=72, window_tokens=resolution // 16)
    assert (layout.per_side, layout.capacity, layout.cell_tokens) == (per_side, per_side**2, cell_tokens)


@given(LAYOUTS)
def test_windows_lie_apart_and_inside_and_no_further_row_of_them_would_fit(layout: MosaicLayout) -> None:
    window = layout.window_tokens
    covered: Counter[tuple[int, int]] = Counter()
    for cell in range(layout.capacity):
        corner = layout.corner(cell)
        covered.update((corner.row + row, corner.col + col) for row in range(window) for col in range(window))
    assert set(covered.values()) == {1}
    assert all(0 <= row < layout.canvas_tokens and 0 <= col < layout.canvas_tokens for row, col in covered)
    assert (layout.per_side + 1) * window > layout.canvas_tokens


def test_cells_are_counted_row_by_row() -> None:
    layout = MosaicLayout(canvas_tokens=72, window_tokens=16)
    assert [(layout.corner(cell).row, layout.corner(cell).col) for cell in (0, 1, 4, 15)] == [
        (0, 0),
        (0, 18),
        (18, 0),
        (54, 54),
    ]


@given(LAYOUTS, st.integers())
def test_every_member_has_a_cell_of_its_own_that_depends_on_the_key_alone(layout: MosaicLayout, number: int) -> None:
    cells = draw_cells(layout, ("mosaic", number))
    assert sorted(cells) == list(range(layout.capacity))
    assert draw_cells(layout, ("mosaic", number)) == cells


def test_the_cells_of_a_key_are_those_they_always_were() -> None:
    layout = MosaicLayout(canvas_tokens=72, window_tokens=16)
    cells = draw_cells(layout, (7, "a/ü.jpg", 0, "offset", "dinov3"))
    assert cells == [1, 7, 0, 5, 11, 9, 3, 13, 6, 10, 4, 15, 8, 12, 14, 2]


def test_every_order_of_four_is_dealt_equally_often() -> None:
    layout = MosaicLayout(canvas_tokens=72, window_tokens=27)
    counts = Counter(tuple(draw_cells(layout, (number,))) for number in range(10_000))
    assert len(counts) == 24
    assert all(abs(count - 10_000 / 24) < 4 * (10_000 / 24) ** 0.5 for count in counts.values())


@pytest.mark.parametrize(("canvas", "window"), [(72, 73), (72, 0), (0, 0), (72, -1)])
def test_a_window_that_does_not_fit_the_canvas_is_refused(canvas: int, window: int) -> None:
    with pytest.raises(ContractError) as refusal:
        MosaicLayout(canvas_tokens=canvas, window_tokens=window)
    assert str(refusal.value) == (
        "mosaic breaks the storage contract:\n"
        f"  window: {window} tokens do not fit a canvas of {canvas} "
        "(leave this resolution out, or give the teacher a larger canvas)"
    )


@pytest.mark.parametrize("cell", [-1, 16])
def test_a_cell_that_the_mosaic_does_not_have_is_refused(cell: int) -> None:
    with pytest.raises(ContractError) as refusal:
        MosaicLayout(canvas_tokens=72, window_tokens=16).corner(cell)
    assert (
        str(refusal.value)
        == f"mosaic breaks the storage contract:\n  cell: there is no cell {cell}: the mosaic has 16 cells"
    )
