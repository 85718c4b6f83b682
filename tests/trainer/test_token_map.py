"""Token maps on tensors say what the geometry says, and move whole tokens without rounding."""

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from storage_schemas.format.errors import ContractError
from storage_schemas.format.geometry import AxisMatch, CanvasGeometry, TokenAxis, match_axis, match_tokens
from trainer.objective.token_map import Keep, Resample, Shift, TokenMap

CHANNELS = 3
RESOLUTIONS = {16: (128, 192, 224, 256, 384, 432, 512, 768, 1024, 1152), 14: (126, 224, 378, 518)}
"""Of the views, by the patch in which windows move (pixels)."""
STRIDES = (8, 14, 16, 32)
"""Of students (pixels): ViTs of the patches that there are, and the last stage of hierarchical backbones."""
FIXED_TOKENS = (12, 16, 24, 27, 72)
"""Of teachers with one size: tiny, SigLIP2 at 256, at 384, at 378 and 432, at 1152 in tiles."""
GRIDS = sorted(
    {
        (resolution, patch, resolution // stride, tokens)
        for patch, resolutions in RESOLUTIONS.items()
        for resolution, stride in product(resolutions, STRIDES)
        if resolution % stride == 0
        for tokens in (*FIXED_TOKENS, *(resolution // other for other in (14, 16) if resolution % other == 0))
    }
)
"""Every (resolution, patch, student's tokens, teacher's tokens) that recipes can give."""


@cache
def axis_match(geometry: CanvasGeometry, student: int, teacher: int, own: int, its: int) -> AxisMatch:
    return match_axis(
        TokenAxis(start=own, span=geometry.span, tokens=student),
        TokenAxis(start=its, span=geometry.span, tokens=teacher),
    )


def truth(
    geometry: CanvasGeometry, student: np.ndarray, teacher: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One view at a time, in the canvas's own coordinates, in float64."""
    mapped = []
    for tokens, other, ((student_row, student_col), (teacher_row, teacher_col)) in zip(
        student, teacher, starts.tolist(), strict=True
    ):
        rows, cols = (
            axis_match(geometry, len(tokens), len(other), own, its)
            for own, its in ((student_row, teacher_row), (student_col, teacher_col))
        )
        mapped.append(match_tokens(tokens, other, rows, cols))
    return tuple(np.stack(parts) for parts in zip(*mapped, strict=True))  # type: ignore[return-value]


@st.composite
def cases(draw: st.DrawFn) -> tuple[CanvasGeometry, int, int, int]:
    margin = draw(st.integers(0, 3))
    geometry = CanvasGeometry(resolution=draw(st.integers(1, 12)) * 16, patch=16, margin=margin)
    tokens = st.integers(1, 14)
    return geometry, draw(tokens), draw(tokens), draw(st.integers(0, 2**16))


def pairs(margin: int) -> np.ndarray:
    """Every pair of windows that a student and a teacher can have: [pairs, (student, teacher), (row, column)]."""
    starts = list(product(range(margin + 1), repeat=2))
    return np.array(list(product(starts, repeat=2)))


def drawn(geometry: CanvasGeometry, student: int, teacher: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    starts = random.integers(0, geometry.margin + 1, size=(4, 2, 2))
    tokens = (random.normal(size=(4, side, side, CHANNELS)).astype(np.float32) for side in (student, teacher))
    return *tokens, starts  # type: ignore[return-value]


def mapped(
    token_map: TokenMap, student: np.ndarray, teacher: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shift = torch.from_numpy(starts[:, 1] - starts[:, 0])
    return tuple(part.numpy() for part in token_map(torch.from_numpy(student), torch.from_numpy(teacher), shift))


def assert_map_agrees(geometry: CanvasGeometry, student: np.ndarray, teacher: np.ndarray, starts: np.ndarray) -> None:
    """Compare the map with the geometry, view by view, over every common position."""
    token_map = TokenMap(geometry, student.shape[1], teacher.shape[1])
    want_student, want_teacher, want_common = truth(geometry, student, teacher, starts)
    got_student, got_teacher, got_common = mapped(token_map, student, teacher, starts)
    assert_array_equal(got_common, want_common)
    assert_allclose(got_student[want_common], want_student[want_common], atol=3e-6)
    assert_allclose(got_teacher[want_common], want_teacher[want_common], atol=3e-6)


def always_meet(geometry: CanvasGeometry, student: int, teacher: int) -> bool:
    """Whether every pair of windows has a common position, by the geometry."""
    offsets = range(geometry.margin + 1)
    return all(axis_match(geometry, student, teacher, *pair).common.any() for pair in product(offsets, repeat=2))


@given(case=cases())
def test_a_map_agrees_with_the_geometry_or_is_refused_where_windows_may_not_meet(
    case: tuple[CanvasGeometry, int, int, int],
) -> None:
    geometry, student_tokens, teacher_tokens, seed = case
    if always_meet(geometry, student_tokens, teacher_tokens):
        assert_map_agrees(geometry, *drawn(geometry, student_tokens, teacher_tokens, seed))
    else:
        with pytest.raises(ContractError, match="have no common position under some shift"):
            TokenMap(geometry, student_tokens, teacher_tokens)


def every_pair_of(grid: tuple[int, int, int, int], margin: int, seed: int) -> Iterator[tuple]:
    """Views of a grid in every pair of windows, some at a time."""
    resolution, patch, student, teacher = grid
    geometry, random = CanvasGeometry(resolution=resolution, patch=patch, margin=margin), np.random.default_rng(seed)
    for starts in np.array_split(pairs(margin), margin + 1):
        shapes = ((len(starts), side, side, 1) for side in (student, teacher))
        yield geometry, *(random.standard_normal(shape, dtype=np.float32) for shape in shapes), starts


@given(grid=st.sampled_from(GRIDS), margin=st.integers(0, 3), seed=st.integers(0, 2**16))
@settings(max_examples=60)
def test_a_map_agrees_with_the_geometry_for_every_pair_of_windows_of_a_recipes_grids(
    grid: tuple[int, int, int, int], margin: int, seed: int
) -> None:
    for case in every_pair_of(grid, margin, seed):
        assert_map_agrees(*case)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [1, 2, 3])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_grid_of_every_recipe_agrees_for_every_pair_of_windows(
    grid: tuple[int, int, int, int], margin: int
) -> None:
    for case in every_pair_of(grid, margin, seed=0):
        assert_map_agrees(*case)


@given(tokens=st.integers(3, 12), margin=st.integers(0, 2), seed=st.integers(0, 2**16))
def test_equal_grids_are_shifted_and_not_rounded(tokens: int, margin: int, seed: int) -> None:
    geometry = CanvasGeometry(resolution=tokens * 16, patch=16, margin=margin)
    student, teacher, starts = drawn(geometry, tokens, tokens, seed)
    want_student, want_teacher, common = truth(geometry, student, teacher, starts)
    got_student, got_teacher, _ = mapped(TokenMap(geometry, tokens, tokens), student, teacher, starts)
    assert_array_equal(got_student[common], want_student[common])
    assert_array_equal(got_teacher[common], want_teacher[common])


@pytest.mark.parametrize(
    ("student", "teacher", "kinds"),
    [
        (8, 8, (Shift, Keep)),  # a token is a patch: the student moves by whole tokens
        (16, 16, (Shift, Keep)),  # a token is half a patch
        (6, 6, (Resample, Keep)),  # a token is 4/3 of a patch: a shift by a patch is none by whole tokens
        (8, 4, (Resample, Keep)),  # the teacher is coarser
        (4, 8, (Keep, Resample)),  # the student is
    ],
)
def test_only_what_must_be_averaged_is(student: int, teacher: int, kinds: tuple[type, type]) -> None:
    geometry = CanvasGeometry(resolution=128, patch=16, margin=2)
    token_map = TokenMap(geometry, student, teacher)
    assert (type(token_map.student), type(token_map.teacher)) == kinds


def test_tokens_shifted_whole_keep_their_type_and_pass_gradients_to_common_positions_only() -> None:
    geometry = CanvasGeometry(resolution=64, patch=16, margin=1)
    student = torch.zeros(1, 4, 4, 1, requires_grad=True)
    shifted, _, common = TokenMap(geometry, 4, 4)(student, torch.zeros(1, 4, 4, 1), torch.tensor([[1, -1]]))
    shifted[common].sum().backward()
    # the teacher sits one row lower and one column further left: the first row and the last column are not common
    expected = torch.ones(4, 4)
    expected[0], expected[:, -1] = 0, 0
    assert student.grad is not None
    assert torch.equal(student.grad[0, :, :, 0], expected)
    assert TokenMap(geometry, 4, 4)(student.half(), student.half(), torch.tensor([[0, 0]]))[0].dtype == torch.float16


def test_averages_are_float32_inside_autocast() -> None:
    token_map = TokenMap(CanvasGeometry(resolution=64, patch=16, margin=0), 4, 2)
    student = torch.full((1, 4, 4, 1), 1.0009765625)  # one step beyond what bfloat16 holds
    with torch.autocast("cpu", dtype=torch.bfloat16):
        averaged, _, _ = token_map(student, torch.zeros(1, 2, 2, 1), torch.zeros(1, 2, dtype=torch.int64))
    assert torch.equal(averaged, torch.full((1, 2, 2, 1), 1.0009765625))


def test_windows_that_may_not_meet_are_refused() -> None:
    with pytest.raises(ContractError) as refusal:
        TokenMap(CanvasGeometry(resolution=32, patch=16, margin=2), 2, 2)
    assert str(refusal.value) == (
        "token map breaks the storage contract:\n"
        "  32 px, shifts of up to 2 patches: 2 student and 2 teacher tokens on 2 patches have no common position under "
        "some shift "
        "(leave this resolution out with data.proportions, or choose a student with smaller tokens)"
    )
