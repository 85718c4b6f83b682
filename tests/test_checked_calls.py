"""Calls of the project's functions are checked while tests run."""

import dataclasses

import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation

from storage_schemas.format.geometry import AxisMatch, CanvasGeometry
from storage_schemas.format.seeds import pick


def test_an_argument_of_another_type_is_refused() -> None:
    with pytest.raises(BeartypeCallHintViolation, match="pick"):
        pick({"a": 1.0}, "not a tuple")  # type: ignore[arg-type]


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(BeartypeCallHintViolation, match="resolution"):
        CanvasGeometry(resolution="128", patch=16, margin=2)  # type: ignore[arg-type]


def test_arrays_whose_shapes_do_not_agree_are_refused() -> None:
    axis = AxisMatch(student=np.ones((2, 3)), teacher=np.ones((2, 4)), common=np.ones(2, dtype=bool))
    with pytest.raises(jaxtyping.TypeCheckError, match="positions"):
        dataclasses.replace(axis, teacher=np.ones((3, 3)))
