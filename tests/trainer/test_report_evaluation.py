"""Scores of `evaluate` on the report: a table, and curves over resolutions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage_schemas.format.errors import ContractError, SettingError
from trainer.downstream.results import Score
from trainer.report.curves import run_plots
from trainer.report.evaluation_scores import Evaluated, EvaluationScores, evaluated_teachers, evaluation_scores
from trainer.report.options import report_options
from trainer.report.results import RunResult
from trainer.run_folder import RunFolder


def score(task: str, view_set: str, **changes: Any) -> Score:
    values: dict[str, Any] = {
        "output": "backbone",
        "cache": "a cache",
        "views": f"views of {view_set}",
        "features": "f",
        "settings": {"k": 20},
        "scores": {"accuracy": 0.5},
        "lower_is_better": [],
        "counts": {},
        "seconds": 1.0,
        "versions": {},
    }
    return Score(task=task, view_set=view_set, **{**values, **changes})


def knn(*values: float, **changes: Any) -> list[Score]:
    """Accuracies at 32, 48 and 64 px, with a second score that the report leaves out."""
    return [
        score("knn", f"low-{size}", scores={"accuracy": value, "other": 0.1}, **changes)
        for size, value in zip((32, 48, 64), values, strict=False)
    ]


def depth(*values: float, **changes: Any) -> list[Score]:
    return [
        score("depth", f"low-{size}", scores={"rmse": value, "delta_1": 0.1}, lower_is_better=["rmse"], **changes)
        for size, value in zip((32, 48, 64), values, strict=False)
    ]


def run(name: str, *scores: Score) -> Evaluated:
    return Evaluated(name=name, trained=True, scores=scores)


def teacher(name: str, *scores: Score) -> Evaluated:
    return Evaluated(name=name, trained=False, scores=[replace(score, output=name) for score in scores])


def measured(runs: list[Evaluated], teachers: list[Evaluated]) -> EvaluationScores:
    found = evaluation_scores(runs, teachers)
    assert found is not None
    return found


def texts(found: EvaluationScores) -> dict[str, list[list[str]]]:
    """The table by row, each task a list, with a star where a value is the best."""
    return {
        f"{row.name}/{row.output}": [["*" * cell.best + cell.text for cell in cells] for cells in row.cells]
        for row in found.rows
    }


@pytest.fixture
def found() -> EvaluationScores:
    runs = [run("a", *knn(0.5, 0.75), *depth(2.0, 1.0)), run("unscored"), run("b", *knn(0.5, 0.6, 0.7))]
    return measured(runs, [teacher("t", *depth(1.5, 1.25), *knn(0.4))])


def test_the_table_has_the_main_score_of_each_task_by_view_set_and_marks_the_best(found: EvaluationScores) -> None:
    assert [(task.title, task.score, task.sets) for task in found.tasks] == [
        ("depth", "rmse, lower is better", ("low-32", "low-48")),
        ("knn", "accuracy", ("low-32", "low-48", "low-64")),
    ]
    assert texts(found) == {
        "a/backbone": [["2.000", "*1.000"], ["*0.500", "*0.750", "—"]],
        "b/backbone": [["—", "—"], ["*0.500", "0.600", "0.700"]],
        "t/t": [["*1.500", "1.250"], ["0.400", "—", "—"]],
    }


def test_the_curves_go_over_resolutions_in_the_colours_of_the_table(found: EvaluationScores) -> None:
    assert [(plot.title, plot.unit, plot.over) for plot in found.plots] == [
        ("depth", "rmse, lower is better", "px"),
        ("knn", "accuracy", "px"),
    ]
    assert [(line.label, line.colour, line.dashed, list(line.points)) for line in found.plots[1].lines] == [
        ("a", 0, False, [(32, 0.5), (48, 0.75)]),
        ("b", 2, False, [(32, 0.5), (48, 0.6), (64, 0.7)]),
        ("t", 3, True, [(32, 0.4)]),
    ]
    assert [row.number for row in found.rows] == [0, 2, 3]
    assert (found.plots[1].x.low, found.plots[1].x.high) == (32, 64)


def test_scores_with_other_settings_have_columns_and_curves_of_their_own() -> None:
    runs = [run("a", *knn(0.5, 0.6), *knn(0.4, 0.3, settings={"k": 5})), run("b", *knn(0.45, 0.65))]
    found = measured(runs, [])
    assert [task.title for task in found.tasks] == [plot.title for plot in found.plots] == ["knn k=20", "knn k=5"]
    assert texts(found) == {
        "a/backbone": [["*0.500", "0.600"], ["0.400", "0.300"]],
        "b/backbone": [["0.450", "*0.650"], ["—", "—"]],
    }


def test_scores_on_other_views_are_not_compared() -> None:
    other = [replace(score, views=f"12345678 {score.view_set}", cache="another") for score in knn(0.9, 0.95)]
    found = measured([run("a", *knn(0.5, 0.6)), run("b", *other)], [])
    assert sorted(found.tasks[0].sets) == ["low-32 12345678", "low-32 views of", "low-48 12345678", "low-48 views of"]
    assert not any("*" in text for row in texts(found).values() for text in row[0])
    assert {plot.title: [line.label for line in plot.lines] for plot in found.plots} == {
        "knn, a cache": ["a"],
        "knn, another": ["b"],
    }


def test_a_cache_that_was_moved_is_one_cache_and_of_views_that_were_added_to_the_shared_ones_are_drawn() -> None:
    moved = [replace(score, cache="its new place") for score in knn(0.7, 0.8, 0.9)]
    grown = replace(moved[0], views="more views", scores={"accuracy": 0.1})
    [plot] = measured([run("a", *knn(0.5, 0.6)), run("b", *moved, grown)], []).plots
    assert {line.label: list(line.points) for line in plot.lines} == {
        "a": [(32, 0.5), (48, 0.6)],
        "b": [(32, 0.7), (48, 0.8), (64, 0.9)],
    }


def test_outputs_of_a_student_are_rows_and_its_backbone_comes_first() -> None:
    heads = [replace(score, output="any") for score in knn(0.9, 0.8)]
    found = measured([run("a", *heads, *knn(0.5, 0.6)), run("any", *knn(0.4, 0.3))], [])
    assert [(row.name, row.output, row.number) for row in found.rows] == [
        ("a", "backbone", 0),
        ("a", "any", 2),
        ("any", "backbone", 1),
    ]
    assert [line.label for line in found.plots[0].lines] == ["a", "a, any", "any"]


def test_one_resolution_has_no_curve_and_nothing_measured_no_table() -> None:
    assert measured([run("a", *knn(0.5))], []).plots == ()
    assert evaluation_scores([run("a")], []) is None


def write(folder: Path, *scores: Score, version: int = 1) -> None:
    folder.mkdir(parents=True)
    listed = [{name: getattr(score, name) for name in Score.__slots__} for score in scores]
    (folder / "evaluation.json").write_text(json.dumps({"version": version, "subject": {}, "scores": listed}))


def test_teachers_are_those_of_the_folder_that_are_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("t2", "t1", "a run"):
        write(tmp_path / name, *knn(0.5))
    (tmp_path / "cache").mkdir()
    teachers = evaluated_teachers(tmp_path, [tmp_path / "x" / ".." / "a run"])
    assert [(teacher.name, teacher.trained, list(teacher.scores)) for teacher in teachers] == [
        ("t1", False, knn(0.5)),
        ("t2", False, knn(0.5)),
    ]
    monkeypatch.chdir(tmp_path / "t2")
    for folder in (tmp_path / "t2", Path()):
        assert [teacher.name for teacher in evaluated_teachers(folder, [])] == ["t2"]


def test_a_folder_without_scores_is_refused_and_so_are_scores_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as refused:
        evaluated_teachers(tmp_path, [])
    assert str(refused.value) == (
        f"evaluations cannot be used:\n  {tmp_path}: holds no folder with evaluation.json "
        "(`make evaluate TEACHER=…` makes one for a teacher)"
    )
    write(tmp_path / "t", version=9)
    with pytest.raises(ContractError, match="has version 9"):
        evaluated_teachers(tmp_path, [])


def test_the_folder_of_evaluate_is_taken_where_it_holds_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "evaluation" / "cache").mkdir(parents=True)
    assert report_options(["--cache", "c"]).evaluations is None
    write(tmp_path / "out" / "evaluation" / "t", *knn(0.5))
    assert report_options(["--cache", "c"]).evaluations == Path("out", "evaluation")
    assert report_options(["--cache", "c", "--evaluations", "mine"]).evaluations == Path("mine")


def test_accuracies_during_training_are_drawn_by_step_with_a_line_for_each_view_set() -> None:
    tasks = [{"step": step, "scores": {"knn/low-32": step / 10, "knn/low-48": 0.5}} for step in (0, 2, 4)]
    tasks[2]["scores"] = {"knn/low-32": 0.4, "linear/low-32": 0.9}
    result = RunResult(
        name="a",
        run=RunFolder(path=Path("a")),
        recipe={},
        learnt_from={"teachers": {}},
        evaluations=(),
        history=(),
        tasks=tasks,
        speed=None,
        parameters={},
        sessions=(),
    )
    plots = {plot.title: plot for plot in run_plots(result, {})}
    assert {title: {line.label: list(line.points) for line in plot.lines} for title, plot in plots.items()} == {
        "knn during training": {"low-32": [(0, 0.0), (2, 0.2), (4, 0.4)], "low-48": [(0, 0.5), (2, 0.5)]},
        "linear during training": {"low-32": [(4, 0.9)]},
    }
