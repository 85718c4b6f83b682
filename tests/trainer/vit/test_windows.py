"""Attention in windows, against a loop that cuts every window out, and against full attention under a mask."""

from collections import Counter

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from trainer.recipes import RECIPES
from trainer.student.vit.windows import attend, draw_window, fitting, from_windows, global_blocks, to_windows

EVERYWHERE = [False, False, True, False, True]


@pytest.fixture
def blocks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [Block(8, 2, qkv_bias=True).eval() for _ in EVERYWHERE]


def test_the_last_block_of_every_period_and_the_very_last_attend_everywhere() -> None:
    def places(depth: int, count: int) -> list[int]:
        return [place for place, everywhere in enumerate(global_blocks(depth, count)) if everywhere]

    assert places(32, 4) == [7, 15, 23, 31]  # ViT-H
    assert places(27, 4) == [5, 11, 17, 23, 26]  # SO400M
    assert places(12, 4) == [2, 5, 8, 11]
    assert places(3, 3) == [0, 1, 2]


def test_windows_hold_what_a_loop_cuts_out_and_go_back_to_their_places() -> None:
    tokens = torch.randn(2, 4, 6, 3)
    cells = to_windows(tokens, 2)
    places = [(row, col) for row in (0, 2) for col in (0, 2, 4)]
    for cell, (row, col) in enumerate(places):
        assert torch.equal(cells[:, cell], tokens[:, row : row + 2, col : col + 2].reshape(2, 4, 3))
    assert torch.equal(from_windows(cells, 2, 4, 6), tokens)


@torch.no_grad()
def test_without_windows_every_block_sees_every_token(blocks: list[nn.Module]) -> None:
    prefix, patches = torch.randn(2, 3, 8), torch.randn(2, 4, 6, 8)
    tokens = torch.cat([prefix, patches.reshape(2, 24, 8)], dim=1)
    for block in blocks:
        tokens = block(tokens)
    for policy in ("apart", "copied"):
        seen = attend(blocks, EVERYWHERE, prefix, patches, None, policy)
        assert torch.allclose(seen[0], tokens[:, :3], atol=1e-6)
        assert torch.allclose(seen[1], tokens[:, 3:].reshape(patches.shape), atol=1e-6)


@torch.no_grad()
def test_apart_is_attention_under_a_mask_that_keeps_class_tokens_and_registers_out(blocks: list[nn.Module]) -> None:
    prefix, patches = torch.randn(2, 3, 8), torch.randn(2, 4, 6, 8)
    window = [row // 2 * 3 + col // 2 for row in range(4) for col in range(6)]
    mask = torch.tensor([[place == other for other in window] for place in window])
    tokens, before = patches.reshape(2, 24, 8), prefix
    for block, everywhere in zip(blocks, EVERYWHERE, strict=True):
        if everywhere:
            both = block(torch.cat([before, tokens], dim=1))
            before, tokens = both[:, :3], both[:, 3:]
        else:
            tokens = block(tokens, attn_mask=mask)
    seen = attend(blocks, EVERYWHERE, prefix, patches, 2, "apart")
    assert torch.allclose(seen[0], before, atol=1e-5)
    assert torch.allclose(seen[1].reshape(2, 24, 8), tokens, atol=1e-5)


@torch.no_grad()
def test_copied_lends_every_window_a_copy_and_averages_them_where_attention_is_everywhere(
    blocks: list[nn.Module],
) -> None:
    prefix, patches = torch.randn(1, 3, 8), torch.randn(1, 4, 6, 8)
    places = [(row, col) for row in (0, 2) for col in (0, 2, 4)]
    cells = [patches[:, row : row + 2, col : col + 2].reshape(1, 4, 8) for row, col in places]
    copies = [prefix] * 6
    for block, everywhere in zip(blocks, EVERYWHERE, strict=True):
        if everywhere:
            both = block(torch.cat([torch.stack(copies).mean(dim=0), *cells], dim=1))
            copies, cells = [both[:, :3]] * 6, list(both[:, 3:].split(4, dim=1))
        else:
            both_by_window = [block(torch.cat(pair, dim=1)) for pair in zip(copies, cells, strict=True)]
            copies, cells = [both[:, :3] for both in both_by_window], [both[:, 3:] for both in both_by_window]
    seen = attend(blocks, EVERYWHERE, prefix, patches, 2, "copied")
    assert torch.allclose(seen[0], copies[0], atol=1e-5)
    for cell, (row, col) in zip(cells, places, strict=True):
        assert torch.allclose(seen[1][:, row : row + 2, col : col + 2].reshape(1, 4, 8), cell, atol=1e-5)


def test_a_step_draws_one_of_the_windows_that_divide_its_side_as_often_as_asked() -> None:
    assert fitting((6, 8, 12, 16, 24), 24) == [6, 8, 12]
    drawn = Counter(draw_window((6, 8, 12, 16, 24), 0.5, 24, (0, "a", step)) for step in range(3000))
    assert set(drawn) == {None, 6, 8, 12}
    assert drawn[None] == pytest.approx(1500, abs=100)
    assert drawn[6] == pytest.approx(500, abs=75)
    assert drawn[12] == pytest.approx(500, abs=75)


def test_where_no_window_fits_attention_is_everywhere() -> None:
    assert {draw_window((6, 8), 1.0, 27, (0, step)) for step in range(50)} == {None}
    assert {draw_window((9,), 1.0, 27, (0, step)) for step in range(50)} == {9}
    assert {draw_window((9,), 0.0, 27, (0, step)) for step in range(50)} == {None}
    assert {draw_window((), 1.0, 27, (0, step)) for step in range(50)} == {None}


def test_the_same_step_draws_the_same_window() -> None:
    draws = [draw_window((6, 8, 12), 0.5, 24, (3, "attention", step, "low-384")) for step in range(100)]
    again = [draw_window((6, 8, 12), 0.5, 24, (3, "attention", step, "low-384")) for step in range(100)]
    other = [draw_window((6, 8, 12), 0.5, 24, (4, "attention", step, "low-384")) for step in range(100)]
    assert draws == again != other


def test_c_radio_v4_trains_with_every_window_from_6_to_32_tokens_that_divides_a_resolution_of_its() -> None:
    sides = [pixels // 16 for pixels in (128, 192, 224, 256, 384, 432, 512, 768, 1024, 1152)]
    assert RECIPES["c_radio_v4"]().vit.windows == tuple(
        window for window in range(6, 33) if any(fitting([window], side) for side in sides)
    )
