"""Tiles: cut, laid beside each other again, and the window shrunk as Pillow shrinks it."""

import numpy as np
import torch
from PIL import Image

from pipeline.features.tiling import cut_tiles, shrunk, stitch_tiles


def test_tiles_are_cut_row_by_row() -> None:
    windows = torch.arange(2 * 3 * 12 * 12, dtype=torch.float32).reshape(2, 3, 12, 12)
    tiles = cut_tiles(windows, 3)
    assert tiles.shape == (18, 3, 4, 4)
    for number, tile in enumerate(tiles):
        view, down, right = number // 9, number % 9 // 3, number % 3
        assert torch.equal(tile, windows[view, :, 4 * down : 4 * down + 4, 4 * right : 4 * right + 4])


def test_tokens_of_tiles_lie_where_the_tiles_were_cut() -> None:
    windows = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    tokens = cut_tiles(windows, 3).permute(0, 2, 3, 1)  # each pixel a token
    assert torch.equal(stitch_tiles(tokens, 3).permute(0, 3, 1, 2), windows)


def test_a_window_is_shrunk_by_the_filter_that_views_are_cut_with() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    by_pillow = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32)
    ours = shrunk(torch.from_numpy(pixels).float().permute(2, 0, 1)[None], 32)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - by_pillow).max() < 1  # Pillow rounds to whole values, twice
