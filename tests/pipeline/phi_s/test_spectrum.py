import numpy as np
import pytest

from pipeline.phi_s.moments import Moments
from pipeline.phi_s.spectrum import principal_axes, spectrum
from storage_schemas.format.errors import ContractError


def with_covariance(covariance: np.ndarray) -> Moments:
    return Moments(count=11, mean=np.zeros(len(covariance)), scatter=10 * covariance)


def test_axes_come_with_the_greatest_variance_first() -> None:
    principal = principal_axes(with_covariance(np.diag([2.0, 5.0, 3.0])))
    np.testing.assert_allclose(principal.variances, [5, 3, 2])
    np.testing.assert_array_equal(principal.axes, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_axes_and_variances_make_up_the_covariance() -> None:
    mixing = np.random.default_rng(0).normal(size=(40, 40))
    principal = principal_axes(with_covariance(mixing @ mixing.T))
    np.testing.assert_allclose(principal.axes * principal.variances @ principal.axes.T, mixing @ mixing.T, atol=1e-11)


def test_the_component_of_largest_size_of_every_axis_is_positive() -> None:
    mixing = np.random.default_rng(1).normal(size=(40, 40))
    axes = principal_axes(with_covariance(mixing @ mixing.T)).axes
    assert all(column.max() == np.abs(column).max() for column in axes.T)


def test_no_variance_of_a_rank_deficient_covariance_is_negative() -> None:
    mixing = np.random.default_rng(2).normal(size=(40, 10))
    variances = principal_axes(with_covariance(mixing @ mixing.T)).variances
    assert variances.min() == 0
    assert (variances > 1e-9).sum() == 10


def test_a_covariance_of_zero_has_no_axes() -> None:
    with pytest.raises(ContractError) as refusal:
        principal_axes(with_covariance(np.zeros((3, 3))))
    expected = "Moments breaks the storage contract:\n  scatter: the total variance is zero: all rows are alike"
    assert str(refusal.value) == expected


def test_the_spectrum_is_zero_where_nothing_varies() -> None:
    assert spectrum(with_covariance(np.zeros((3, 3)))).tolist() == [0, 0, 0]


def test_the_spectrum_is_the_variances_of_the_principal_axes() -> None:
    mixing = np.random.default_rng(3).normal(size=(40, 10))
    moments = with_covariance(mixing @ mixing.T)
    np.testing.assert_allclose(spectrum(moments), principal_axes(moments).variances, rtol=0, atol=1e-12)
    assert spectrum(moments).min() == 0
