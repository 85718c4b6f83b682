"""Errors in a teacher's own code: one message with the line that raised it."""

import json
import sys
from pathlib import Path

import pytest
import torch

from pipeline.config import TeacherChoice
from pipeline.features.failures import errors_of
from pipeline.features.teacher import run_teacher
from pipeline.features.tiling import fixed_features
from storage_schemas.format.errors import ContractError, Problem, SettingError
from teachers.own import own_class

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))  # for odd_teachers

FIXED = "teachers.quarter_mean:QuarterMeanFixed"


def message_of(error: Exception) -> str:
    """What is said of an error."""
    with pytest.raises(SettingError) as caught, errors_of("teacher mine"):
        raise error
    return str(caught.value)


def test_an_error_is_named_with_its_line_and_stays_one_line() -> None:
    said = message_of(KeyError("a\nb"))
    assert said.startswith("teacher mine cannot be used:\n  ")
    assert f"{Path(__file__).name}:" in said
    assert said.endswith(", in message_of: KeyError: 'a\\nb' (mend this code; what is committed is kept)")
    assert message_of(ValueError("a\n  b")).count("\n") == 1
    assert "in message_of: ValueError (mend" in message_of(ValueError())


def test_the_users_line_is_named_where_a_library_raised_the_error() -> None:
    with pytest.raises(SettingError) as caught, errors_of("teacher mine"):
        json.loads("{")
    assert f"{Path(__file__).name}:" in str(caught.value)
    assert "in test_the_users_line_is_named_where_a_library_raised_the_error: JSONDecodeError" in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_a_lack_of_memory_is_named_as_such(error: Exception) -> None:
    assert "(lower --choice.batch, or use a device with more memory; what is" in message_of(error)


def test_a_refusal_of_ours_is_not_changed() -> None:
    refusal = ContractError("output", [Problem(place="shape", found="is wrong")])
    with pytest.raises(ContractError) as caught, errors_of("teacher mine"):
        raise refusal
    assert caught.value is refusal


def test_a_class_that_fails_when_it_is_built_or_imported_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "odd_teachers:FailingToStart"
    with pytest.raises(SettingError, match=r"__init__: FileNotFoundError: .*no weights here"):
        run_teacher(TeacherChoice(name="failing-to-start", source=source, weights="own"), "cpu")
    (tmp_path / "mine_that_fails.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingError, match="source: ZeroDivisionError: division by zero"):
        own_class("mine_that_fails:Mine")


def test_an_error_in_an_upsampler_is_one_message() -> None:
    choice = TeacherChoice(
        name="t", source=FIXED, weights="own", tiles=2, upsampler="odd_teachers:FailingUpsampler", precision="fp32"
    )
    with pytest.raises(SettingError) as caught:
        fixed_features(run_teacher(choice, "cpu"), torch.zeros(1, 3, 384, 384), 2)
    assert str(caught.value).startswith("upsampler odd_teachers:FailingUpsampler cannot be used:\n")
    assert "in upsample: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (lower" in str(caught.value)
