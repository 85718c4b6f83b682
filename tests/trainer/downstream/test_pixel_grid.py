"""Maps are enlarged as torch does it, put together over an image, and cut by nearest neighbour."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from trainer.downstream.pixel_grid import bilinear_weights, covered, cut, enlarge, put_together


@pytest.mark.parametrize(("rows", "cols", "height", "width"), [(3, 4, 24, 32), (5, 2, 13, 31), (1, 1, 4, 4)])
def test_a_map_is_enlarged_as_torch_does_it(rows: int, cols: int, height: int, width: int) -> None:
    grid = torch.randn(rows, cols, 3, generator=torch.manual_seed(0))
    box = np.array([0.0, 0.0, width, height])
    expected = interpolate(grid.permute(2, 0, 1)[None], size=(height, width), mode="bilinear", align_corners=False)
    found = enlarge(grid, box, range(height), range(width))
    torch.testing.assert_close(found, expected[0].permute(1, 2, 0), rtol=0, atol=1e-6)


def test_the_weights_of_a_place_are_those_of_its_two_neighbours() -> None:
    expected = [[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 0.25, 0.75], [0, 0, 1]]
    places = np.array([0.0, 0.5, 1.0, 2.25, 3.0])
    assert bilinear_weights(places, 3).tolist() == expected


def test_a_pixel_is_covered_if_its_centre_is() -> None:
    assert covered(0.0, 4.0, 10) == range(4)
    assert covered(0.5, 4.0, 10) == range(4)
    assert covered(0.6, 4.0, 10) == range(1, 5)
    assert covered(-3.0, 20.0, 10) == range(10)


def test_overlapping_views_are_averaged_and_uncovered_pixels_counted_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.manual_seed(1)
    boxes = [np.array([0.0, 0.0, 8.0, 8.0]), np.array([5.0, 1.5, 8.0, 8.0])]
    grids = [torch.randn(2, 2, 3, generator=generator) for _ in boxes]
    whole = list(put_together(grids, boxes, (10, 16)))
    monkeypatch.setattr("trainer.downstream.pixel_grid.BAND", 3 * 16 * 3)
    banded = list(put_together(grids, boxes, (10, 16)))
    assert [len(banded), len(whole)] == [4, 1]
    values = torch.cat([part for _, part, _ in banded])
    count = np.concatenate([part for _, _, part in banded])
    torch.testing.assert_close(values, whole[0][1])
    assert (count == whole[0][2]).all()
    for y, x in ((0, 0), (4, 6), (9, 15), (6, 12), (1, 5), (0, 9)):
        seen = [
            enlarge(grid, box, range(y, y + 1), range(x, x + 1))[0, 0]
            for grid, box in zip(grids, boxes, strict=True)
            if box[0] <= x + 0.5 < box[0] + box[2] and box[1] <= y + 0.5 < box[1] + box[3]
        ]
        assert count[y, x] == len(seen)
        expected = torch.stack(seen).mean(dim=0) if seen else torch.zeros(3)
        torch.testing.assert_close(values[y, x], expected)


def test_a_map_is_cut_at_the_pixel_under_each_centre() -> None:
    image = np.arange(6 * 9).reshape(6, 9)
    assert (cut(image, np.array([2.0, 1.0, 4.0, 4.0]), 4) == image[1:5, 2:6]).all()
    half = cut(image, np.array([0.0, 0.0, 9.0, 6.0]), 3)
    assert (half == image[[1, 3, 5]][:, [1, 4, 7]]).all()
