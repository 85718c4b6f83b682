"""View sets have one name each, windows are drawn all over the margin, and a teacher's tokens follow from its rule."""

from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.errors import ContractError
from storage_schemas.geometry import CanvasGeometry
from storage_schemas.teacher import TeacherSpec
from storage_schemas.views import Partition, Split, ViewSet, draw_offset, teacher_tokens

GEOMETRY = CanvasGeometry(resolution=256, patch=16, margin=2)
ANY = TeacherSpec(
    name="dinov3",
    model="tiny",
    dim=8,
    summary_dim=8,
    patch=16,
    size_rule="any",
    native=256,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
FIXED = replace(ANY, name="siglip2", size_rule="fixed", native=384)
CANVAS = replace(ANY, name="sam3", size_rule="canvas", patch=14, native=1008)


@given(st.sampled_from(["low", "high"]), st.integers(1, 999_999))
def test_a_view_set_is_read_back_from_its_name(partition: Partition, resolution: int) -> None:
    view_set = ViewSet(partition=partition, resolution=resolution)
    assert view_set.name == f"{partition}-{resolution}"
    assert ViewSet.parse(view_set.name) == view_set


@pytest.mark.parametrize(
    "name",
    [
        "",
        "low",
        "low-",
        "low-0",
        "low-0256",
        "low-+256",
        "low- 256",
        "low-256 ",
        "low-256\n",
        "low-2.5",
        "low--256",
        "Low-256",
        "mid-256",
        "low_256",
        "low-٢٥٦",
        "low-²",
        "low-256/detail",
        "low-" + "9" * 5000,
        "stats",
        "phi_s",
    ],
)
def test_anything_else_is_no_name_of_a_view_set(name: str) -> None:
    with pytest.raises(ContractError) as refusal:
        ViewSet.parse(name)
    assert str(refusal.value) == (
        f"view set breaks the storage contract:\n  {name}: is no name such as low-256 or high-1152"
    )


def test_the_words_that_a_cache_keeps_are_those_they_always_were() -> None:
    assert get_args(Partition) == ("low", "high")
    assert get_args(Split) == ("train", "heldout")


def test_view_sets_sort_by_partition_then_by_resolution() -> None:
    names = ["low-1024", "high-512", "low-256", "high-1152"]
    assert [one.name for one in sorted(map(ViewSet.parse, names))] == ["high-512", "high-1152", "low-256", "low-1024"]


def test_an_offset_is_drawn_uniformly_over_the_margin_each_axis_on_its_own() -> None:
    drawn = [draw_offset(GEOMETRY, (3, f"{number}.jpg", 0, "offset", "t")) for number in range(10_000)]
    counts = Counter((offset.row, offset.col) for offset in drawn)
    assert set(counts) == {(row, col) for row in range(3) for col in range(3)}
    assert all(abs(count - 10_000 / 9) < 4 * (10_000 / 9) ** 0.5 for count in counts.values())


def test_the_offsets_of_a_key_are_those_they_always_were() -> None:
    drawn = [draw_offset(GEOMETRY, (7, number)) for number in range(8)]
    assert [(offset.row, offset.col) for offset in drawn] == [
        (0, 1),
        (1, 0),
        (0, 1),
        (1, 2),
        (2, 0),
        (1, 2),
        (1, 0),
        (2, 2),
    ]


def test_without_a_margin_the_window_starts_where_the_canvas_does() -> None:
    tight = replace(GEOMETRY, margin=0)
    assert {(one.row, one.col) for one in (draw_offset(tight, (number,)) for number in range(50))} == {(0, 0)}


@pytest.mark.parametrize(
    ("spec", "resolution", "tokens"),
    [
        (ANY, 128, 8),
        (ANY, 432, 27),
        (ANY, 1152, 72),
        (replace(ANY, patch=8, native=256), 128, 16),
        (FIXED, 128, 24),
        (FIXED, 1152, 24),
        (CANVAS, 128, 8),
        (CANVAS, 432, 27),
        (CANVAS, 1152, 72),
    ],
)
def test_a_teacher_sees_a_window_in_the_tokens_of_its_rule(spec: TeacherSpec, resolution: int, tokens: int) -> None:
    assert teacher_tokens(spec, CanvasGeometry(resolution=resolution, patch=16, margin=2)) == tokens


def test_a_window_that_is_no_whole_number_of_a_teachers_tokens_is_refused() -> None:
    with pytest.raises(ContractError) as refusal:
        teacher_tokens(replace(ANY, patch=14, native=224), GEOMETRY)
    assert str(refusal.value) == (
        "teacher dinov3 breaks the storage contract:\n"
        "  resolution: 256 px is not a multiple of the patch of dinov3, 14 px"
    )


def test_a_window_larger_than_a_teachers_canvas_is_refused() -> None:
    with pytest.raises(ContractError, match="window: 80 tokens do not fit a canvas of 72"):
        teacher_tokens(CANVAS, CanvasGeometry(resolution=1280, patch=16, margin=0))
