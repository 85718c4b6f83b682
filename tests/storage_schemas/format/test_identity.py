"""Two runs are the same thing exactly when their identities are, and a refusal names each value that differs."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError, IdentityError
from storage_schemas.format.identity import differences, digest, require_same

IDENTITY: dict[str, Any] = {
    "recipe": "demo",
    "seed": 7,
    "low": {"2": 1.0, "10": 0.5},
    "views": {"area": [0.25, 1.0], "flip": None, "é": True},
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
IDENTITIES = st.dictionaries(st.text(max_size=2), VALUES, max_size=4)


def test_the_digest_is_the_one_it_always_was() -> None:
    assert digest(IDENTITY) == "978b7c5bb8e29b61405282c200674c4cb04bbba80cab0dbd792be30d25d69cdc"
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@given(IDENTITIES)
def test_the_order_of_names_changes_nothing(identity: dict[str, Any]) -> None:
    turned = dict(reversed(identity.items()))
    assert (digest(turned), differences(identity, turned)) == (digest(identity), [])


@pytest.mark.parametrize(
    "identity", [{"low": {2: 1.0, 10: 0.5, 100: 0.1}}, {"area": (1, 2)}, {"a": [{"b": 1, "a": 2}]}]
)
def test_what_was_stored_and_read_again_is_the_same(identity: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(identity, sort_keys=True))
    assert (digest(stored), differences(stored, identity)) == (digest(identity), [])


@given(IDENTITIES, IDENTITIES)
def test_identities_have_one_digest_exactly_when_nothing_differs(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (digest(first) == digest(second)) == (differences(first, second) == [])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a.b": 1}, {"a": {"b": 1}}),
        ({"a": {}}, {}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {}),
        ({"a": "1"}, {"a": 1}),
        ({"a": ["bc"]}, {"a": ["b", "c"]}),
    ],
)
def test_what_only_looks_alike_differs(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert digest(first) != digest(second)
    assert differences(first, second)


def test_every_value_that_differs_is_named_with_both_values() -> None:
    current = deepcopy(IDENTITY)
    current["seed"] = 8
    current["views"]["area"][0] = 0.5
    current["views"]["flip"] = {"share": 0.5}
    del current["low"]["10"]
    with pytest.raises(IdentityError) as refusal:
        require_same("recipe demo", IDENTITY, current, "choose another folder")
    assert str(refusal.value).split("\n  ") == [
        "recipe demo does not match what is already there:",
        "low.10: the cache has 0.5, this run has nothing",
        "seed: the cache has 7, this run has 8",
        "views.area: the cache has [0.25, 1.0], this run has [0.5, 1.0]",
        "views.flip: the cache has null, this run has nothing",
        "views.flip.share: the cache has nothing, this run has 0.5",
        "what to do: choose another folder",
    ]


def test_an_empty_identity_differs_in_what_the_other_has_and_in_nothing_else() -> None:
    assert list(map(str, differences({}, {"name": "é"}))) == ['name: the cache has nothing, this run has "é"']


def test_the_holder_of_the_other_value_is_named() -> None:
    assert list(map(str, differences({"a": "x"}, {"a": "y"}, holder="the run there"))) == [
        'a: the run there has "x", this run has "y"'
    ]


def test_the_same_identity_is_let_through() -> None:
    require_same("recipe demo", IDENTITY, deepcopy(IDENTITY), "nothing")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_json_cannot_say_has_no_identity(value: Any) -> None:
    for use in (digest, lambda identity: differences({}, identity)):
        with pytest.raises(ContractError, match=r"^identity breaks the storage contract:\n  identity: "):
            use({"a": value})
