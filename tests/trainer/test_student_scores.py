"""What evaluation says of a student's own features: scale equivariance and spectrum, against loops and closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError
from trainer.evaluation.evaluate import Observations, score
from trainer.evaluation.feature_spectrum import FeatureSums, first_shares, observe_features, variances
from trainer.evaluation.scale_variance import at_sizes, scale_variance

SEEDS = st.integers(0, 2**16)


@given(seed=SEEDS)
def test_the_scale_variance_is_that_of_a_loop_over_equations_10_to_14(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    small, large = torch.randn(2, 2, 3, 4, generator=random), torch.randn(2, 4, 6, 4, generator=random)
    for view in range(2):
        total = 0.0
        for channel in range(4):
            cells = small[view, :, :, channel].flatten().tolist()
            mean = sum(cells) / 6
            width = math.sqrt(sum((cell - mean) ** 2 for cell in cells) / 5)
            for row in range(2):
                for col in range(3):
                    # halving by bilinear interpolation takes the mean of each two by two
                    block = large[view, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2, channel].flatten().tolist()
                    pair = [(float(small[view, row, col, channel]) - mean) / width, (sum(block) / 4 - mean) / width]
                    middle = sum(pair) / 2
                    total += sum((value - middle) ** 2 for value in pair)
        assert float(scale_variance([large, small])[view]) == pytest.approx(total / 24, rel=1e-3)


def test_features_that_do_not_mind_the_scale_have_no_variance_over_it() -> None:
    small = torch.randn(3, 2, 2, 5)
    large = small.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert scale_variance([small, large]).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert scale_variance([small, large + 1]).min() > 0.01


@pytest.mark.parametrize("dead", [0, 1, 4, 5])
def test_a_channel_that_is_dead_at_the_smallest_size_counts_as_nothing(dead: int) -> None:
    random = torch.Generator().manual_seed(dead)
    small, large = torch.randn(2, 2, 2, 5, generator=random), torch.randn(2, 4, 4, 5, generator=random)
    alone = torch.stack([scale_variance([small[..., [c]], large[..., [c]]]) for c in range(5)], dim=1)
    small[0, :, :, :dead] = 0.0  # a ReLU that is off at this size, and on at the other
    found = scale_variance([small, large])
    assert float(found[1]) == pytest.approx(float(alone[1].mean()), rel=1e-5)
    if dead == 5:
        assert torch.isnan(found[0])
    else:
        assert float(found[0]) == pytest.approx(float(alone[0, dead:].mean()), rel=1e-5)


def test_what_is_constant_but_for_rounding_is_dead() -> None:
    random = torch.Generator().manual_seed(0)
    small, large = torch.randn(1, 2, 2, 2, generator=random), torch.randn(1, 4, 4, 2, generator=random)
    alone = float(scale_variance([small[..., :1], large[..., :1]]))
    small[..., 1] = 3 + 1e-7 * torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    assert float(scale_variance([small, large])) == pytest.approx(alone, rel=1e-5)


def test_an_image_whose_tokens_are_all_alike_has_no_variance_over_scales() -> None:
    constant = torch.ones(1, 2, 2, 5)
    assert torch.isnan(scale_variance([constant, constant])).all()
    assert torch.isnan(scale_variance([constant[:, :1, :1], constant])).all()
    varied = observe_features(torch.randn(1, 2, 2, 5))
    for scales, expected in [([torch.nan], None), ([torch.nan, 0.5, 1.5], pytest.approx(1.0))]:
        scores = score([Observations(features=[varied], scales=[torch.tensor(scales)])], [], {})
        assert scores.student.scale_variance == expected


def test_the_variance_over_scales_is_the_unbiased_one_of_the_listing() -> None:
    # listing A.5.1 of RADIOv2.5 calls `torch.var`, which divides by the number of scales less 1
    steps = torch.arange(4.0).reshape(1, 2, 2, 1)
    width = float(steps.std())
    for scales in (2, 10):
        moved = [steps + width * scale for scale in range(scales)]
        expected = sum((scale - (scales - 1) / 2) ** 2 for scale in range(scales)) / (scales - 1)
        assert float(scale_variance(moved)) == pytest.approx(expected, rel=1e-5)


def test_pictures_are_shown_at_every_size() -> None:
    flat = torch.full((2, 3, 64, 64), 0.25)
    shown = at_sizes(flat, [32, 48, 64])
    assert [tuple(images.shape) for images in shown] == [(2, 3, side, side) for side in (32, 48, 64)]
    assert all(torch.allclose(images, torch.tensor(0.25)) for images in shown)


@given(seed=SEEDS)
def test_the_spectrum_is_that_of_the_centred_features_however_they_were_counted(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randn(6, 2, 3, 4, generator=random) * torch.tensor([4.0, 2.0, 1.0, 0.5]) + 7
    parts = [observe_features(part) for part in (tokens[:1], tokens[1:])]
    flat = tokens.reshape(-1, 4).double()
    values = torch.linalg.svdvals(flat - flat.mean(dim=0)) ** 2
    found = variances(parts[0] + parts[1])
    assert found.tolist() == pytest.approx((values / values.sum()).tolist(), rel=1e-8)


def test_shares_are_told_by_powers_of_two_and_whole() -> None:
    shares = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], dtype=torch.float64)
    assert first_shares(shares) == pytest.approx({"1": 0.4, "2": 0.7, "4": 0.9, "6": 1.0})
    assert list(first_shares(torch.tensor([0.5, 0.5]))) == ["1", "2"]


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_features_that_are_all_alike_or_no_numbers_have_no_spectrum(value: float) -> None:
    alike = FeatureSums(tokens=2, sums=torch.full((2,), 2 * value), products=torch.full((2, 2), 2 * value))
    with pytest.raises(ContractError, match="features of the student: their total variance is"):
        variances(alike)
