"""`evaluate` measures a student or a teacher on the views of a cache, once, and what it reads is what was computed."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ANY, CANVAS, FIXED, PATCH, CacheMaker, canvas, placement
from conftest import TestTeacher as Teacher
from small_cache import SmallCache, spec_of

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError, ContractError, IdentityError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.views import ViewSet
from trainer.__main__ import main
from trainer.data.source import open_source
from trainer.downstream.chosen_views import choose_views, window_boxes
from trainer.downstream.features import EvaluationFeatures, mean_tokens
from trainer.downstream.options import EvaluateOptions, KnnSettings, LinearSettings
from trainer.downstream.results import Score, scores_in
from trainer.downstream.run import evaluate
from trainer.downstream.score_table import table_text
from trainer.downstream.student_features import StudentFeatures
from trainer.downstream.tasks import TASKS
from trainer.downstream.teacher_features import teacher_features
from trainer.export import export_student
from trainer.run.fit import build_model
from trainer.run.metrics import teacher_facts
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe

SIZES = {"low-32": 40, "low-48": 44}


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    maker = CacheMaker(tmp_path_factory.mktemp("cache"), SIZES).views()
    for teacher in (ANY, FIXED, CANVAS):
        maker.teacher(teacher).stats(teacher)
    return maker.cache


@pytest.fixture(scope="module")
def exported(
    views: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., TrainRecipe]
) -> Callable[[Path], Path]:
    """Copies the folder of a student to a place."""
    run, recipe, source = tmp_path_factory.mktemp("runs"), recipe_of(), open_source(views)
    model, shape = build_model(recipe, source)
    about = {"student": recipe.student, "image_size": None, "vit": asdict(recipe.vit), "heads": asdict(recipe.heads)}
    about |= {"recipe": recipe.identity(), "cache": source.identity, "teachers": teacher_facts(source)}
    maps = {name: teacher.phi_s for name, teacher in source.teachers.items()}
    export_student(model, shape, maps, about, RunFolder(path=run))

    def copy(place: Path) -> Path:
        place.mkdir()
        for name in ("student.json", "student.safetensors"):
            (place / name).write_bytes((run / name).read_bytes())
        return place

    return copy


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """Labels that features can tell: whether a canvas is more red than green."""
    lines = ["key,label,split"]
    for row in range(max(SIZES.values())):
        red, green, _ = canvas(ViewSet.parse("low-32"), row, 48).mean(axis=(0, 1))
        lines.append(f"image {row},{'red' if red > green else 'green'},{'test' if row % 3 == 0 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "labels.csv")


def options(views: Cache, csv: str, **changes: object) -> EvaluateOptions:
    chosen: dict[str, Any] = {
        "cache": views.store.uri,
        "labels": csv,
        "views": "all",
        "knn": KnnSettings(k=3),
        **changes,
    }
    return EvaluateOptions(**chosen)


def look(teacher: Teacher, view_set: ViewSet, row: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Run a teacher on a view now."""
    place = placement(teacher.spec, view_set, row, 1)
    top, left, side = place["offset_row"] * PATCH, place["offset_col"] * PATCH, view_set.resolution
    window = canvas(view_set, row, side + PATCH)[top : top + side, left : left + side]
    return teacher.look(window, teacher.tokens(view_set))


@pytest.mark.parametrize("spec", [ANY, FIXED, CANVAS], ids=lambda spec: spec.name)
def test_a_teachers_features_are_those_that_it_gives_now(views: Cache, spec: object) -> None:
    teacher = Teacher(spec=spec)
    for name in SIZES:
        found = teacher_features(views, spec.name, name, "all")
        live = [look(teacher, found.view_set, row) for row in range(SIZES[name])]
        tokens = np.stack([spatial for spatial, _ in live])
        assert found.keys == tuple(f"image {row}" for row in range(SIZES[name]))
        assert np.allclose(found.tokens(slice(5, 9)), tokens[5:9], atol=2e-2)
        assert np.allclose(mean_tokens(found, 7), tokens.mean(axis=(1, 2)), atol=2e-2)
        assert found.shape == tokens.shape[1:]
        assert found.model == spec.model
        if spec.summary_dim is None:
            assert found.summary is None
        else:
            assert np.allclose(found.summary, [summary for _, summary in live], atol=1e-6)


