"""`runs` lists the runs of a folder, and the report compares them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError
from storage_schemas.objects.file_lock import locked
from trainer.__main__ import main
from trainer.data.source import open_source
from trainer.report.comparison import compare
from trainer.report.numbers_as_text import duration_text
from trainer.report.plots import linear_axis
from trainer.report.results import RunResult, find_runs, read_runs
from trainer.report.run_list import best_first, run_facts
from trainer.run.sessions import read_sessions, recorded_session
from trainer.run.train import train
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings


@pytest.fixture(scope="module")
def runs(full_cache: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., TrainRecipe]) -> Path:
    """Three runs: one whose weights hardly move, one that learns, and one that was cut off."""
    folder, uri = tmp_path_factory.mktemp("runs"), full_cache.store.uri
    running = {"evaluate_every": 2, "loggers": ("csv",)}
    slow = OptimiserSettings(lr=1e-9, warmup=2)
    train(recipe_of(steps=4, running=running, optimiser=slow), uri, folder / "slow", lambda _: None)
    train(recipe_of(steps=4, running=running), uri, folder / "fast", lambda _: None)
    shutil.copytree(folder / "fast", folder / "cut off")
    for name in ("student.json", "student.safetensors"):
        (folder / "cut off" / name).unlink()
    return folder


@pytest.fixture
def results(runs: Path, full_cache: Cache) -> list[RunResult]:
    return find_runs(runs, open_source(full_cache))


def test_the_list_is_what_the_files_say_best_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--runs", str(runs), "--json"]) == 0
    listed = {run["name"]: run for run in json.loads(capsys.readouterr().out)}
    assert list(listed)[-1] == "slow"
    assert {name: run["state"] for name, run in listed.items()} == {
        "fast": "finished",
        "cut off": "stopped",
        "slow": "finished",
    }
    for name, run in listed.items():
        evaluations = json.loads((runs / name / "metrics.json").read_text())["evaluations"]
        means = {}
        for found in evaluations:
            product = 1.0
            for teacher in found["teachers"].values():
                product *= teacher["fidelity"]
            means[found["step"]] = product ** (1 / len(found["teachers"]))
        assert run["fidelity"] == pytest.approx(max(means.values()))
        assert means[run["best_step"]] == pytest.approx(run["fidelity"])
        assert (run["step"], run["steps"], run["batches"]) == (4, 4, [4, 2])
        assert run["bytes"] == sum(path.stat().st_size for path in (runs / name).rglob("*") if path.is_file())
        assert run["parameters"] > 1000
        assert run["seconds"] > 0
        assert "torch " in run["versions"]
    assert listed["slow"]["lr"] == 1e-9


def test_the_list_as_text_has_a_line_for_each_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--runs", str(runs)]) == 0
    head, *lines, empty, note = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "run"
    assert [line.split("  ")[0].strip() for line in lines] == ["cut off", "fast", "slow"]
    assert (empty, note.startswith("best F: ")) == ("", True)


def test_the_list_shows_what_was_evaluated(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = {"output": "backbone", "cache": "c", "views": "v", "features": "f", "settings": {}, "seconds": 1.0}
    score = {"task": "knn", "view_set": "low-32", "scores": {"accuracy": 0.75}, "lower_is_better": [], "counts": {}}
    for name, value in (("fast", 0.75), ("slow", 0.5)):
        shutil.copytree(runs / name, tmp_path / name)
        found = {**about, **score, "scores": {"accuracy": value}, "versions": {}}
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"version": 1, "subject": {}, "scores": [found]}))
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fast", "knn", "backbone", "accuracy", "0.7500*"] in lines
    assert ["slow", "knn", "backbone", "accuracy", "0.5000"] in lines
    assert main(["runs", "--runs", str(tmp_path), "--json"]) == 0
    listed = {run["name"]: run["evaluation"] for run in json.loads(capsys.readouterr().out)}
    assert listed["slow"][0]["scores"] == {"accuracy": 0.5}


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--runs", str(tmp_path)]) == 2
    assert "holds no run (run `make train`, or set RUNS)" in capsys.readouterr().err


def test_a_run_is_training_while_its_lock_is_held_and_not_where_a_killed_process_left_the_file(
    results: list[RunResult], tmp_path: Path
) -> None:
    shutil.copytree(results[0].run.path, tmp_path / "run")
    [result] = read_runs(tmp_path)
    with locked(result.run.lock, "train"):
        assert run_facts(result).state == "training"
    result.run.lock.write_text("train: process 1 of a machine that lost its power\n")
    assert run_facts(result).state == "stopped"


def test_settings_that_differ_are_told_by_their_full_names(results: list[RunResult]) -> None:
    [_, fast, _] = results
    changed = {**fast.recipe, "name": "demo", "seed": 9}
    facts = run_facts(replace(fast, recipe=changed))
    assert facts.changed["seed"] == 9
    assert facts.changed["heads.width"] == fast.recipe["heads"]["width"]
    assert {"name", "student", "steps"}.isdisjoint(facts.changed)


def test_runs_without_a_score_come_last(results: list[RunResult]) -> None:
    facts = [run_facts(result) for result in results]
    unscored = replace(facts[0], name="a", fidelity=None)
    assert [run.name for run in best_first([unscored, *facts])] == ["cut off", "fast", "slow", "a"]


def test_the_best_of_each_column_is_marked_and_ties_of_all_are_not(results: list[RunResult]) -> None:
    comparison = compare(results, ["any", "canvas", "fixed"])
    titles = [column.title for column in comparison.columns]
    columns = {title: [row.cells[place] for row in comparison.rows] for place, title in enumerate(titles)}
    names = [row.facts.name for row in comparison.rows]
    assert names == ["cut off", "fast", "slow"]
    assert [cell.best for cell in columns["F, mean"]] == [True, True, False]
    assert not any(cell.best for cell in columns["Parameters"])
    scales = [result.evaluations[-1]["student"]["scale"] for result in results]
    assert [cell.best for cell in columns["Scale variance"]] == [scale == min(scales) for scale in scales]


def test_all_runs_share_one_plot_for_each_measure(results: list[RunResult]) -> None:
    plots = {plot.title: plot for plot in compare(results, ["any", "canvas", "fixed"]).plots}
    assert {"Loss", "Fidelity to any", "Fidelity to any by resolution", "Scale variance", "Speed"} <= set(plots)
    for plot in plots.values():
        assert [line.label for line in plot.lines] == ["cut off", "fast", "slow"]
        assert [line.colour for line in plot.lines] == [0, 1, 2]
    [_, fast, _] = results
    expected = [(found["step"], found["teachers"]["any"]["fidelity"]) for found in fast.evaluations]
    assert list(plots["Fidelity to any"].lines[1].points) == expected


def test_accuracies_during_training_share_a_plot_for_each_task_and_view_set(results: list[RunResult]) -> None:
    tasks = [{"step": step, "scores": {"knn/low-32": step / 8, "linear/low-32": 0.5}} for step in (0, 4)]
    plots = compare([replace(results[0], tasks=tasks), results[1], replace(results[2], tasks=tasks[1:])], []).plots
    shown = {plot.title: plot for plot in plots if "training" in plot.title}
    assert list(shown) == ["knn on low-32 during training", "linear on low-32 during training"]
    lines = shown["knn on low-32 during training"].lines
    assert [(line.label, line.colour, list(line.points)) for line in lines] == [
        ("cut off", 0, [(0, 0.0), (4, 0.5)]),
        ("slow", 2, [(4, 0.5)]),
    ]


def test_a_ninth_run_is_dashed(results: list[RunResult]) -> None:
    many = [replace(results[0], name=str(number)) for number in range(12)]
    lines = compare(many, ["any"]).plots[0].lines
    assert [(line.colour, line.dashed) for line in lines] == [(number % 8, number >= 8) for number in range(12)]


def test_a_single_run_has_a_table_and_no_plots(results: list[RunResult]) -> None:
    comparison = compare(results[:1], ["any"])
    assert len(comparison.rows) == 1
    assert comparison.plots == ()


def test_a_run_of_an_earlier_version_has_no_sessions_and_no_parameters(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "fast", tmp_path / "old")
    (tmp_path / "old" / "sessions.json").unlink()
    metrics = json.loads((tmp_path / "old" / "metrics.json").read_text())
    del metrics["parameters"]
    (tmp_path / "old" / "metrics.json").write_text(json.dumps(metrics))
    [result] = read_runs(tmp_path)
    facts = run_facts(result)
    assert (facts.parameters, facts.seconds, facts.begun, facts.versions) == (None, None, None, "")
    assert compare([result], ["any"]).rows[0].facts.state == "finished"


def test_a_session_that_is_cut_off_has_no_end_and_the_next_is_added(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    with recorded_session(run, 0, "cpu", lambda: 3):
        [open_session] = read_sessions(run)
        assert (open_session["to_step"], open_session["seconds"]) == (None, None)
    with pytest.raises(AbstractStillhouseError), recorded_session(run, 3, "cpu", lambda: 5):
        raise AbstractStillhouseError("training", [])
    sessions = read_sessions(run)
    assert [(session["after_step"], session["to_step"]) for session in sessions] == [(0, 3), (3, 5)]
    assert all(session["seconds"] >= 0 for session in sessions)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (41.4, "41 s"), (60, "1 min"), (7500, "2 h 5 min"), (90061, "1 d 1 h"), (86405, "1 d")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("values", "ends", "labels"),
    [
        ([0.1, 1.0000000001], (0.0, 1.0), ("0", "0.2", "0.4", "0.6", "0.8", "1")),
        ([0.15001, 0.15003], (0.15001, 0.15003), ("0.15001", "0.150015", "0.15002", "0.150025", "0.15003")),
    ],
)
def test_an_axis_ends_where_the_values_do_and_its_labels_differ(
    values: list[float], ends: tuple[float, float], labels: tuple[str, ...]
) -> None:
    axis = linear_axis(values)
    assert (axis.low, axis.high) == pytest.approx(ends)
    assert axis.labels == labels
