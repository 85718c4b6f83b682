"""Positions: the whole grid resized and cut in evaluation, crops of it in training, each against a loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.student.vit.positions import PositionGrid, crops_from, sample_crops, whole_grid


def ramp(side: int) -> torch.Tensor:
    """A grid whose codes are their own places: row, column."""
    place = torch.arange(side, dtype=torch.float32)
    return torch.stack([place[:, None].expand(side, side), place[None].expand(side, side)])


def test_a_window_as_large_as_the_grid_sees_the_grid() -> None:
    grid = torch.randn(3, 8, 8)
    assert torch.equal(whole_grid(grid, 8, 8), grid)
    assert torch.equal(whole_grid(grid, 8, 5), grid[:, :, :5])
    assert torch.equal(whole_grid(grid, 3, 8), grid[:, :3])


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (6, 3), (2, 5), (12, 16)])
def test_another_window_sees_the_top_left_of_the_grid_at_the_size_of_its_longer_side(rows: int, cols: int) -> None:
    side, longer = 8, max(rows, cols)
    seen = whole_grid(ramp(side), rows, cols)
    # a token lies at its centre, and beyond the outermost codes there is nothing but them
    for row in range(rows):
        for col in range(cols):
            place = [min(max((at + 0.5) * side / longer - 0.5, 0), side - 1) for at in (row, col)]
            assert seen[:, row, col].tolist() == pytest.approx(place, abs=1e-5)


def test_crops_are_what_the_equations_say() -> None:
    uniforms = torch.tensor([[0.0, 0.5, 0.25, 1.0], [1.0, 1.0, 0.5, 0.5], [0.5, 0.25, 0.0, 0.75]])
    for crop, (scale, aspect, top, left) in zip(crops_from(uniforms).tolist(), uniforms.tolist(), strict=True):
        scale = math.sqrt(0.1) + (1 - math.sqrt(0.1)) * scale
        aspect = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * aspect)
        height, width = min(scale / aspect, 1), min(scale * aspect, 1)
        assert crop[0] == pytest.approx([top * (1 - height), left * (1 - width)], abs=1e-6)
        assert crop[1] == pytest.approx([height, width], abs=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_a_crop_lies_within_the_grid_and_is_not_tiny(uniforms: list[float]) -> None:
    [[start, size]] = crops_from(torch.tensor([uniforms])).tolist()
    for at, length in zip(start, size, strict=True):
        assert 0 <= at <= at + length <= 1 + 1e-6
        assert length > 0.23  # √0.1 · 3/4


def test_a_crops_outermost_codes_go_to_its_outermost_tokens() -> None:
    crops = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[0.5, 0.25], [0.25, 0.5]]])
    seen = sample_crops(ramp(9), crops, 3, 5)
    assert torch.allclose(
        seen[0], torch.stack(torch.meshgrid([torch.linspace(0, 8, n) for n in (3, 5)], indexing="ij"))
    )
    rows, cols = torch.linspace(4, 6, 3), torch.linspace(2, 6, 5)
    assert torch.allclose(seen[1], torch.stack(torch.meshgrid([rows, cols], indexing="ij")))


def test_each_view_has_a_crop_of_its_own_and_a_share_of_them_none() -> None:
    positions = PositionGrid(8, 4, dropout=0.25)
    uniforms = torch.rand(4, 5)
    uniforms[:, 4] = torch.tensor([0.0, 0.24, 0.25, 0.9])
    seen = positions(3, 5, uniforms)
    expected = sample_crops(positions.grid, crops_from(uniforms[:, :4]), 3, 5).permute(0, 2, 3, 1)
    assert seen.shape == (4, 3, 5, 4)
    assert not seen[:2].any()
    assert torch.equal(seen[2:], expected[2:])
    assert torch.equal(positions(3, 5, None), whole_grid(positions.grid, 3, 5).permute(1, 2, 0)[None])


def test_a_fresh_grid_has_the_variance_of_a_unit_token() -> None:
    torch.manual_seed(0)
    assert PositionGrid(32, 64, dropout=0.0).grid.var().item() == pytest.approx(1 / 64, rel=0.05)
