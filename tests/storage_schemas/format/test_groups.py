"""A group says one thing of itself, sealed, or nothing; whatever else its metadata says is refused."""

import json
from typing import Any

import pytest

from storage_schemas.format.errors import CorruptionError
from storage_schemas.format.groups import group_metadata, parse_group_metadata

PLAIN = {"zarr_format": 3, "node_type": "group", "attributes": {}}


@pytest.mark.parametrize("attributes", [None, {}, {"format": 1, "sets": {"low-32": [1, 2]}}])
def test_what_a_group_says_is_read_back(attributes: dict[str, Any] | None) -> None:
    metadata = json.loads(json.dumps(group_metadata(attributes)))
    assert parse_group_metadata(metadata, "zarr.json") == attributes


def test_a_group_that_says_nothing_is_a_plain_one_of_the_specification() -> None:
    assert group_metadata() == PLAIN


SEALED = group_metadata({"a": 1})["attributes"]["stillhouse"]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {**PLAIN, "zarr_format": 2},
        {**PLAIN, "node_type": "array"},
        {**PLAIN, "more": 1},
        {**PLAIN, "attributes": {"theirs": 1}},
        {**PLAIN, "attributes": {"stillhouse": SEALED, "theirs": 1}},
        {**PLAIN, "attributes": {"stillhouse": SEALED}, "more": 1},
        {**PLAIN, "attributes": {"stillhouse": [1]}},
        {**PLAIN, "attributes": []},
    ],
)
def test_any_other_metadata_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(CorruptionError) as refusal:
        parse_group_metadata(metadata, "g/zarr.json")
    assert str(refusal.value) == "group is damaged:\n  g/zarr.json: is not the metadata of a group in a cache"


def test_values_that_do_not_have_their_seal_are_refused() -> None:
    with pytest.raises(CorruptionError, match=r"g/zarr.json: their seal does not match their values"):
        parse_group_metadata({**PLAIN, "attributes": {"stillhouse": {**SEALED, "a": 2}}}, "g/zarr.json")
