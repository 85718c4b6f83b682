"""View sets have one name each, windows are drawn all over the margin, and a teacher's tokens follow from its rule."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.plain_text import one_line
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import (
    UNIFORM,
    Partition,
    ShiftDistribution,
    Shifts,
    Split,
    ViewSet,
    detail_side,
    draw_offset,
    teacher_tokens,
)

LOW = ViewSet(partition="low", resolution=256)
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
        f"view set breaks the storage contract:\n  {one_line(name)}: is not a name such as low-256 or high-1152"
    )


def test_the_words_that_a_cache_keeps_are_those_they_always_were() -> None:
    assert get_args(Partition) == ("low", "high")
    assert get_args(Split) == ("train", "heldout")
    assert get_args(ShiftDistribution) == ("uniform", "rounded-normal")


def test_view_sets_sort_by_partition_then_by_resolution() -> None:
    names = ["low-1024", "high-512", "low-256", "high-1152"]
    assert [view_set.name for view_set in sorted(map(ViewSet.parse, names))] == [
        "high-512",
        "high-1152",
        "low-256",
        "low-1024",
    ]


def test_an_offset_is_drawn_uniformly_over_the_margin_each_axis_on_its_own() -> None:
    drawn = [draw_offset(GEOMETRY, UNIFORM, (3, f"{number}.jpg", 0, "offset", "t")) for number in range(10_000)]
    counts = Counter((offset.row, offset.col) for offset in drawn)
    assert set(counts) == {(row, col) for row in range(3) for col in range(3)}
    assert all(abs(count - 10_000 / 9) < 4 * (10_000 / 9) ** 0.5 for count in counts.values())


def test_the_offsets_of_a_key_are_those_they_always_were() -> None:
    drawn = [draw_offset(GEOMETRY, UNIFORM, (7, number)) for number in range(8)]
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


@pytest.mark.parametrize("shifts", [UNIFORM, Shifts(distribution="rounded-normal")])
def test_without_a_margin_the_window_starts_where_the_canvas_does(shifts: Shifts) -> None:
    tight = replace(GEOMETRY, margin=0)
    drawn = [draw_offset(tight, shifts, (number,)) for number in range(50)]
    assert {(offset.row, offset.col) for offset in drawn} == {(0, 0)}


@pytest.mark.parametrize("sd", [0.3, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("margin", [1, 2, 3, 6])
def test_a_rounded_normal_offset_is_the_middle_moved_by_a_normal_draw_rounded_and_clipped(
    margin: int, sd: float
) -> None:
    geometry, shifts = replace(GEOMETRY, margin=margin), Shifts(distribution="rounded-normal", sd=sd)
    drawn = [draw_offset(geometry, shifts, (5, f"{number}.jpg", 0, "offset", "t")) for number in range(5_000)]
    normal = np.random.default_rng(0).normal(margin / 2, sd, 1_000_000)
    expected = np.bincount(np.clip(np.rint(normal), 0, margin).astype(int), minlength=margin + 1) / 200
    for axis in ("row", "col"):
        counts = np.bincount([getattr(offset, axis) for offset in drawn], minlength=margin + 1)
        assert len(counts) == margin + 1
        assert (abs(counts - expected) < 4 * np.sqrt(expected) + 4).all()


def test_the_public_width_leaves_two_thirds_of_an_axis_in_the_middle_and_three_in_a_thousand_beyond_one() -> None:
    wide, shifts = replace(GEOMETRY, margin=20), Shifts(distribution="rounded-normal", sd=0.5)
    moved = [abs(draw_offset(wide, shifts, (number,)).row - 10) for number in range(20_000)]
    shares = {shift: moved.count(shift) / len(moved) for shift in set(moved)}
    assert 0.67 < shares[0] < 0.70
    assert sum(share for shift, share in shares.items() if shift >= 2) < 0.003


def test_the_axes_of_a_rounded_normal_offset_are_drawn_each_on_its_own() -> None:
    shifts = Shifts(distribution="rounded-normal", sd=0.6)
    drawn = [draw_offset(GEOMETRY, shifts, (number,)) for number in range(10_000)]
    counts = Counter((offset.row, offset.col) for offset in drawn)
    rows, cols = (Counter(getattr(offset, axis) for offset in drawn) for axis in ("row", "col"))
    for (row, col), count in counts.items():
        alone = rows[row] * cols[col] / 10_000
        assert abs(count - alone) < 4 * alone**0.5
    assert len(counts) == 9


def test_the_rounded_normal_offsets_of_a_key_are_those_they_always_were() -> None:
    shifts = Shifts(distribution="rounded-normal", sd=0.5)
    drawn = [draw_offset(GEOMETRY, shifts, (7, number)) for number in range(8)]
    assert [(offset.row, offset.col) for offset in drawn] == [
        (0, 1),
        (1, 1),
        (0, 1),
        (1, 2),
        (2, 1),
        (1, 1),
        (1, 0),
        (1, 2),
    ]


@pytest.mark.parametrize("sd", [0.0, -0.5, float("nan"), float("inf")])
def test_a_width_of_nothing_or_of_everything_is_refused(sd: float) -> None:
    with pytest.raises(ContractError) as refusal:
        Shifts(distribution="rounded-normal", sd=sd)
    assert str(refusal.value) == f"shifts breaks the storage contract:\n  sd: {sd} patches is not a positive width"


def test_a_distribution_of_no_known_name_is_refused() -> None:
    # in a process of its own, where no types are checked
    code = "from storage_schemas.format.views import Shifts; Shifts(distribution='gauss')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.stderr.endswith(
        "ContractError: shifts breaks the storage contract:\n"
        "  distribution: 'gauss' is not known (uniform or rounded-normal)\n"
    )


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
    geometry = CanvasGeometry(resolution=resolution, patch=16, margin=2)
    assert teacher_tokens(spec, ViewSet(partition="low", resolution=resolution), geometry) == tokens


@pytest.mark.parametrize(
    ("tiles", "upsampler", "low", "high"),
    [
        (1, None, (24, 384), (24, 384)),
        (3, "tiles", (24, 384), (72, 1152)),
        (3, "bilinear", (24, 384), (72, 384)),
        (2, "my.module:Sharp", (24, 384), (48, 768)),
    ],
)
def test_a_tiled_teacher_has_finer_tokens_and_details_in_the_high_partition_alone(
    tiles: int, upsampler: str | None, low: tuple[int, int], high: tuple[int, int]
) -> None:
    spec = replace(FIXED, tiles=tiles, upsampler=upsampler)
    for partition, expected in (("low", low), ("high", high)):
        view_set = ViewSet(partition=partition, resolution=432)
        geometry = CanvasGeometry(resolution=432, patch=16, margin=2)
        assert (teacher_tokens(spec, view_set, geometry), detail_side(spec, view_set)) == expected


def test_a_window_that_is_no_whole_number_of_a_teachers_tokens_is_refused() -> None:
    with pytest.raises(ContractError) as refusal:
        teacher_tokens(replace(ANY, patch=14, native=224), LOW, GEOMETRY)
    assert str(refusal.value) == (
        "teacher dinov3 breaks the storage contract:\n"
        "  resolution: 256 px is not a multiple of the patch of dinov3, 14 px"
    )


def test_a_window_larger_than_a_teachers_canvas_is_refused() -> None:
    with pytest.raises(ContractError, match="window: 80 tokens do not fit a canvas of 72"):
        teacher_tokens(CANVAS, LOW, CanvasGeometry(resolution=1280, patch=16, margin=0))