def test_features_from_the_cache_and_features_computed_now_have_the_same_score(views: Cache, labels: str) -> None:
    chosen = options(views, labels, teacher="any", linear=LinearSettings(strengths=(0.1,), iterations=50))
    for name in SIZES:
        found = teacher_features(views, "any", name, "all")
        live = np.stack([look(Teacher(spec=ANY), found.view_set, row)[1] for row in found.rows]).astype(np.float32)
        now = EvaluationFeatures(**{**{f: getattr(found, f) for f in found.__slots__}, "summary": live})
        for task in ("knn", "linear", "retrieval"):
            cached, computed = TASKS[task].measure(found, chosen), TASKS[task].measure(now, chosen)
            assert cached.scores == pytest.approx(computed.scores, abs=1e-6)
            assert 0.3 < next(iter(cached.scores.values())) <= 1


@pytest.mark.parametrize(("encoding", "tolerance"), [("float32", 1e-4), ("float16", 2e-2), ("int8", 0.25)])
def test_a_teachers_features_are_raw_whatever_they_are_stored_in(
    tmp_path: Path, encoding: str, tolerance: float
) -> None:
    cache, spec = (
        SmallCache(tmp_path, {"low-32": 6}, encodings={"t": encoding}, rejected=[("low-32", 3)]),
        spec_of("t", 8, 4),
    )
    manifest = cache.write_teacher(spec)
    for view_set, shard in cache.shards:
        cache.write_views(view_set, shard)
        cache.write_features(manifest, view_set, shard)
    found = teacher_features(Cache(store=cache.store), "t", "low-32", "all")
    assert found.rows.tolist() == [0, 1, 2, 4, 5]
    raw = np.stack([cache.raw(spec, found.view_set, row) for row in found.rows])
    assert np.allclose(found.tokens(slice(None)), raw, atol=tolerance)
    assert np.array_equal(found.summary, [cache.summary(spec, found.view_set, row) for row in found.rows])


def test_boxes_are_those_of_the_windows() -> None:
    geometry = CanvasGeometry(resolution=32, patch=16, margin=2)
    boxes, starts = np.array([[10.0, 20.0, 128.0, 64.0]] * 2), np.array([[1, 2], [1, 2]])
    found = window_boxes(boxes, np.array([False, True]), geometry, starts)
    # the canvas has 64 px: a pixel is 2 source pixels wide and 1 high; mirrored, column 32 to 63 is column 0 to 31
    assert found.tolist() == [[74.0, 36.0, 64.0, 32.0], [10.0, 36.0, 64.0, 32.0]]


