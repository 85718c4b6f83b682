"""`inspect` says which files of DATA the listing that last added views passed over."""

from dataclasses import replace
from pathlib import Path

import pytest
from stage_runs import LOCAL, write_colours

from pipeline.config import Recipe, ViewsConfig
from pipeline.inspect.cache import inspect_cache
from pipeline.inspect.text import cache_lines
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.layout import FEATURES
from storage_schemas.objects.store import Store

RECIPE = Recipe(name="holes", views=ViewsConfig(low=(32,), high=(), draws=1, canvas_tokens=2), teachers=())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images, a hidden file and two tables."""
    folder = write_colours(tmp_path / "images", 3)
    for name in (".DS_Store", "a.json", "b.json"):
        (folder / name).write_bytes(b"{}")
    return folder


def cut(cache: Cache, data: Path, *, extend: bool = False) -> None:
    make_views(cache, RECIPE, [], str(data), replace(LOCAL, report=""), lambda _: None, extend=extend)


def test_inspect_says_what_the_listing_that_last_added_views_passed_over(tmp_path: Path, data: Path) -> None:
    cache = Cache(store=Store(uri=str(tmp_path / "cache")))
    cut(cache, data)
    before = (tmp_path / "cache" / FEATURES / "views/zarr.json").read_bytes()
    assert inspect_cache(cache).passed_over == {"hidden files": 1, "other files": 2}
    assert "passed over in DATA: 1 hidden files; 2 other files" in list(cache_lines(inspect_cache(cache)))

    (data / "c.json").write_bytes(b"{}")
    cut(cache, data)
    assert (tmp_path / "cache" / FEATURES / "views/zarr.json").read_bytes() == before, "nothing was added"

    (data / "000-new.png").write_bytes(next(data.glob("*.png")).read_bytes())
    cut(cache, data, extend=True)
    assert inspect_cache(cache).passed_over == {"hidden files": 1, "other files": 3}
