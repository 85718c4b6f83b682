"""The same views, byte for byte, whatever the form and the order of the images, and whoever cuts what when."""

import io
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_forms import write_list, write_parquet, write_tar
from PIL import Image
from stage_runs import LOCAL, contents, own

from pipeline.config import Recipe, ViewsConfig
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.views import opening, worker
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.layout import views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardWriter

RECIPE = Recipe(
    name="inputs",
    views=ViewsConfig(low=(128,), high=(256,), high_share=0.3, tokens_per_shard=600, canvas_tokens=24, heldout=0.2),
    teachers=(own("teachers.quarter_mean:QuarterMeanFixed"),),
)
LIST = "tables/images/00000.parquet"


def bodies() -> dict[str, bytes]:
    """JPEGs of which some are large enough to be decoded at a half or a quarter, and PNGs, by key."""
    made = {}
    for number in range(24):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        size = (1900 - 70 * number, 1500 - 50 * number)
        body, (form, suffix) = io.BytesIO(), (("PNG", "png") if number % 6 == 5 else ("JPEG", "jpg"))
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(body, form)
        made[f"{'ab'[number % 2]}/{number:03d}.{suffix}"] = body.getvalue()
    return made


BODIES = bodies()
SHUFFLED = random.Random(1).sample(sorted(BODIES), len(BODIES))


def as_folder(root: Path) -> str:
    """Files in folders."""
    for key, body in BODIES.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(body)
    return str(root)


def as_tars(root: Path) -> str:
    """Tars of the images in another order."""
    for number in range(3):
        write_tar(root / f"{number}.tar", {key: BODIES[key] for key in SHUFFLED[number::3]})
    return f"{root}/*.tar"


def as_parquet(root: Path) -> str:
    """A Parquet file of the images in another order."""
    rows = [{"image": {"bytes": BODIES[key], "path": key}} for key in SHUFFLED]
    return str(write_parquet(root / "train.parquet", rows))


def as_list(root: Path) -> str:
    """A list of the images in another order."""
    as_folder(root)
    return str(write_list(root / "list.txt", SHUFFLED))


def cut(data: str, where: Path, recipe: Recipe = RECIPE, teachers: bool = True) -> dict[str, str]:
    """Cut the views, and return what is in the cache but for where the images were."""
    specs = [teacher_spec(one) for one in recipe.teachers] if teachers else []
    make_views(Cache(store=Store(uri=str(where))), recipe, specs, data, LOCAL, str)
    return {name: body for name, body in contents(where).items() if name != LIST}


@pytest.fixture(scope="module")
def from_folder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is cut from a folder."""
    root = tmp_path_factory.mktemp("folder")
    return cut(as_folder(root / "images"), root / "cache")


@pytest.mark.parametrize("form", [as_tars, as_parquet, as_list])
def test_every_form_in_any_order_gives_the_bytes_that_a_folder_gives(
    from_folder: dict[str, str], form: Callable[[Path], str], tmp_path: Path
) -> None:
    assert cut(form(tmp_path / "images"), tmp_path / "cache") == from_folder


def test_a_cache_that_was_begun_from_a_folder_is_finished_from_tars(
    from_folder: dict[str, str], tmp_path: Path
) -> None:
    where = tmp_path / "cache"
    cut(as_folder(tmp_path / "images"), where)
    (where / "tables/shards/views/low-128/00000.parquet").unlink()
    (where / "features.zarr/views/low-128/pixels/c/0/0/0/0").unlink()
    assert cut(as_tars(tmp_path / "tars"), where) == from_folder


def test_details_cut_after_the_canvases_are_those_cut_with_them(from_folder: dict[str, str], tmp_path: Path) -> None:
    data, where = as_folder(tmp_path / "images"), tmp_path / "cache"
    canvases = cut(data, where, teachers=False)
    assert 0 < len(canvases) < len(from_folder)
    assert cut(data, where) == from_folder


def test_centred_views_show_the_largest_square(tmp_path: Path) -> None:
    views = ViewsConfig(low=(128,), high=(), crop="centre", flip=0, margin=0)
    recipe = Recipe(name="centred", views=views)
    data = as_folder(tmp_path / "images")
    cut(data, tmp_path / "cache", recipe)
    cache = Cache(store=Store(uri=str(tmp_path / "cache")))
    manifest = cache.views_manifest()
    assert manifest is not None
    [view_set] = manifest.sets
    commits = cache.records("views/low-128", manifest.digest)
    for row in cache.views(view_set, commits).to_pylist():
        image = Image.open(Path(data) / row["image"]).convert("RGB")
        side, (width, height) = min(image.size), image.size
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
        expected = np.asarray(image.resize((128, 128), Image.Resampling.BICUBIC, box=box)).astype(int)
        found = cache.array("views/low-128/pixels", commits).read([row["row"]])[0]
        assert np.abs(found - expected).max() <= 3, "some are decoded at a half"


def views_of(cache: Cache) -> ViewsManifest:
    """The manifest of a cache's views."""
    manifest = cache.views_manifest()
    assert manifest is not None
    return manifest


def rejection_reasons(cache: Cache) -> set[str]:
    """The reasons for which views of a cache were rejected."""
    manifest = views_of(cache)
    records = {view_set: cache.records(views_unit(view_set), manifest.digest) for view_set in manifest.sets}
    tables = [cache.rejected(view_set, commits) for view_set, commits in records.items()]
    return {reason for table in tables for reason in table["reason"].to_pylist()}


APPEND_ALL = ShardWriter.append_all


def slowly_append_all(writer: ShardWriter, entries: Iterable[np.ndarray]) -> None:
    """Append entries only when those after them have had time to be cut."""
    time.sleep(0.05)
    APPEND_ALL(writer, entries)


def test_it_makes_no_difference_how_many_are_opened_and_handed_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = Path(as_folder(tmp_path / "images")), replace(LOCAL, max_rejected=0.9)
    for number, key in enumerate(sorted(BODIES)[3::5]):
        (folder / key).write_bytes(BODIES[key][: (0, 3000)[number % 2]])  # seen when opened, or only when decoded
    specs, made = [teacher_spec(one) for one in RECIPE.teachers], []
    for handed, opened in ((worker.BATCH_BYTES, opening.OPENED_BYTES), (1, 1), (600_000, 10**9), (1, 10**9)):
        monkeypatch.setattr(worker, "BATCH_BYTES", handed)
        monkeypatch.setattr(opening, "OPENED_BYTES", opened)
        where = tmp_path / f"cache-{len(made)}"
        make_views(Cache(store=Store(uri=str(where))), RECIPE, specs, str(folder), run, lambda _: None)
        made.append(contents(where))
        monkeypatch.setattr(ShardWriter, "append_all", slowly_append_all)
    assert made[1:] == made[:1] * 3
    cache = Cache(store=Store(uri=str(tmp_path / "cache-0")))
    assert rejection_reasons(cache) == {"empty", "damaged"}