def live_student(folder: Path, view_set: ViewSet, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Summary and tokens of a student, run on the middle windows by a program of its own."""
    student, side = trainer.load(folder), view_set.resolution
    windows = np.stack([canvas(view_set, row, side + PATCH)[:side, :side] for row in range(count)])
    with torch.no_grad():
        output = student(torch.from_numpy(windows).permute(0, 3, 1, 2) / 255)
    return output.student.summaries[:, 0].numpy(), output.student.spatial.numpy()


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_a_students_features_are_those_that_it_gives_now(
    views: Cache, exported: Callable[[Path], Path], tmp_path: Path, stored: str
) -> None:
    folder = exported(tmp_path / "run")
    chosen = options(views, "", student=folder, stored=stored, batch=7)
    features = StudentFeatures(
        student=trainer.load(folder),
        name="run",
        views=choose_views(views, "low-48", "all"),
        folder=tmp_path / "features",
        options=chosen,
    )
    features.compute(["backbone", "any"], tokens=True)
    found = features.read("backbone")
    summary, tokens = live_student(folder, found.view_set, 44)
    assert np.allclose(found.summary, summary, atol=1e-5)
    assert np.allclose(found.mean, tokens.mean(axis=(1, 2)), atol=1e-5)
    assert np.allclose(found.tokens(slice(3, 20)), tokens[3:20], atol=1e-5 if stored == "float32" else 1e-2)
    assert (features.read("any").model, features.read("any").summary.shape) == (ANY.model, (44, 6))
    assert found.model is None


def command(chosen: EvaluateOptions, *more: str) -> list[str]:
    whose = ["--teacher", chosen.teacher] if chosen.teacher else ["--student", str(chosen.student)]
    return [
        "evaluate",
        "--cache",
        chosen.cache,
        "--labels",
        chosen.labels,
        "--views",
        "all",
        "--knn.k",
        "3",
        *whose,
        *more,
    ]


def test_the_command_prints_a_table_keeps_scores_and_measures_nothing_twice(
    views: Cache,
    exported: Callable[[Path], Path],
    labels: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = exported(tmp_path / "run")
    line = command(options(views, labels, student=folder), "--outputs", "backbone", "any", "--tasks", "knn")
    assert main(line) == 0
    said = capsys.readouterr().out.splitlines()
    assert [row.split()[:4] for row in said if "accuracy" in row and "evaluate:" not in row] == [
        ["run", "knn", "any", "accuracy"],
        ["run", "knn", "backbone", "accuracy"],
    ]
    assert any(row.split() == ["run", "task", "features", "score", "low-32", "low-48"] for row in said)
    first = scores_in(folder / "evaluation.json")
    assert {(score.output, score.view_set) for score in first} == {
        (output, name) for output in ("backbone", "any") for name in SIZES
    }
    assert first[0].counts == {"train_views": 26, "test_views": 14, "classes": 2}
    assert set(first[0].versions) == {"stillhouse", "numpy", "scikit-learn", "torch"}
    assert first[0].settings["k"] == 3
    summary, _ = live_student(folder, ViewSet.parse("low-32"), 40)
    keys = [f"image {row}" for row in range(40)]
    assert first[0].scores["accuracy"] == pytest.approx(plain_knn(summary, keys, labels, 3), abs=1e-6)
    for path in folder.rglob("*.pooled.*"):
        path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(StudentFeatures, "compute", None)
        assert main(line) == 0
    assert "evaluate:" not in capsys.readouterr().out
    assert main([*line, "--json"]) == 0
    assert [found["scores"] for found in json.loads(capsys.readouterr().out)] == [score.scores for score in first]
    assert main([*line, "--knn.k", "4"]) == 0
    assert len(scores_in(folder / "evaluation.json")) == 8


def plain_knn(summary: np.ndarray, keys: list[str], labels: str, k: int) -> float:
    """The vote of the nearest neighbours in a few lines."""
    rows = dict(line.split(",", 1) for line in Path(labels).read_text().split("\n")[1:-1])
    names, parts = zip(*(rows[key].split(",") for key in keys), strict=True)
    units = summary / np.linalg.norm(summary, axis=1, keepdims=True)
    bank = [place for place, part in enumerate(parts) if part == "train"]
    right = []
    for query in (place for place, part in enumerate(parts) if part == "test"):
        near = sorted(bank, key=lambda place: -float(units[place] @ units[query]))[:k]
        votes = {
            name: sum(np.exp(units[at] @ units[query] / 0.07) for at in near if names[at] == name) for name in names
        }
        right.append(max(votes, key=votes.__getitem__) == names[query])
    return float(np.mean(right))


def test_an_interrupted_evaluation_goes_on_with_the_next_part(
    views: Cache, exported: Callable[[Path], Path], labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.downstream.student_features.MOST_VIEWS", 15)
    chosen = options(views, labels, student=exported(tmp_path / "run"), tasks=("knn",))
    undisturbed = evaluate(EvaluateOptions(**{**fields(chosen), "to": tmp_path / "other"}), lambda _: None)
    written, write = [], StudentFeatures._write

    def counted(self: StudentFeatures, outputs: list[str], number: int, *rest: object, **more: object) -> None:
        if len(written) == 2:
            written.append("stopped")
            raise KeyboardInterrupt
        written.append((self.views.view_set.name, number))
        write(self, outputs, number, *rest, **more)

    monkeypatch.setattr(StudentFeatures, "_write", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(chosen, lambda _: None)
    resumed = evaluate(chosen, lambda _: None)
    of = [("low-32", number) for number in range(3)] + [("low-48", number) for number in range(3)]
    assert written == [*of[:2], "stopped", *of[2:]]
    assert [score.scores for score in resumed] == [score.scores for score in undisturbed]


def fields(chosen: EvaluateOptions) -> dict[str, object]:
    return {name: getattr(chosen, name) for name in chosen.__slots__}


def test_features_and_scores_of_another_student_are_refused(
    views: Cache, exported: Callable[[Path], Path], labels: str, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "run")
    chosen = options(views, labels, student=folder, tasks=("knn",), sets=("low-32",))
    evaluate(chosen, lambda _: None)
    student = trainer.load(folder)
    student.card = {**student.card, "weights_sha256": "0" * 64}
    stored = StudentFeatures(
        student=student,
        name="run",
        views=choose_views(views, "low-32", "all"),
        folder=next(folder.glob("features/*/low-32-all")),
        options=chosen,
    )
    with pytest.raises(IdentityError, match='this run has "000'):
        stored.compute(["backbone"], tokens=False)
    (folder / "evaluation.json").write_text(
        (folder / "evaluation.json").read_text().replace(trainer.load(folder).card["weights_sha256"], "1" * 64)
    )
    with pytest.raises(IdentityError, match=r"scores in .* does not match"):
        evaluate(chosen, lambda _: None)


def test_features_that_float16_cannot_hold_are_refused(
    views: Cache, exported: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = exported(tmp_path / "run")
    student, chosen = trainer.load(folder), options(views, "", student=folder)
    with torch.no_grad():
        student.model.heads["any_spatial"].adaptor.last.bias += 1e5
    stored = StudentFeatures(
        student=student,
        name="run",
        views=choose_views(views, "low-32", "all"),
        folder=tmp_path / "features",
        options=chosen,
    )
    stored.compute(["backbone"], tokens=True)
    with pytest.raises(ContractError, match=r"too large for float16 .*--stored float32"):
        stored.compute(["any"], tokens=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cache": ""}, "--cache: is not given"),
        ({"teacher": ""}, "--student, --teacher: neither is given"),
        ({"student": Path("runs/x")}, "--student, --teacher: both are given"),
        ({"tasks": ("knnn",)}, "knnn: is not a task (did you mean knn?"),
        ({"tasks": ()}, "--tasks: names no task"),
        ({"batch": 0}, "--batch: 0 is less than 1"),
        ({"teacher": "anny"}, "anny: the cache has no features of this teacher"),
        ({"sets": ("low-33",)}, "low-33: the cache has no such view set"),
        ({"teacher": "canvas"}, "canvas: has no summary"),
        ({"teacher": "", "student": Path("nowhere")}, "nowhere: holds no student.json"),
        ({"labels": "nowhere.csv"}, "nowhere.csv: there is no such file"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_message(
    views: Cache, labels: str, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    chosen = options(views, labels, **{"teacher": "any", "to": tmp_path / "to", **changes})
    with pytest.raises(AbstractStillhouseError) as refusal:
        evaluate(chosen, lambda _: None)
    assert len(refusal.value.problems) == 1
    assert said in str(refusal.value)


def test_an_output_that_the_student_lacks_and_a_cache_without_heldout_views_are_refused(
    views: Cache, exported: Callable[[Path], Path], labels: str, tmp_path: Path
) -> None:
    with pytest.raises(AbstractStillhouseError, match=r"clip: is not an output .*backbone, any, canvas, fixed"):
        evaluate(options(views, labels, student=exported(tmp_path / "run"), outputs=("clip",)), lambda _: None)
    maker = CacheMaker(tmp_path / "cache", {"low-32": 1}, 0).views()
    assert choose_views(maker.cache, "low-32", "scored").rows.tolist() == [0]
    assert len(choose_views(views, "low-32", "scored").rows) == 8
    with pytest.raises(AbstractStillhouseError, match="39 of 40 images have no label"):
        evaluate(options(views, labels, teacher="any", labels=str(less(tmp_path)), to=tmp_path / "to"), lambda _: None)


def less(folder: Path) -> Path:
    (folder / "less.csv").write_text("key,label\nimage 0,red\n")
    return folder / "less.csv"


def kept(task: str, view_set: str, value: float, **changes: Any) -> Score:
    about = {"output": "backbone", "cache": "c", "views": f"{view_set} views", "features": "f", "settings": {"k": 20}}
    scores = {"scores": {"accuracy": value}, "lower_is_better": [], "counts": {}, "seconds": 0.0, "versions": {}}
    return Score(**{"task": task, "view_set": view_set, **about, **scores, **changes})


def test_the_best_of_a_column_is_marked_among_scores_that_may_be_compared() -> None:
    runs = {
        "a": [kept("knn", "low-512", 0.5), kept("knn", "low-32", 0.7), kept("knn", "low-32", 0.9, settings={"k": 1})],
        "b": [kept("knn", "low-32", 0.8), kept("knn", "low-512", 0.4, views="others")],
        "c": [kept("depth", "low-32", 0.8, lower_is_better=["accuracy"]), kept("knn", "low-32", 0.8)],
        "d": [kept("depth", "low-32", 0.3, lower_is_better=["accuracy"], settings={"k": 20, "smaller": ["its own"]})],
    }
    table = [line.split("  ") for line in table_text(runs).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in table]
    assert cells[0] == ["run", "task", "features", "score", "low-32", "low-512 low-512", "low-512 others"]
    assert cells[1:7] == [
        ["c", "depth", "backbone", "accuracy", "0.8000", "—", "—"],
        ["d", "depth", "backbone", "accuracy", "0.3000*", "—", "—"],
        ["a", "knn k=1", "backbone", "accuracy", "0.9000", "—", "—"],  # with nothing to compare it with
        ["a", "knn k=20", "backbone", "accuracy", "0.7000", "0.5000", "—"],
        ["b", "knn k=20", "backbone", "accuracy", "0.8000*", "—", "0.4000"],
        ["c", "knn k=20", "backbone", "accuracy", "0.8000*", "—", "—"],
    ]
