"""Every refusal says what, where and what to do, and says it in another process too."""

import pickle

import pytest

from storage_schemas.format.errors import (
    AbstractStillhouseError,
    BusyError,
    ContractError,
    CorruptionError,
    IdentityError,
    MissingError,
    Problem,
    SettingError,
    StorageError,
)

ERRORS = (ContractError, SettingError, IdentityError, BusyError, MissingError, CorruptionError, StorageError)
PROBLEMS = (
    Problem(place="shards.1.start", found="expected 4, is 8"),
    Problem(place="CACHE", found="is empty", fix="give a folder or an s3:// URI"),
)


def test_every_error_there_is_is_tried_here() -> None:
    assert set(AbstractStillhouseError.__subclasses__()) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_survives_pickling_with_its_message_and_its_problems(kind: type[AbstractStillhouseError]) -> None:
    error = kind("manifest", PROBLEMS)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.subject, copy.problems) == (str(error), "manifest", PROBLEMS)


@pytest.mark.parametrize(
    ("kind", "first_line"),
    [
        (ContractError, "manifest breaks the storage contract:"),
        (SettingError, "manifest cannot be used:"),
        (IdentityError, "manifest does not match what is already there:"),
        (BusyError, "manifest is being written:"),
        (MissingError, "manifest is missing:"),
        (StorageError, "manifest failed:"),
        (CorruptionError, "manifest is damaged:"),
    ],
)
def test_a_message_names_the_subject_then_every_problem_with_its_place_and_its_fix(
    kind: type[AbstractStillhouseError], first_line: str
) -> None:
    lines = ["  shards.1.start: expected 4, is 8", "  CACHE: is empty (give a folder or an s3:// URI)"]
    assert str(kind("manifest", list(PROBLEMS))).split("\n") == [first_line, *lines]
