"""The report of a cache and its students, as a user gets it."""

import base64
import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import AbstractStillhouseError, IdentityError, MissingError, SettingError
from storage_schemas.format.geometry import TokenAxis, match_axis, match_tokens
from storage_schemas.format.phi_s import to_stored
from storage_schemas.format.stats import PAPER_DISPERSIONS
from storage_schemas.format.views import ViewSet
from trainer.__main__ import main
from trainer.data.source import open_source
from trainer.report.closing_table import closing_rows
from trainer.report.curves import run_plots
from trainer.report.make import make_report
from trainer.report.numbers_as_text import bytes_text, number_text, signed_text
from trainer.report.page import render_page
from trainer.report.pictures import make_pictures
from trainer.report.rejected_images import RejectedFor
from trainer.report.results import find_runs
from trainer.report.student import Prediction, predict
from trainer.report.views import of_many_images, pictured_views
from trainer.run.metrics import teacher_facts
from trainer.run.train import train
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings

TEACHERS = ("any", "canvas", "fixed")
SETS = ("high-64", "low-32", "low-48")
COLOURS = dict.fromkeys(TEACHERS, 0)
HELDOUT = {"high-64": 2, "low-32": 2, "low-48": 3}
"""Held-out views of each set: every fifth of 9, 10 and 14."""


