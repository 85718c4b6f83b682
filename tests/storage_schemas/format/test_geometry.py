"""Tokens of two windows meet exactly where rational arithmetic says they do."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError
from storage_schemas.format.geometry import (
    AxisMatch,
    CanvasGeometry,
    TokenAxis,
    cut_windows,
    match_axis,
    match_tokens,
    overlap_weights,
)

PATCH = 16
RESOLUTIONS = (128, 192, 224, 256, 384, 432, 512, 768, 1024, 1152)  # C-RADIOv4, both partitions
TEACHER_TOKENS = (24, 27, 72)  # SigLIP2 at 384, SigLIP2 tiled or SAM3 at 432, SAM3 and upsampled SigLIP2 at 1152
MARGIN = 2
Cell = tuple[Fraction, Fraction]
AXES = st.builds(TokenAxis, start=st.integers(0, 4), span=st.integers(1, 30), tokens=st.integers(1, 40))


def cells_of(axis: TokenAxis) -> list[Cell]:
    """Return where each token starts and stops, in patches."""
    edges = [axis.start + Fraction(axis.span * token, axis.tokens) for token in range(axis.tokens + 1)]
    return list(pairwise(edges))


def shares(cell: Cell, tokens: list[Cell]) -> list[Fraction]:
    """Return the share of a cell that each token covers."""
    length = cell[1] - cell[0]
    return [max(min(cell[1], stop) - max(cell[0], start), Fraction(0)) / length for start, stop in tokens]


def meeting(student: TokenAxis, teacher: TokenAxis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match two axes by definition: the coarser's tokens, where both windows hold them whole."""
    on_teacher = Fraction(teacher.span, teacher.tokens) >= Fraction(student.span, student.tokens)
    coarse, fine = (teacher, student) if on_teacher else (student, teacher)
    cells = cells_of(coarse)
    common = [fine.start <= start and stop <= fine.start + fine.span for start, stop in cells]
    resampled = [
        [share * held for share in shares(cell, cells_of(fine))] for cell, held in zip(cells, common, strict=True)
    ]
    kept = [[Fraction(row == column and held) for column in range(coarse.tokens)] for row, held in enumerate(common)]
    sides = (resampled, kept) if on_teacher else (kept, resampled)
    return np.array(sides[0], float), np.array(sides[1], float), np.array(common)


def assert_meets_by_definition(student: TokenAxis, teacher: TokenAxis) -> AxisMatch:
    """Compare a match with its definition, to the last bit."""
    match = match_axis(student, teacher)
    of_student, of_teacher, common = meeting(student, teacher)
    np.testing.assert_array_equal(match.student, of_student)
    np.testing.assert_array_equal(match.teacher, of_teacher)
    np.testing.assert_array_equal(match.common, common)
    return match


@given(AXES, AXES)
def test_any_two_axes_meet_as_rational_arithmetic_says(student: TokenAxis, teacher: TokenAxis) -> None:
    assert_meets_by_definition(student, teacher)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_every_pairing_of_the_papers_meets_as_rational_arithmetic_says_and_covers_all_but_the_shift(
    resolution: int,
) -> None:
    span = resolution // PATCH
    for tokens, own, other in product({span, *TEACHER_TOKENS}, range(MARGIN + 1), range(MARGIN + 1)):
        student = TokenAxis(start=own, span=span, tokens=span)
        match = assert_meets_by_definition(student, TokenAxis(start=other, span=span, tokens=tokens))
        shift = abs(own - other)
        lost = -(-shift * min(tokens, span) // span)  # tokens of the coarser that the shift cuts into
        assert match.common.sum() == min(tokens, span) - lost


@given(AXES, AXES)
def test_a_row_of_weights_sums_to_one_on_common_positions_and_is_zero_elsewhere(
    student: TokenAxis, teacher: TokenAxis
) -> None:
    match = match_axis(student, teacher)
    for weights in (match.student, match.teacher):
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), match.common, rtol=0, atol=1e-12)
        assert not weights[~match.common].any()


@given(AXES, st.integers(-6, 6))
def test_equal_grids_meet_by_a_shift_of_whole_tokens(axis: TokenAxis, shift: int) -> None:
    even = replace(axis, tokens=axis.span, start=8)
    match = match_axis(even, replace(even, start=8 + shift))
    positions = np.arange(even.tokens)
    student = positions[:, None] + shift == positions[None, :]
    np.testing.assert_array_equal(match.student, student)
    np.testing.assert_array_equal(match.common, student.any(axis=1))
    np.testing.assert_array_equal(match.teacher, np.diag(match.common))


