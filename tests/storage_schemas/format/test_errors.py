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
    first_few,
    first_problems,
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


def test_a_list_is_told_whole_up_to_the_most_that_are_named_and_what_follows_is_counted() -> None:
    assert first_few(range(3), most=3) == ["0", "1", "2"]
    assert first_few(iter(range(43)), most=3) == ["0", "1", "2", "and 40 more"]
    assert first_few([]) == []


def test_problems_beyond_the_most_are_counted_in_a_last_one() -> None:
    problems = [Problem(place=str(number), found="is odd") for number in range(12)]
    assert first_problems(problems[:10]) == problems[:10]
    assert first_problems(problems) == [*problems[:10], Problem(place="…", found="and 2 more")]
