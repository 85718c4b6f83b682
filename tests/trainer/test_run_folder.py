"""A run's folder: files appear whole, a resumed run continues its history, another run is refused."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from storage_schemas.format.errors import CorruptionError, IdentityError, StorageError
from trainer.evaluation.evaluate import Scores, StudentScore, TeacherScore
from trainer.recipes.demo import demo
from trainer.run.history import HistoryLogger, read_history
from trainer.run.metrics import add_scores, add_speed, has_stalled, start_metrics
from trainer.run_folder import RunFolder, read_json, require_run, write_json
from trainer.settings.student import VitSettings

IDENTITY = {"recipe": {"steps": 10, "data": {"teachers": ("a", "b")}}, "cache": {"views": "abc"}}


def test_the_same_run_may_go_on_and_an_empty_folder_takes_any(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path / "run")
    require_run(run, IDENTITY)
    write_json(run.identity, IDENTITY)
    require_run(run, IDENTITY)


def test_a_folder_of_another_run_is_refused_with_both_values_of_all_that_differs(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    write_json(run.identity, IDENTITY)
    with pytest.raises(IdentityError) as refusal:
        require_run(run, {"recipe": {"steps": 20, "data": {"teachers": ("a",)}}, "cache": {"views": "abc"}})
    assert str(refusal.value).replace(str(tmp_path), "RUN") == (
        "run RUN does not match what is already there:\n"
        '  recipe.data.teachers: the run there has ["a", "b"], this run has ["a"]\n'
        "  recipe.steps: the run there has 10, this run has 20\n"
        "  what to do: repeat the settings that this run began with, or give the new run another name: NAME=…, "
        "or --name"
    )


def test_settings_that_an_earlier_version_did_not_have_are_in_the_identity_only_where_they_change_something() -> None:
    before = demo().identity()
    assert "spare_class_tokens" not in before["vit"]
    assert replace(demo(), vit=VitSettings(spare_class_tokens=1)).identity()["vit"]["spare_class_tokens"] == 1
    assert replace(demo(), vit=VitSettings(registers=7)).identity()["vit"].keys() == before["vit"].keys()


def test_two_writes_of_a_file_at_once_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = tmp_path / "file", os.replace

    def late(source: str, target: str) -> None:
        monkeypatch.setattr(os, "replace", rename)
        write_json(path, {"step": 2})  # begun and ended while the first has all but its name
        assert read_json(path) == {"step": 2}
        rename(source, target)

    monkeypatch.setattr(os, "replace", late)
    write_json(path, {"step": 1})
    assert read_json(path) == {"step": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_file_its_name_and_a_new_folders_name_are_flushed_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "run" / "metrics.json", list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    write_json(path, {"evaluations": []})
    assert flushed == [found.stat().st_ino for found in (path, path.parent, tmp_path)]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageError) as refusal:
        write_json(tmp_path / "run" / "metrics.json", {})
    assert refusal.value.problems[0].place == str(tmp_path / "run" / "metrics.json")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"recipe": ')
    with pytest.raises(CorruptionError) as refusal:
        read_json(path)
    assert refusal.value.problems[0].place == str(path)


def test_a_history_goes_on_after_the_step_that_a_run_resumes_from(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = HistoryLogger(path, ["loss", "fidelity/a"], start=0)
    for step in range(1, 5):
        history.log_metrics({"loss": step / 8}, step)
    history.log_metrics({"fidelity/a": 1.5}, 4)
    with path.open("ab") as file:
        file.write(b"5,0.6")  # a run that was killed while it wrote
    assert [row["step"] for row in read_history(path)] == ["1", "2", "3", "4", "4"]
    HistoryLogger(path, ["loss", "fidelity/a"], start=2).log_metrics({"loss": 0.5}, 3)
    assert path.read_text() == "step,loss,fidelity/a\n1,0.125,\n2,0.25,\n3,0.5,\n"


def test_a_history_starts_anew_with_its_run(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    HistoryLogger(path, ["loss"], start=0).log_metrics({"loss": 1.0}, 1)
    HistoryLogger(path, ["loss"], start=0)
    assert path.read_text() == "step,loss\n"


def test_a_value_without_a_column_is_not_dropped_in_silence(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no column for lr"):
        HistoryLogger(tmp_path / "history.csv", ["loss"], start=0).log_metrics({"loss": 1.0, "lr": 0.1}, 1)


def test_metrics_keep_scores_by_step_and_drop_those_that_will_come_again(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    own = StudentScore(effective_rank=3.5, shares={"1": 0.5, "2": 1.0}, scale_variance=None)
    said = {"effective_rank": 3.5, "shares": {"1": 0.5, "2": 1.0}, "scale": None}
    teacher = TeacherScore(fidelity=1.5, phi_fidelity=2.0, sets={"low-32": 1.25}, angle=None)
    other = TeacherScore(fidelity=2.5, phi_fidelity=3.0, sets={"low-32": 2.5}, angle=0.5)
    start_metrics(run, {"student": "a"}, start=0)
    for step in (0, 2, 4):
        add_scores(run, step, Scores(teachers={"dinov3": teacher}, student=own))
    start_metrics(run, {"student": "a"}, start=2)
    add_speed(run, views_per_second=3.0, wait_share=0.25)
    add_scores(run, 2, Scores(teachers={"dinov3": other}, student=own))
    assert read_json(run.metrics) == {
        "student": "a",
        "evaluations": [
            {
                "step": 0,
                "teachers": {"dinov3": {"fidelity": 1.5, "phi_fidelity": 2.0, "sets": {"low-32": 1.25}, "angle": None}},
                "student": said,
            },
            {
                "step": 2,
                "teachers": {"dinov3": {"fidelity": 2.5, "phi_fidelity": 3.0, "sets": {"low-32": 2.5}, "angle": 0.5}},
                "student": said,
            },
        ],
        "speed": {"views_per_second": 3.0, "wait_share": 0.25},
    }


def test_metrics_of_a_run_that_starts_anew_are_empty(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    start_metrics(run, {}, start=0)
    own = StudentScore(effective_rank=1.0, shares={"1": 1.0}, scale_variance=0.5)
    add_scores(run, 4, Scores(teachers={}, student=own))
    start_metrics(run, {}, start=0)
    assert read_json(run.metrics) == {"evaluations": []}


@pytest.mark.parametrize(
    ("fidelities", "patience", "stalled"),
    [
        ([1.0, 2.0, 1.9, 1.8], 2, True),
        ([1.0, 2.0, 1.9, 2.1], 2, False),
        ([1.0, 2.0, 2.0], 1, True),
        ([2.0, 1.0], 2, False),
        ([2.0, 1.0, 1.0], 0, False),
        ([], 1, False),
    ],
)
def test_a_run_has_stalled_when_as_many_evaluations_as_it_has_patience_for_were_no_better(
    tmp_path: Path, fidelities: list[float], patience: int, stalled: bool
) -> None:
    run = RunFolder(path=tmp_path)
    assert not has_stalled(run, patience)
    start_metrics(run, {}, start=0)
    own = StudentScore(effective_rank=1.0, shares={"1": 1.0}, scale_variance=None)
    for step, fidelity in enumerate(fidelities):
        # what one teacher gains and another loses by the same factor is no gain
        pair = {
            name: TeacherScore(fidelity=fidelity * factor, phi_fidelity=1.0, sets={}, angle=None)
            for name, factor in (("a", 1 + step), ("b", 1 / (1 + step)))
        }
        add_scores(run, step, Scores(teachers=pair, student=own))
    assert has_stalled(run, patience) == stalled