@given(AXES, AXES)
def test_the_two_sides_may_change_places_where_their_spacing_differs(first: TokenAxis, second: TokenAxis) -> None:
    match, turned = match_axis(first, second), match_axis(second, first)
    if first.span * second.tokens != second.span * first.tokens:
        np.testing.assert_array_equal(match.student, turned.teacher)
        np.testing.assert_array_equal(match.teacher, turned.student)
        np.testing.assert_array_equal(match.common, turned.common)


@given(AXES, AXES)
def test_a_ramp_meets_itself_exactly_where_edges_meet_and_within_an_eighth_of_a_token_elsewhere(
    student: TokenAxis, teacher: TokenAxis
) -> None:
    match = match_axis(student, teacher)
    ramps = [np.array([float(start + stop) / 2 for start, stop in cells_of(axis)]) for axis in (student, teacher)]
    gap = (match.student @ ramps[0] - match.teacher @ ramps[1])[match.common]
    fine, coarse = sorted(Fraction(axis.span, axis.tokens) for axis in (student, teacher))
    whole_tokens = coarse % fine == 0 and (Fraction(student.start) - teacher.start) % fine == 0
    # a cell takes whole tokens where edges meet; else it cuts one at either end, whose middle is not the cut's
    np.testing.assert_allclose(gap, 0, atol=1e-9 + (0 if whole_tokens else float(fine**2 / (8 * coarse))))


@given(AXES, st.integers(1, 40))
def test_over_one_window_the_mean_of_any_field_is_kept(axis: TokenAxis, tokens: int) -> None:
    match = match_axis(axis, replace(axis, tokens=tokens))
    assert match.common.all()
    for weights, count in ((match.student, axis.tokens), (match.teacher, tokens)):
        np.testing.assert_allclose(weights.mean(axis=0), np.full(count, 1 / count), atol=1e-12)


def test_windows_that_do_not_meet_have_nothing_in_common() -> None:
    match = match_axis(TokenAxis(start=0, span=4, tokens=4), TokenAxis(start=4, span=4, tokens=3))
    assert not match.common.any()
    assert not match.student.any()
    assert not match.teacher.any()


def test_weights_of_a_cell_beyond_the_tokens_sum_to_what_is_covered() -> None:
    weights = overlap_weights(TokenAxis(start=0, span=4, tokens=2), TokenAxis(start=1, span=3, tokens=3))
    np.testing.assert_array_equal(weights, [[0.5, 0, 0], [0, 0.5, 0.5]])


