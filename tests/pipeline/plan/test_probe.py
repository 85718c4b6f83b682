"""`plan --probe` measures speeds, plans by them, and leaves nothing behind."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.config import RunConfig, ViewsConfig
from pipeline.inventory.units import canvas_unit, total_objects
from pipeline.plan.forecast import expected_views
from pipeline.plan.plan import Plan, plan_run
from pipeline.plan.probe import probe_teachers
from pipeline.plan.probe_text import processor_of
from pipeline.plan.speed import TeacherSpeed, probed_hours
from pipeline.plan.storage import put_requests, requests_of
from pipeline.plan.text import plan_lines
from pipeline.recipes import recipe_of
from pipeline.views.sampling import set_manifest
from storage_schemas.format.errors import StorageError
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.s3_upload import PART_BYTES
from storage_schemas.objects.store import Store
from teachers.cost import tflop_per_input

LOCAL = RunConfig(executor="local")
VIEWS = ViewsConfig(low=(128, 192), high=(256,), canvas_tokens=24, tokens_per_shard=1152)
GPU = "NVIDIA H200"


@pytest.fixture(scope="module")
def planned() -> Plan:
    """The demo's teachers over forty images."""
    return plan_run(replace(recipe_of("demo"), views=VIEWS), expected_views(40, VIEWS))


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_probe_measures_every_input_and_a_shard_and_leaves_no_folder(planned: Plan, tmp_path: Path) -> None:
    store = Store(uri=str(tmp_path / "not" / "yet" / "there"))
    speeds = probe_teachers(store, planned.teachers, LOCAL)
    assert list(tmp_path.iterdir()) == []
    for teacher in planned.teachers:
        speed = speeds[teacher.choice.name]
        assert speed.seconds.keys() == teacher.inputs.keys()
        assert all(0 < seconds < 60 for seconds in speed.seconds.values())
        sizes = {(unit.arrays[0], len(unit.grid.slots(0))) for unit in teacher.features["float16"]}
        whole = {views * (spec.entry_bytes + 4) + 16 * spec.rows_per_shard + 4 for spec, views in sizes}
        assert speed.written in whole, "one shard of an array, to the byte"
        assert speed.writing > 0
    assert [*speeds["dinov3"].seconds] == [256, 128, 192]
    assert len(speeds["siglip2"].seconds) == len(speeds["sam3"].seconds) == 1


def test_a_probe_beside_a_cache_changes_nothing_in_it(planned: Plan, copied: Path) -> None:
    before, folders = held(copied), sorted(copied.rglob("*"))
    probe_teachers(Store(uri=str(copied)), planned.teachers[:1], LOCAL)
    assert (held(copied), sorted(copied.rglob("*"))) == (before, folders)


def test_a_shard_that_cannot_be_written_leaves_nothing(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        probe_teachers(Store(uri=str(tmp_path / "cache")), planned.teachers[:1], LOCAL)
    assert list(tmp_path.iterdir()) == []


def test_hours_are_those_of_all_inputs_and_all_bytes_at_the_speeds_measured(planned: Plan) -> None:
    teacher = planned.teachers[0]
    seconds = {side: 0.5 + side / 1000 for side in teacher.inputs}
    slow = TeacherSpeed(device=GPU, seconds=seconds, written=10**6, writing=1e-3)
    hours = probed_hours(teacher, slow)
    assert hours.forwards == pytest.approx(sum(teacher.inputs[side] * seconds[side] for side in seconds) / 3600)
    assert hours.writing == pytest.approx(teacher.bytes("float16") / 1e9 / 3600)
    assert (hours.longest, hours.limit) == (hours.forwards, "forwards")
    hours = probed_hours(teacher, replace(slow, writing=1e6))
    assert (hours.longest, hours.limit) == (hours.writing, "writing")


def test_inputs_by_side_are_all_forwards_and_cost_what_the_plan_says(planned: Plan) -> None:
    for teacher in planned.teachers:
        assert sum(teacher.inputs.values()) == teacher.forwards + teacher.calibration
        costs = (n * tflop_per_input(teacher.choice.source, side) for side, n in teacher.inputs.items())
        assert teacher.tflop == pytest.approx(sum(costs))


def test_a_plan_is_by_what_was_measured(planned: Plan) -> None:
    speeds = {
        teacher.choice.name: TeacherSpeed(
            device=GPU, seconds=dict.fromkeys(teacher.inputs, 3600.0), written=1000, writing=1.0
        )
        for teacher in planned.teachers
    }
    assert (processor_of(speeds), processor_of({})) == ("GPU", "GPU")
    lines = plan_lines(planned, 300.0, speeds)
    inputs = {teacher.choice.name: sum(teacher.inputs.values()) for teacher in planned.teachers}
    row = next(line.split() for line in lines if line.startswith("dinov3"))
    assert float(row[-1].replace(",", "")) == pytest.approx(inputs["dinov3"], rel=0.01)
    assert any(re.match(r"sam3 +NVIDIA H200 +\d+ px +\d+ +3.6e\+06 ", line) for line in lines)
    assert any(line.split()[:1] == ["sam3"] and line.endswith("forwards") for line in lines)
    [total] = [line for line in lines if line.startswith("teachers: ")]
    assert total.endswith("GPU hours as measured, one worker")
    assert any("a stated 300 TFLOP/s" in line for line in plan_lines(planned, 300.0))


def test_the_command_line_probes_and_asks_for_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--images", "40", "--teacher", "sam3", "--probe"]
    assert main(command) == 2
    assert capsys.readouterr().err == "error: CACHE cannot be used:\n  --cache: is not given (make … CACHE=…)\n"
    assert main([*command, "--cache", str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert "CPU hours as measured, one worker" in out
    assert re.search(r"sam3 +cpu +\d+ px ", out)
    assert list(tmp_path.iterdir()) == []
    assert main([*command, "--cache", str(tmp_path / "cache"), "--weights", str(tmp_path / "no.pt")]) == 2
    assert "no.pt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "requests"), [(0, 1), (PART_BYTES - 1, 1), (PART_BYTES, 3), (PART_BYTES + 1, 4), (10 * PART_BYTES, 12)]
)
def test_an_object_is_one_put_or_begun_sent_in_parts_and_completed(size: int, requests: int) -> None:
    assert requests_of(size) == requests


def test_requests_are_counted_shard_by_shard() -> None:
    view_set = ViewSet(partition="low", resolution=256)
    unit = canvas_unit(view_set, set_manifest(view_set, [1000, 3], ViewsConfig(low=(256,), high=(), canvas_tokens=0)))
    expected = 0
    for views in (*[128] * 7, 104, 3):
        size = views * (288 * 288 * 3 + 4) + 16 * 128 + 4
        expected += 1 if size < 2**24 else 2 + (size + 2**24 - 1) // 2**24
        expected += 3  # views, rejected, and the commit record
    assert put_requests([unit]) == expected > total_objects([unit])
