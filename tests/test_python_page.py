"""`docs/python.md` runs, block after block, where `make demo` left a cache and a student, and gives what it says."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from small_cache import SmallCache, spec_of

import trainer
from storage_schemas.format.geometry import TokenAxis, match_axis, match_tokens
from storage_schemas.format.phi_s import to_stored
from storage_schemas.format.views import ViewSet
from trainer.export import export_student
from trainer.run_folder import RunFolder
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel, TeacherShape, summarised
from trainer.student.shape import measure_student
from trainer.student.student import Student

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
OUTPUTS = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.DOTALL | re.MULTILINE)
CACHE, RUN = "out/demo/cache", "out/demo/runs/vit_tiny_patch16_224"
SPECS = {
    "dinov3": spec_of("dinov3", dim=8, summary_dim=6),
    "sam3": spec_of("sam3", dim=4, summary_dim=None, size_rule="canvas", native=256),
    "siglip2": spec_of("siglip2", dim=12, summary_dim=6, size_rule="fixed", native=192),
}
SETS = {"low-128": 10, "low-192": 5, "high-256": 3}
LOW, ROW = ViewSet(partition="low", resolution=128), 7
"""The view that the page reads."""
HEADS = HeadSettings(width=32)


@final
@dataclass(frozen=True, kw_only=True)
class PageRun:
    """What the page was run on, and the names that it set."""

    cache: SmallCache
    model: DistilledModel
    """The student before its heads were brought to raw units."""
    names: dict[str, Any]
    printed: str


def export_tiny_student(cache: SmallCache, folder: Path) -> DistilledModel:
    """Export a student with heads for every teacher that has learnt nothing, and return it."""
    torch.manual_seed(0)
    teachers = {name: TeacherShape(dim=spec.dim, summary_dim=spec.summary_dim) for name, spec in SPECS.items()}
    student = Student("test_vit", None, VitSettings(), summarised(teachers))
    shape = measure_student(student, [128, 192, 256])
    model = DistilledModel(student, shape, teachers, HEADS).eval()
    about = {
        "student": student.name,
        "image_size": None,
        "vit": asdict(VitSettings()),
        "heads": asdict(HEADS),
        "teachers": {
            name: {"channels": spec.dim, "summary_channels": spec.summary_dim} for name, spec in SPECS.items()
        },
    }
    maps = {name: cache.phi_s(spec) for name, spec in SPECS.items()}
    export_student(model, shape, maps, about, RunFolder(path=folder))
    return model


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageRun]:
    """Run every block of the page, in order."""
    folder = tmp_path_factory.mktemp("demo")
    cache = SmallCache(folder / CACHE, SETS, margin=2)
    manifests = [cache.write_teacher(spec) for spec in SPECS.values()]
    for view_set, shard in cache.shards:
        cache.write_views(view_set, shard)
        for manifest in manifests:
            cache.write_features(manifest, view_set, shard)
    model = export_tiny_student(cache, folder / RUN)
    printed: list[str] = []
    names: dict[str, Any] = {"print": lambda *words: printed.append(" ".join(map(str, words)))}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            exec(compile(block, "docs/python.md", "exec"), names)
        yield PageRun(cache=cache, model=model, names=names, printed="\n".join(printed))


def test_the_page_has_blocks_and_names_what_the_demo_leaves() -> None:
    assert len(BLOCKS) == 9
    assert f'Cache.open("{CACHE}")' in PAGE
    assert f'trainer.load("{RUN}")' in PAGE


def test_what_is_in_the_cache_is_printed_with_counts(page: PageRun) -> None:
    assert page.printed.split("\n") == [
        "high-256: 3 views, canvases of 288 px",
        "low-128: 10 views, canvases of 160 px",
        "low-192: 5 views, canvases of 224 px",
        *(
            f"{name}: {spec.dim} channels, licence: unstated, views: {{'high-256': 3, 'low-128': 10, 'low-192': 5}}"
            for name, spec in SPECS.items()
        ),
    ]


def test_a_view_is_what_was_cut_and_what_each_teacher_gave(page: PageRun) -> None:
    view, cache = page.names["view"], page.cache
    np.testing.assert_array_equal(view.pixels, cache.canvas(LOW, ROW))
    assert list(view.teachers) == list(SPECS)
    for name, spec in SPECS.items():
        seen, given = view.teachers[name], cache.raw(spec, LOW, ROW)
        largest = np.abs(to_stored(cache.phi_s(spec), given)).max()
        moved = largest * 2.0**-11 * np.sqrt(spec.dim) * cache.phi_s(spec).scale  # what rounding to float16 may do
        np.testing.assert_allclose(seen.spatial, given, rtol=0, atol=moved + 1e-5)
        assert seen.offset.tolist() == cache.offset(spec, LOW, ROW)
        if spec.summary_dim is None:
            assert seen.summary is None
        else:
            np.testing.assert_array_equal(seen.summary, cache.summary(spec, LOW, ROW))


def test_the_window_is_the_part_of_the_canvas_at_the_teachers_offset(page: PageRun) -> None:
    row, col = (16 * start for start in page.cache.offset(SPECS["dinov3"], LOW, ROW))
    expected = page.cache.canvas(LOW, ROW)[row : row + 128, col : col + 128]
    np.testing.assert_array_equal(page.names["window"], expected)


def test_stored_features_are_mapped_back_to_the_same_raw_ones(page: PageRun) -> None:
    stored, given = page.names["stored"], page.cache.raw(SPECS["dinov3"], LOW, ROW)
    np.testing.assert_allclose(stored, to_stored(page.cache.phi_s(SPECS["dinov3"]), given), atol=4e-3)
    np.testing.assert_array_equal(page.names["raw"], page.names["dinov3"].spatial)


def test_the_message_is_the_one_that_the_page_shows(page: PageRun) -> None:
    assert [page.names["message"]] == OUTPUTS


def test_the_dataset_has_every_training_view_in_windows_that_lie_in_the_canvas(page: PageRun) -> None:
    windows, cache, spec = page.names["windows"], page.cache, SPECS["dinov3"]
    assert windows.rows == [0, 1, 2, 3, 4]
    starts = set()
    for index in [*range(len(windows))] * 6:
        row = windows.rows[index]
        pixels, _, shift = windows[index]
        start = np.array(cache.offset(spec, LOW, row)) - shift
        starts.add(tuple(start))
        top, left = 16 * start
        canvas = cache.canvas(LOW, row)
        np.testing.assert_array_equal(pixels, canvas[top : top + 128, left : left + 128].transpose(2, 0, 1))
    assert len(starts) > 5, "windows are drawn anew"


def test_the_loss_is_the_mean_over_the_positions_that_both_windows_hold(page: PageRun) -> None:
    names, losses = page.names, []
    with torch.no_grad():
        mapped = names["token_map"](names["predicted"], names["targets"], names["shift"])
        loss = trainer.spatial_mse(*mapped).item()
    for predicted, target, shift in zip(names["predicted"], names["targets"], names["shift"], strict=True):
        own = TokenAxis(start=0, span=8, tokens=8)
        rows, cols = (match_axis(own, TokenAxis(start=start, span=8, tokens=8)) for start in shift.tolist())
        ours, theirs, common = match_tokens(predicted.detach().numpy(), target.numpy(), rows, cols)
        losses.append(((ours - theirs) ** 2).mean(axis=2)[common].mean())
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert names["loss"].item() == pytest.approx(loss, rel=1e-6)
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


def test_the_student_speaks_raw_teacher_units(page: PageRun) -> None:
    names = page.names
    with torch.no_grad():
        learnt = page.model(names["pixels"], list(SPECS))
    for name, spec in SPECS.items():
        phi_s = page.cache.phi_s(spec)
        stored = to_stored(phi_s, names["output"].spatial[name].numpy())
        np.testing.assert_allclose(stored, learnt.spatial[name].numpy(), atol=1e-4)
    torch.testing.assert_close(names["output"].summary["dinov3"], learnt.summary["dinov3"])
    assert names["output"].student.spatial.shape == (1, 8, 8, learnt.student.spatial.shape[3])


def test_the_similarity_is_that_of_tokens_of_the_same_window(page: PageRun) -> None:
    ours, theirs = page.names["output"].spatial["dinov3"][0].numpy(), page.names["dinov3"].spatial
    lengths = np.linalg.norm(ours, axis=2) * np.linalg.norm(theirs, axis=2)
    assert page.names["similarity"].item() == pytest.approx(((ours * theirs).sum(axis=2) / lengths).mean(), abs=1e-5)