def naive_tokens(
    student: np.ndarray, teacher: np.ndarray, rows: tuple[TokenAxis, TokenAxis], cols: tuple[TokenAxis, TokenAxis]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring tokens to common positions one at a time."""
    of_rows, of_cols = meeting(*rows), meeting(*cols)
    shape = (len(of_rows[2]), len(of_cols[2]), student.shape[2])
    mapped, beside, common = np.zeros(shape), np.zeros(shape), np.zeros(shape[:2], bool)
    for row, col in product(range(shape[0]), range(shape[1])):
        common[row, col] = of_rows[2][row] and of_cols[2][col]
        for out, tokens, side in ((mapped, student, 0), (beside, teacher, 1)):
            for i, j in product(range(tokens.shape[0]), range(tokens.shape[1])):
                out[row, col] += of_rows[side][row, i] * of_cols[side][col, j] * tokens[i, j].astype(np.float64)
    return mapped, beside, common


SMALL = st.builds(TokenAxis, start=st.integers(0, 2), span=st.integers(1, 5), tokens=st.integers(1, 5))


@given(st.tuples(SMALL, SMALL), st.tuples(SMALL, SMALL), st.sampled_from([np.float16, np.float32, np.float64]))
def test_tokens_of_a_view_meet_row_by_row_and_column_by_column(
    rows: tuple[TokenAxis, TokenAxis], cols: tuple[TokenAxis, TokenAxis], dtype: type
) -> None:
    random = np.random.default_rng(0)
    student, teacher = (
        random.standard_normal((rows[side].tokens, cols[side].tokens, 2)).astype(dtype) for side in (0, 1)
    )
    mapped, beside, common = match_tokens(student, teacher, match_axis(*rows), match_axis(*cols))
    expected = naive_tokens(student, teacher, rows, cols)
    np.testing.assert_allclose(mapped, expected[0], atol=1e-12)
    np.testing.assert_allclose(beside, expected[1], atol=1e-12)
    np.testing.assert_array_equal(common, expected[2])


PAIRINGS = pytest.mark.parametrize(
    ("span", "tokens"),
    sorted({(side // PATCH, tokens) for side in RESOLUTIONS for tokens in (side // PATCH, *TEACHER_TOKENS)}),
)


@PAIRINGS
def test_a_constant_field_meets_itself(span: int, tokens: int) -> None:
    match = match_axis(TokenAxis(start=2, span=span, tokens=span), TokenAxis(start=1, span=span, tokens=tokens))
    student, teacher = np.full((span, span, 2), 3.5), np.full((tokens, tokens, 2), 3.5)
    mapped, beside, common = match_tokens(student, teacher, match, match)
    np.testing.assert_allclose(mapped[common], 3.5, atol=1e-12)
    np.testing.assert_allclose(beside[common], 3.5, atol=1e-12)
    assert not mapped[~common].any()
    assert not beside[~common].any()


@PAIRINGS
def test_an_error_of_one_patch_shows_at_every_common_position(span: int, tokens: int) -> None:
    student, teacher = TokenAxis(start=2, span=span, tokens=span), TokenAxis(start=1, span=span, tokens=tokens)
    ramps = [np.array([float(start + stop) / 2 for start, stop in cells_of(axis)]) for axis in (student, teacher)]
    rounding = span / max(span, tokens) / 8
    for planted in (-1, 0, 1):
        match = match_axis(replace(student, start=2 + planted), teacher)
        gap = (match.student @ ramps[0] - match.teacher @ ramps[1])[match.common]
        assert gap.size
        np.testing.assert_allclose(gap, -planted, atol=rounding + 1e-9)


def test_a_canvas_is_the_window_and_its_margin() -> None:
    geometry = CanvasGeometry(resolution=432, patch=16, margin=2)
    assert (geometry.span, geometry.side) == (27, 464)
    smallest = CanvasGeometry(resolution=1, patch=1, margin=0)
    assert (smallest.span, smallest.side) == (1, 1)


@pytest.mark.parametrize(
    ("resolution", "patch", "margin", "problem"),
    [
        (250, 16, 2, "resolution: 250 px is not a positive multiple of the patch, 16 px"),
        (0, 16, 2, "resolution: 0 px is not a positive multiple of the patch, 16 px"),
        (-16, 16, 2, "resolution: -16 px is not a positive multiple of the patch, 16 px"),
        (256, 0, 2, "resolution: 256 px is not a positive multiple of the patch, 0 px"),
        (256, 16, -1, "margin: -1 patches is negative"),
    ],
)
def test_a_canvas_that_cannot_be_is_refused(resolution: int, patch: int, margin: int, problem: str) -> None:
    with pytest.raises(ContractError) as refusal:
        CanvasGeometry(resolution=resolution, patch=patch, margin=margin)
    assert str(refusal.value) == f"canvas breaks the storage contract:\n  {problem}"


@pytest.mark.parametrize(("span", "tokens"), [(0, 4), (4, 0), (-4, 4)])
def test_an_axis_without_length_or_tokens_is_refused(span: int, tokens: int) -> None:
    with pytest.raises(ContractError) as refusal:
        TokenAxis(start=0, span=span, tokens=tokens)
    assert str(refusal.value) == (
        "token axis breaks the storage contract:\n"
        f"  tokens: {tokens} tokens over {span} patches (both must be positive)"
    )


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_window_is_the_square_at_its_start_in_its_own_canvas(channels_first: bool) -> None:
    geometry = CanvasGeometry(resolution=4, patch=2, margin=3)
    canvases = np.random.default_rng(0).integers(0, 256, (3, geometry.side, geometry.side, 3), dtype=np.uint8)
    starts = np.array([(0, 0), (1, 3), (3, 2)])
    windows = cut_windows(canvases, geometry, starts, channels_first=channels_first)
    assert windows.flags.c_contiguous
    expected = [canvases[0, :4, :4], canvases[1, 2:6, 6:10], canvases[2, 6:10, 4:8]]
    moved = [window.transpose(2, 0, 1) if channels_first else window for window in expected]
    np.testing.assert_array_equal(windows, np.stack(moved))
