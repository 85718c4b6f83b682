"""Encodings: what is stored is the nearest number that the encoding has, and says what it stands for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.encodings import (
    INT8_LARGEST,
    INT8_REACH,
    INT8_STEP,
    Coding,
    as_numbers,
    as_stored,
    step_of_fidelity,
)
from storage_schemas.format.errors import ContractError

INT8 = Coding(encoding="int8", step=INT8_STEP)


def test_eight_deviations_are_127_steps() -> None:
    assert (INT8_REACH, INT8_LARGEST) == (8.0, 127)
    assert INT8_STEP == 8.0 / 127
    assert as_stored(np.array([0.0, 8.0, -8.0, INT8_STEP], np.float32), INT8).tolist() == [0, 127, -127, 1]


@given(st.floats(-8, 8, width=32))
def test_a_number_within_reach_is_read_back_to_half_a_step(number: float) -> None:
    back = as_numbers(as_stored(np.array([number], np.float32), INT8), INT8)
    assert back.dtype == np.float32
    assert abs(float(back[0]) - number) <= INT8_STEP / 2 * (1 + 1e-5)


@given(st.floats(8, 2.0**100, width=32))
def test_a_number_beyond_reach_is_the_largest_there_is_and_never_minus_128(number: float) -> None:
    assert as_stored(np.array([number, -number], np.float32), INT8).tolist() == [127, -127]


@pytest.mark.parametrize("encoding", ["float16", "float32"])
def test_floats_are_stored_and_read_as_floats(encoding: str) -> None:
    numbers = np.array([[1.5, -0.1]], np.float32)
    coding = Coding(encoding=encoding)  # type: ignore[arg-type]
    stored = as_stored(numbers, coding)
    assert stored.dtype == np.dtype(encoding)
    np.testing.assert_array_equal(as_numbers(stored, coding), numbers.astype(encoding))
    assert as_numbers(stored, coding) is stored


def test_rounding_alone_leaves_a_fidelity_of_twelve_over_the_step_squared() -> None:
    numbers = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    error = as_numbers(as_stored(numbers, INT8), INT8) - numbers
    assert numbers.var() / error.var() == pytest.approx(12 / INT8_STEP**2, rel=0.02)
    assert pytest.approx(3024, abs=1) == 12 / INT8_STEP**2


@pytest.mark.parametrize("fidelity", [30.0, 100.0, 3024.0])
def test_a_step_leaves_the_fidelity_that_it_was_chosen_for(fidelity: float) -> None:
    coding = Coding(encoding="int8", step=step_of_fidelity(fidelity))
    numbers = np.random.default_rng(1).standard_normal(400_000).astype(np.float32)
    error = as_numbers(as_stored(numbers, coding), coding) - numbers
    assert numbers.var() / error.var() == pytest.approx(fidelity, rel=0.02)
    reach = np.array([INT8_LARGEST * coding.step, 1e9], np.float32)
    assert as_stored(reach, coding).tolist() == [127, 127]


@pytest.mark.parametrize(("encoding", "step"), [("int8", 0.0), ("int8", -1.0), ("int8", np.inf), ("float16", 0.1)])
def test_an_encoding_and_its_step_belong_together(encoding: str, step: float) -> None:
    with pytest.raises(ContractError, match=f"{step} is no step of {encoding}"):
        Coding(encoding=encoding, step=step)  # type: ignore[arg-type]
