"""A teacher's spec comes back from the cache as it went in, and an impossible one is refused by name."""

import json
from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from storage_schemas.format.errors import ContractError, SettingError
from storage_schemas.format.teacher import Precision, Resample, SizeRule, TeacherSpec, forward_of

SAM3 = TeacherSpec(
    name="sam3",
    model="facebook/sam3",
    dim=1024,
    summary_dim=None,
    patch=14,
    size_rule="canvas",
    native=1008,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.25, 0.125),
)


def test_the_tokens_of_a_native_input_are_its_side_over_the_patch() -> None:
    assert SAM3.native_tokens == 72


@pytest.mark.parametrize(
    "spec",
    [SAM3, replace(SAM3, name="d-block0", summary_dim=768, size_rule="any", layer=0, licence="x", random_weights=True)],
)
def test_a_spec_comes_back_from_json_equal(spec: TeacherSpec) -> None:
    assert TeacherSpec.from_attributes(json.loads(json.dumps(spec.attributes()))) == spec


def test_what_is_not_said_is_the_last_layer_of_real_weights_of_unstated_licence() -> None:
    assert (SAM3.resample, SAM3.licence, SAM3.layer, SAM3.random_weights) == ("bilinear", "unstated", None, False)


def test_the_map_of_a_block_has_its_own_name_and_no_summary_and_says_whose_it_is() -> None:
    whole = replace(SAM3, name="d", summary_dim=768, size_rule="any")
    assert whole.block(12) == replace(whole, name="d-block12", layer=12, summary_dim=None)
    assert (whole.forward_of, whole.block(12).forward_of, forward_of("d-block12")) == ("d", "d", "d")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "d-block7"}, "name: 'd-block7' does not fit layer=None"),
        ({"name": "d-block7", "layer": 8}, "name: 'd-block7' does not fit layer=8"),
        ({"name": "d-block07", "layer": 7}, "name: 'd-block07' does not fit layer=7"),
        ({"layer": 0}, "name: 'sam3' does not fit layer=0"),
    ],
)
def test_only_the_spec_of_a_block_has_the_name_of_one(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as refusal:
        replace(SAM3, **change)
    assert f"{said} (with layer=n it is <name>-block<n>, and without a layer it does not end so)" in str(refusal.value)


def test_the_words_that_a_cache_keeps_are_those_they_always_were() -> None:
    assert get_args(SizeRule) == ("any", "fixed", "canvas")
    assert get_args(Resample) == ("bilinear", "bicubic")
    assert get_args(Precision) == ("fp32", "bf16-autocast", "bf16")


def test_attributes_hold_every_field_by_its_name() -> None:
    assert set(SAM3.attributes()) == {field.name for field in fields(TeacherSpec)}


def test_attributes_with_fields_missing_or_unknown_are_refused_by_name() -> None:
    attributes = SAM3.attributes() | {"colour": "blue"}
    del attributes["dim"]
    with pytest.raises(ContractError) as refusal:
        TeacherSpec.from_attributes(attributes)
    assert str(refusal.value) == (
        "teacher spec breaks the storage contract:\n  spec: lacks dim and has unknown colour "
        "(another version of Stillhouse wrote it: use that version)"
    )


NAN, INFINITY = float("nan"), float("inf")
REFUSALS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"name": name}, f"name: {name!r} is not ASCII letters, digits, - and _ (it names a folder)")
        for name in ("", "-", "a/b", "..", "a b", "é", "٣", "a.b")
    ),
    ({"dim": 0}, "dim: 0 is less than 1"),
    ({"summary_dim": 0}, "summary_dim: 0 is less than 1"),
    ({"native": -14}, "native: -14 is less than 1"),
    ({"patch": 0}, "patch: 0 is less than 1"),
    ({"tiles": 0}, "tiles: 0 is less than 1"),
    (
        {"tiles": 3, "upsampler": "tiles"},
        "tiles: 3, but a teacher of size rule canvas sees large windows whole (leave it at 1)",
    ),
    ({"size_rule": "fixed", "tiles": 3}, "upsampler: None for 3 tiles along a side"),
    ({"upsampler": "tiles"}, "upsampler: 'tiles' for 1 tiles along a side"),
    ({"layer": -1}, "layer: -1 is less than 0"),
    ({"native": 1000}, "native: 1000 px is not a multiple of the patch, 14 px"),
    ({"mean": (0.5, NAN, 0.5)}, "mean: (0.5, nan, 0.5) is not three finite numbers"),
    *(
        ({"std": (0.5, value, 0.5)}, f"std: (0.5, {value}, 0.5) is not three finite positive numbers")
        for value in (0.0, -0.5, NAN, INFINITY)
    ),
]


@pytest.mark.parametrize(("change", "problem"), REFUSALS)
def test_an_impossible_spec_is_refused_with_its_field(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingError) as refusal:
        replace(SAM3, **change)
    assert str(refusal.value) == f"teacher {change.get('name', 'sam3')!r} cannot be used:\n  {problem}"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"size_rule": "some"}, "size_rule: 'some' is none of any, fixed, canvas"),
        ({"resample": "nearest"}, "resample: 'nearest' is none of bilinear, bicubic"),
        ({"mean": (0.5, 0.5)}, "mean: (0.5, 0.5) is not three finite numbers"),
        ({"std": (0.5,)}, "std: (0.5,) is not three finite positive numbers"),
    ],
)
def test_a_spec_of_the_wrong_type_is_refused_where_no_checker_runs(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingError) as refusal:
        replace(SAM3, **change)
    assert str(refusal.value) == f"teacher 'sam3' cannot be used:\n  {problem}"


def test_every_problem_of_a_spec_is_reported_at_once() -> None:
    with pytest.raises(SettingError) as refusal:
        replace(SAM3, name="a b", dim=0, patch=0, std=(0.0, 0.0, 0.0))
    assert [problem.place for problem in refusal.value.problems] == ["name", "dim", "patch", "std"]