def recipe(**changes: object) -> TrainRecipe:
    base = TrainRecipe(
        name="tests",
        student="test_vit",
        steps=4,
        heads=HeadSettings(width=32),
        data=DataSettings(batch_low=4, batch_high=2, window_shards=2),
        optimiser=OptimiserSettings(lr=2e-3),
        running=RunningSettings(log_every=1, evaluate_every=2, loggers=("csv",), accelerator="cpu"),
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def runs(full_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three students: one of all there is, one of less, and one that was cut off after its last checkpoint."""
    folder, uri = tmp_path_factory.mktemp("runs"), full_cache.store.uri
    train(recipe(), uri, folder / "whole", lambda _: None)
    some = DataSettings(teachers=("any",), proportions={"low-32": 1.0}, batch_low=4, window_shards=2)
    train(recipe(steps=2, data=some), uri, folder / "part", lambda _: None)
    shutil.copytree(folder / "whole", folder / "cut off")
    for name in ("student.json", "student.safetensors"):
        (folder / "cut off" / name).unlink()
    return folder


@pytest.fixture(scope="module")
def said(full_cache: Cache, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the report says on the terminal, and its page."""
    page, lines = tmp_path_factory.mktemp("report") / "deep" / "page.html", list[str]()
    make_report(full_cache.store.uri, runs, page, lines.append)
    return "\n".join(lines), page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(said: tuple[str, str]) -> str:
    return said[0]


@pytest.fixture(scope="module")
def page(said: tuple[str, str]) -> str:
    return said[1]


class Parsed(HTMLParser):
    """Every element with its attributes, the cells of every table row, and whether each element was closed."""

    VOID = ("meta", "img", "br", "wbr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data.strip()

    def pictures(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for tag, attributes in self.elements if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        bodies = [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]
        return [Image.open(io.BytesIO(body), formats=["PNG"]) for body in bodies]


def section(page: str, heading: str) -> str:
    """Return the section of a heading."""
    return next(part for part in page.split("<section>") if f"<h2>{heading}</h2>" in part).partition("</section>")[0]


def expected_facts(cache: Cache, teacher: str) -> list[str]:
    """Views, bytes, residuals and dispersion, from the files and arrays themselves."""
    folder = Path(cache.store.uri)
    group = zarr.open_group(folder / "features.zarr" / "teachers" / teacher, mode="r")
    rows = [group[f"{name}/spatial"][:] for name in SETS]
    tokens = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in rows]).astype(np.float64)
    shards = [path for name in SETS for path in (folder / "features.zarr/teachers" / teacher / name).glob("*/c/**/*")]
    dispersion = float(group["stats/dispersion"][()]) if "dispersion" in group["stats"] else None
    return [
        str(sum(len(grids) for grids in rows)),
        bytes_text(sum(path.stat().st_size for path in shards if path.is_file())),
        number_text(float(np.sqrt(np.mean(tokens.mean(axis=0) ** 2)))),
        signed_text(float(tokens.var(axis=0).mean() - 1)),
        number_text(dispersion),
    ]


def expected_scores(runs: Path, run: str, teacher: str) -> list[str]:
    """F before the first step and after the last measured one, from the run's own file."""
    scores = json.loads((runs / run / "metrics.json").read_text())["evaluations"]
    return [number_text(score["teachers"][teacher]["fidelity"]) for score in (scores[0], scores[-1])]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_closing_table_has_the_numbers_of_the_cache_and_of_the_runs(
    full_cache: Cache, runs: Path, table: str, page: str, teacher: str
) -> None:
    lines = table.splitlines()
    first = next(number for number, line in enumerate(lines) if line.split()[:1] == [teacher])
    facts, students = expected_facts(full_cache, teacher), ["cut off", "part", "whole"]
    if teacher != "any":
        students.remove("part")
    steps = {"cut off": "4/4", "part": "2/2", "whole": "4/4"}
    for number, student in enumerate(students):
        leading = [teacher, *facts] if number == 0 else []
        expected = [*leading, student, *expected_scores(runs, student, teacher), steps[student]]
        assert lines[first + number].split() == " ".join(expected).split()
    shown = [row for row in Parsed(page).rows if row[:1] == [f"{teacher}random weights"]]
    end = expected_scores(runs, students[0], teacher)
    assert shown == [[f"{teacher}random weights", *facts, students[0], *end, "4 of 4"]]


def test_the_table_ends_with_the_path_of_the_page_and_says_that_weights_are_random(
    full_cache: Cache, tmp_path: Path
) -> None:
    lines: list[str] = []
    make_report(full_cache.store.uri, tmp_path / "none", tmp_path / "page.html", lines.append)
    assert lines[0] == f"report: no run in {tmp_path / 'none'}; this report is about the cache only"
    assert lines[-2].endswith("random weights: a demonstration (any, canvas, fixed)")
    assert lines[-1] == f"report: {tmp_path / 'page.html'}"
    shown = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "No run was found; this report is about the cache only." in " ".join(shown.text.split())
    assert len(shown.pictures()) == sum(HELDOUT.values()) * (1 + len(TEACHERS))


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    parsed = Parsed(page)
    assert parsed.open == []
    assert "http:" not in page
    assert "https:" not in page
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "a"})
    assert all("href" not in attributes and "srcset" not in attributes for _, attributes in parsed.elements)
    assert "url(" not in page
    assert "@import" not in page
    [policy] = [
        attributes["content"]
        for _, attributes in parsed.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert len(page.encode()) < 3_000_000


def test_every_picture_is_a_png_with_a_pixel_for_each_token(page: str) -> None:
    sizes = sorted(image.size[0] for image in Parsed(page).pictures())
    canvases, maps = [64 + 16, 32 + 16, 48 + 16], {"any": (4, 2, 3), "canvas": (4, 2, 3), "fixed": (3, 3, 3)}
    student = (4, 2, 3)
    expected = []
    for place, count in enumerate(HELDOUT.values()):
        view = [canvases[place]]
        for teacher in TEACHERS:
            coarser = min(student[place], maps[teacher][place])
            view += [maps[teacher][place], *2 * [student[place], coarser]]
            view += [2, 2] if (teacher, place) == ("any", 1) else []
        expected += count * view
    assert sizes == sorted(expected)


def test_the_page_says_what_it_is_of(full_cache: Cache, page: str) -> None:
    text = Parsed(page).text
    source = open_source(full_cache)
    for part in (full_cache.store.uri, "tests", "any of the tests", "any's own", "Random weights: a demonstration."):
        assert part in text
    for name, teacher in source.teachers.items():
        assert teacher.manifest.digest[:16] in text, name
    assert all(f"{value:.3f} rad²" in text and name in text for name, value in PAPER_DISPERSIONS.items())


def test_the_page_has_the_residuals_of_every_view_set(full_cache: Cache, page: str) -> None:
    rows = {row[0]: row for row in Parsed(page).rows if row[:1] and row[0] in (*SETS, "all")}
    for name in SETS:
        group = zarr.open_group(Path(full_cache.store.uri) / "features.zarr" / "teachers", mode="r")
        expected = []
        for teacher in TEACHERS:
            tokens = group[f"{teacher}/{name}/spatial"][:].astype(np.float64)
            flat = tokens.reshape(-1, tokens.shape[-1])
            mean = float(np.sqrt(np.mean(flat.mean(axis=0) ** 2)))
            deviation = float(np.sqrt(np.mean((flat.var(axis=0) - 1) ** 2)))
            mark = "▲ " if max(mean, deviation) > 0.2 else ""
            expected += [f"{tokens.shape[1]} × {tokens.shape[2]}", mark + number_text(mean), number_text(deviation)]
        assert rows[name][3:] == expected
        assert int(rows[name][2]) == HELDOUT[name]
    assert [int(cell) for cell in rows["all"][1:3]] == [33 - 7, 7]


@pytest.mark.parametrize(("variance", "off"), [((0.7, 1.3), True), ((0.9, 1.1), False), ((1.19, 1.19), False)])
def test_a_set_is_marked_where_channels_are_off_even_if_they_cancel(
    full_cache: Cache, variance: tuple[float, float], off: bool
) -> None:
    # the mean over channels of the first two variances is 1
    source, low_32 = open_source(full_cache), ViewSet.parse("low-32")
    stats = source.teachers["any"].stats
    changed = replace(stats.sets[low_32], mean=np.zeros(8), variance=np.tile(variance, 4))
    teacher = replace(source.teachers["any"], stats=replace(stats, sets={**stats.sets, low_32: changed}))
    page = render_page(replace(source, teachers={**source.teachers, "any": teacher}), "", [], [], [], COLOURS)
    [cells] = [row[3:6] for row in Parsed(section(page, "PHI-S residuals")).rows if row[0] == "low-32"]
    assert cells == ["2 × 2", "▲ 0.000" if off else "0.000", number_text(abs(variance[1] - 1))]


def test_the_curves_are_those_of_the_history(runs: Path, page: str) -> None:
    with (runs / "whole" / "history.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    shown = section(page, "Student whole")
    [points, *_] = [attributes["points"] for tag, attributes in Parsed(shown).elements if tag == "polyline"]
    heights = [float(point.split(",")[1]) for point in (points or "").split()]
    assert len(heights) == len(losses) == 4
    # on a logarithmic axis of falling pixels, heights go with the logarithm
    slope = (heights[1] - heights[0]) / np.log(losses[1] / losses[0])
    assert heights == pytest.approx(heights[0] + slope * np.log(np.array(losses) / losses[0]), abs=0.3)
    assert slope < 0
    for title in ("Spatial loss", "Summary loss"):
        assert title in shown


def drawn(shown: str, title: str) -> list[str]:
    """Return what each dot of a plot says, in their order."""
    figure = next(part for part in shown.split("<figure>") if f"<figcaption>{title}<" in part)
    return [part.split("</title>")[0] for part in figure.split("<title>")[1:] if ": " in part.split("</title>")[0]]


def test_everything_that_evaluation_measured_has_a_curve(runs: Path, page: str) -> None:
    evaluations = json.loads((runs / "whole" / "metrics.json").read_text())["evaluations"]
    shown, last = section(page, "Student whole"), evaluations[-1]
    for title, kind, named in [("Held-out fidelity", "fidelity", TEACHERS), ("Summary angle", "angle", TEACHERS[::2])]:
        assert drawn(shown, title) == [
            f"{name}, step {evaluation['step']}: {number_text(evaluation['teachers'][name][kind])}"
            for name in named
            for evaluation in evaluations
        ]
    for title, kind in [("Scale variance", "scale"), ("Effective rank", "effective_rank")]:
        assert drawn(shown, title) == [
            f"whole, step {evaluation['step']}: {number_text(evaluation['student'][kind])}"
            for evaluation in evaluations
        ]
    assert drawn(shown, "Fidelity by resolution") == [
        f"{name}, px {held.split('-')[1]}: {number_text(last['teachers'][name]['sets'][held])}"
        for name in TEACHERS
        for held in ("low-32", "low-48", "high-64")
    ]
    shares = last["student"]["shares"].items()
    assert drawn(shown, "Spectrum") == [
        f"whole, first directions, log {count}: {number_text(share)}" for count, share in shares
    ]


def test_a_table_says_what_the_students_own_features_were_like_first_and_last(runs: Path, page: str) -> None:
    first, *_, last = json.loads((runs / "whole" / "metrics.json").read_text())["evaluations"]
    rows = Parsed(section(page, "Student whole")).rows[-2:]
    for row, evaluation in zip(rows, (first, last), strict=True):
        own = evaluation["student"]
        assert row[:3] == [str(evaluation["step"]), number_text(own["effective_rank"], 1), number_text(own["scale"])]
        assert row[3:] == [number_text(share) for share in own["shares"].values()]


def test_a_run_of_one_resolution_has_no_curve_over_several(page: str) -> None:
    shown = section(page, "Student part")
    assert "Effective rank" in shown
    assert "Fidelity by resolution" not in shown
    assert "<figcaption>Scale variance" not in shown


def test_every_kind_of_loss_and_mesa_have_units_and_a_curve(full_cache: Cache, runs: Path) -> None:
    [*_, result] = find_runs(runs, open_source(full_cache))
    recipe = {**result.recipe, "loss": {**result.recipe["loss"], "spatial": "smooth", "summary": "cosine"}}
    history = [{**row, "low/mesa": "0.5", "high/mesa": "0.25"} for row in result.history]
    plots = run_plots(replace(result, recipe=recipe, history=history), dict.fromkeys(TEACHERS, 0))
    units = {plot.title: plot.unit for plot in plots}
    assert units["Spatial loss"] == "0.9 (1 − cosine) + 0.1 smooth L1, log"
    assert units["Summary loss"] == "1 − cosine, log"
    assert units["MESA"] == "squared LN units, log"


def test_a_run_that_is_not_finished_is_shown_from_its_checkpoint(full_cache: Cache, runs: Path, page: str) -> None:
    assert "4 steps, not finished yet." in " ".join(Parsed(section(page, "Student cut off")).text.split())
    source = open_source(full_cache)
    cut_off, _, whole = find_runs(runs, source)
    assert (cut_off.finished, whole.finished) == (False, True)
    views = pictured_views(source)
    for kept, exported in zip(predict(cut_off, source, views), predict(whole, source, views), strict=True):
        assert list(kept) == list(exported) == list(TEACHERS)
        for name in kept:
            # the same weights, with PHI-S folded into the exported ones and taken out again
            assert np.abs(kept[name].features - exported[name].features).max() < 2e-4


def test_a_run_with_an_average_that_is_not_finished_is_shown_by_its_average(
    full_cache: Cache, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "cut off", tmp_path / "averaged")
    run = RunFolder(path=tmp_path / "averaged")
    identity = read_json(run.identity)
    identity["recipe"]["average"]["decay"] = 0.9
    write_json(run.identity, identity)
    kept = torch.load(run.checkpoint, weights_only=True)
    model = {name: value for name, value in kept["state_dict"].items() if name.startswith("model.")}
    average = {f"average.{name.removeprefix('model.')}": value for name, value in model.items()}
    kept["state_dict"] |= average | {name: torch.zeros_like(value) for name, value in model.items()}
    torch.save(kept, run.checkpoint)
    source = open_source(full_cache)
    [averaged], [cut_off, *_] = find_runs(tmp_path, source), find_runs(runs, source)
    views = pictured_views(source)
    for predicted, other in zip(predict(averaged, source, views), predict(cut_off, source, views), strict=True):
        assert list(predicted) == list(TEACHERS)
        assert all(np.array_equal(predicted[name].features, other[name].features) for name in predicted)


def test_a_student_looks_through_the_teachers_own_window(full_cache: Cache, runs: Path) -> None:
    source = open_source(full_cache)
    *_, whole = find_runs(runs, source)
    views, student = pictured_views(source), trainer.load(runs / "whole")
    predictions = predict(whole, source, views)
    group = zarr.open_group(Path(full_cache.store.uri) / "features.zarr", mode="r")
    for view, predicted in zip(views, predictions, strict=True):
        side, name = view.view_set.resolution, view.view_set.name
        canvas = group[f"views/{name}/pixels"][view.row]
        for teacher in TEACHERS:
            top, left = source.sets[view.view_set].features[teacher].offsets[view.row] * 16
            window = torch.from_numpy(canvas[top : top + side, left : left + side]).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                raw = student(window).spatial[teacher][0].numpy()
            features = to_stored(source.teachers[teacher].phi_s, raw)
            assert np.abs(predicted[teacher].features - features).max() < 1e-5
            target = group[f"teachers/{teacher}/{name}/spatial"][view.row]
            axis = match_axis(*(TokenAxis(start=0, span=side // 16, tokens=len(grid)) for grid in (features, target)))
            ours, theirs, common = match_tokens(features, target, axis, axis)
            assert common.all()
            assert predicted[teacher].error == pytest.approx(((ours - theirs) ** 2).mean(axis=2), abs=1e-4)


def test_a_picture_lies_where_its_window_lay_in_the_canvas(full_cache: Cache) -> None:
    source = open_source(full_cache)
    for picture in make_pictures(source, pictured_views(source), [], dict.fromkeys(TEACHERS, 0)):
        resolution = picture.view.view_set.resolution
        for each in picture.teachers:
            row, col = source.sets[picture.view.view_set].features[each.teacher].offsets[picture.view.row]
            side = resolution + 16
            expected = (100 * 16 * col / side, 100 * 16 * row / side, 100 * resolution / side)
            assert (each.frame.left, each.frame.top, each.frame.side) == pytest.approx(expected, abs=1e-3)


def test_a_student_that_is_its_teacher_has_the_same_picture_and_no_error(full_cache: Cache) -> None:
    source = open_source(full_cache)
    views = pictured_views(source)
    perfect = [
        {
            name: Prediction(features=seen.features.astype(np.float32), error=np.zeros(seen.features.shape[:2]))
            for name, seen in view.teachers.items()
        }
        for view in views
    ]
    for picture in make_pictures(source, views, [perfect], dict.fromkeys(TEACHERS, 0)):
        for each in picture.teachers:
            [student] = each.students
            assert student is not None
            assert student.features == each.features
            assert student.mean_error == 0


def test_views_are_pictured_of_as_many_images_as_can_be() -> None:
    rows = [{"row": number, "image": image} for number, image in enumerate("aabac")]
    assert [row["row"] for row in of_many_images(rows)] == [0, 2, 4, 1, 3]


def test_only_held_out_views_are_pictured(full_cache: Cache) -> None:
    source = open_source(full_cache)
    views = pictured_views(source)
    assert {name: sum(view.view_set.name == name for view in views) for name in SETS} == HELDOUT
    assert all(view.row in source.sets[view.view_set].rows["heldout"].tolist() for view in views)


def test_two_reports_are_the_same_bytes_and_touch_nothing_else(
    full_cache: Cache, runs: Path, page: str, tmp_path: Path
) -> None:
    folders = (Path(full_cache.store.uri), runs)
    before = [(path, path.stat().st_mtime_ns) for folder in folders for path in sorted(folder.rglob("*"))]
    make_report(full_cache.store.uri, runs, tmp_path / "again.html", lambda _: None)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]
    assert [(path, path.stat().st_mtime_ns) for folder in folders for path in sorted(folder.rglob("*"))] == before


def test_a_run_that_has_only_begun_has_dashes(full_cache: Cache, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "new").mkdir(parents=True)
    shutil.copy(runs / "whole" / "run.json", tmp_path / "runs" / "new")
    lines: list[str] = []
    make_report(full_cache.store.uri, tmp_path / "runs", tmp_path / "page.html", lines.append)
    assert [line.split()[-4:] for line in lines[3:6]] == 3 * [["new", "—", "—", "—/4"]]
    text = Parsed((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert text.count("no weights for this view yet") == sum(HELDOUT.values()) * len(TEACHERS)


def test_a_folder_of_one_run_is_reported_by_its_name(full_cache: Cache, runs: Path) -> None:
    assert [result.name for result in find_runs(runs / "whole", open_source(full_cache))] == ["whole"]


def evaluated(folder: Path, name: str, output: str, *values: float) -> None:
    """Write scores of a task at two resolutions."""
    about = {"task": "knn", "output": output, "cache": "c", "features": "f", "settings": {}, "seconds": 1.0}
    about |= {"lower_is_better": [], "counts": {}, "versions": {}}
    scores = [
        {**about, "view_set": view_set, "views": view_set, "scores": {"accuracy": value}}
        for view_set, value in zip(("low-32", "low-48"), values, strict=True)
    ]
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "evaluation.json").write_text(json.dumps({"version": 1, "subject": {}, "scores": scores}))


def test_the_page_has_a_table_and_curves_of_what_was_evaluated(
    full_cache: Cache, runs: Path, page: str, tmp_path: Path
) -> None:
    hint = "No student or teacher was evaluated yet. make evaluate STUDENT=… DATA=… LABELS=…"
    assert hint in " ".join(Parsed(section(page, "Evaluation")).text.split())
    assert "<svg" not in section(page, "Evaluation")
    shutil.copytree(runs / "whole", tmp_path / "runs" / "<b>")
    evaluated(tmp_path / "runs", "<b>", "backbone", 0.5, 0.75)
    evaluated(tmp_path / "evaluation", "any", "any", 0.625, 0.25)
    out = tmp_path / "page.html"
    make_report(full_cache.store.uri, tmp_path / "runs", out, lambda _: None, tmp_path / "evaluation")
    shown = section(out.read_text(encoding="utf-8"), "Evaluation")
    assert hint not in shown
    assert Parsed(shown).rows == [
        ["", "knnaccuracy"],
        ["Features", "low-32", "low-48"],
        ["<b>student, backbone", "0.500", "★ 0.750"],
        ["anyteacher", "★ 0.625", "0.250"],
    ]
    assert drawn(shown, "knn") == [
        "&lt;b&gt;, px 32: 0.500",
        "&lt;b&gt;, px 48: 0.750",
        "any, px 32: 0.625",
        "any, px 48: 0.250",
    ]


def test_rejected_images_are_listed_where_there_are_some(
    full_cache: Cache, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "<h2>Rejected images</h2>" not in page
    named = (("<i>.jpg", "truncated"), ("b.jpg", "no end"))
    rejected = [
        RejectedFor(reason="damaged", images=1234, views=2000, named=named),
        RejectedFor(reason="too small", images=1, views=2, named=(("c.jpg", "8 × 8"),)),
    ]
    monkeypatch.setattr("trainer.report.page.rejected_images", lambda *_: rejected)
    shown = Parsed(section(render_page(open_source(full_cache), "", [], [], [], COLOURS), "Rejected images"))
    assert shown.rows[1:] == [
        ["damaged", "1\u202f234", "2\u202f000", "<i>.jpg: truncatedb.jpg: no endand 1\u202f232 more"],
        ["too small", "1", "2", "c.jpg: 8 × 8"],
    ]
    assert "1\u202f235 images could not be cut, by reason." in " ".join(shown.text.split(" "))


def test_names_from_outside_cannot_become_markup(full_cache: Cache) -> None:
    source = open_source(full_cache)
    views = [replace(view, image="<script>alert(1)</script>&") for view in pictured_views(source)[:1]]
    colours = dict.fromkeys(TEACHERS, 0)
    rows = closing_rows(teacher_facts(source), [])
    page = render_page(source, "<b>", rows, [], make_pictures(source, views, [], colours), colours)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page
    assert "<b>" not in page


def refusal(kind: type[AbstractStillhouseError], cache: str, runs: Path, page: Path) -> str:
    with pytest.raises(kind) as caught:
        make_report(cache, runs, page, lambda _: None)
    assert not page.is_file()
    return str(caught.value)


def test_without_a_cache_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert refusal(MissingError, str(cache), tmp_path, tmp_path / "page.html") == (
        f"cache is missing:\n  {cache}: holds no features.zarr (run `make extract` first, or point CACHE at a cache)"
    )


def test_without_statistics_the_command_that_measures_them_is_named(
    cache_maker: Callable, specs: dict, tmp_path: Path
) -> None:
    cache_maker(tmp_path / "cache").views().teacher(specs["any"])
    assert refusal(MissingError, str(tmp_path / "cache"), tmp_path, tmp_path / "page.html") == (
        "statistics is missing:\n  teachers/any/stats: the features were never measured (run `make stats`)"
    )


def test_a_run_of_another_cache_is_refused_with_both_values(full_cache: Cache, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "part", tmp_path / "runs" / "part")
    identity = json.loads((tmp_path / "runs" / "part" / "run.json").read_text())
    views, identity["cache"]["views"] = identity["cache"]["views"], "0" * 64
    (tmp_path / "runs" / "part" / "run.json").write_text(json.dumps(identity))
    message = refusal(IdentityError, full_cache.store.uri, tmp_path / "runs", tmp_path / "page.html")
    assert message.splitlines() == [
        f"a run of {tmp_path / 'runs'} does not match what is already there:",
        f'  {tmp_path / "runs" / "part"}, views: the cache has "{views}", this run has "{"0" * 64}"',
        "  what to do: set RUNS to runs of this cache; `make train` trains one",
    ]


def test_a_page_that_cannot_be_written_is_refused(full_cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    message = refusal(SettingError, full_cache.store.uri, tmp_path, tmp_path / "page")
    assert message == (
        f"page cannot be used:\n  {tmp_path / 'page'}: cannot be written: Is a directory "
        "(give the name of an .html file in a folder that can be written to)"
    )


def test_the_command_prints_the_table_and_the_path_of_the_page(
    full_cache: Cache,
    runs: Path,
    said: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where no teacher was evaluated
    page = tmp_path / "page.html"
    assert main(["report", "--cache", full_cache.store.uri, "--runs", str(runs), "--page", str(page)]) == 0
    table, _, path = said[0].rpartition("report: ")
    assert path.endswith("page.html")
    assert capsys.readouterr().out == f"{table}report: {page}\n"
    assert page.read_text(encoding="utf-8") == said[1]


def test_the_command_without_a_cache_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert capsys.readouterr().err == ("error: CACHE cannot be used:\n  --cache: is not given (make … CACHE=…)\n")
