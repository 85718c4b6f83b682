"""Caches of version 0.1 record no rules for images. They keep their identity, and the rules that made them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import UNRECORDED, Recipe, RunConfig, TeacherChoice, ViewsConfig, views_settings
from pipeline.features.extraction import Extraction, StoredFeatures
from pipeline.views.extension import stored_config, under_rules_of
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError
from storage_schemas.format.identity import digest
from storage_schemas.format.views import UNIFORM
from storage_schemas.objects.store import Store

DEFAULTS_OF_0_1 = "6fd4ca59f3f0a9860bbd7b74815256c4788c9df0180ef2b0f16361e6ad6cb704"
"""Digest of the default settings as version 0.1 recorded them, computed by that version."""
RECIPE = Recipe(
    name="old", views=ViewsConfig(low=(64,), high=(), min_side=8, tokens_per_shard=64, canvas_tokens=0, heldout=0)
)


def cut(where: Path, data: Path, *, extend: bool = False, **settings: Any) -> list[str]:
    """Cut views with the settings of `RECIPE` but for those named; return what was said."""
    said: list[str] = []
    recipe = replace(RECIPE, views=replace(RECIPE.views, **settings))
    cache = Cache(store=Store(uri=str(where)))
    make_views(cache, recipe, [], str(data), RunConfig(executor="local"), said.append, extend=extend)
    return said


def recorded(where: Path) -> list[dict[str, Any]]:
    """The settings that each generation of a cache records."""
    attributes = json.loads((where / "features.zarr/views/zarr.json").read_text())["attributes"]
    text = json.dumps(attributes)
    manifest = Cache(store=Store(uri=str(where))).manifests([]).views
    assert manifest is not None
    assert text.count('"rules"') == sum("rules" in generation.views for generation in manifest.generations)
    return [dict(generation.views) for generation in manifest.generations]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight JPEGs, one of them without its second half."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(8):
        colours = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((160, 120)).save(folder / f"{number}.jpg", quality=90)
    body = (folder / "3.jpg").read_bytes()
    (folder / "3.jpg").write_bytes(body[: len(body) // 2] + b"\xff\xd9")
    return folder


def objects(where: Path) -> dict[str, bytes]:
    """The bytes of every object of a cache."""
    return {str(path.relative_to(where)): path.read_bytes() for path in where.rglob("*") if path.is_file()}


def test_the_identity_of_settings_of_version_0_1_is_theirs() -> None:
    settings = views_settings(ViewsConfig(**UNRECORDED))
    assert not settings.keys() & UNRECORDED.keys()
    assert digest(settings) == DEFAULTS_OF_0_1
    assert stored_config(settings) == ViewsConfig(**UNRECORDED)
    assert stored_config(views_settings(ViewsConfig())) == ViewsConfig()


def test_a_cache_of_version_0_1_keeps_its_shifts_though_its_recipe_has_others_today(tmp_path: Path, data: Path) -> None:
    cut(tmp_path / "cache", data, rules="0.1")
    cut(tmp_path / "new", data, rules="lenient")
    today = replace(RECIPE, views=replace(RECIPE.views, shifts="rounded-normal", shift_sd=0.7))
    old, new = (Cache(store=Store(uri=str(tmp_path / name))).manifests([]).views for name in ("cache", "new"))
    assert old is not None
    kept = under_rules_of(old, today).views
    assert (kept.shifts, kept.shift_sd) == ("uniform", 0.5)
    assert under_rules_of(new, today) == today
    extraction = Extraction(
        cache=Cache(store=Store(uri=str(tmp_path / "cache"))),
        recipe=today,
        choice=TeacherChoice(name="t", source="dinov3-tiny", weights="random:1"),
        maps=(),
        views=old,
        tokens={},
        stored=StoredFeatures(manifests={}, committed={}),
    )
    assert extraction.worker(RunConfig()).keywords["shifts"] == UNIFORM
    with pytest.raises(IdentityError, match="shifts"):
        cut(tmp_path / "new", data, rules="lenient", shifts="rounded-normal")


def test_a_cache_of_version_0_1_is_finished_to_the_same_bytes_by_a_recipe_of_today(tmp_path: Path, data: Path) -> None:
    cut(tmp_path / "cache", data, rules="0.1")
    whole = objects(tmp_path / "cache")
    commits = list((tmp_path / "cache/tables/shards").rglob("*.parquet"))
    assert len(commits) > 1
    for path in commits:
        path.unlink()
    cut(tmp_path / "cache", data)
    assert objects(tmp_path / "cache") == whole
    assert recorded(tmp_path / "cache") == [views_settings(replace(RECIPE.views, rules="0.1"))]


def test_a_cache_of_version_0_1_is_extended_under_its_rules(tmp_path: Path, data: Path) -> None:
    cut(tmp_path / "cache", data, rules="0.1")
    cut(tmp_path / "cache", data, extend=True, draws=2)
    rules = replace(RECIPE.views, rules="0.1")
    assert recorded(tmp_path / "cache") == [views_settings(rules), views_settings(replace(rules, draws=2))]


def test_a_new_cache_records_its_rules_and_keeps_to_them(tmp_path: Path, data: Path) -> None:
    cut(tmp_path / "cache", data, rules="lenient")
    assert [settings["rules"] for settings in recorded(tmp_path / "cache")] == ["lenient"]
    with pytest.raises(IdentityError, match=r'views\.rules: the cache has "lenient", this run has "strict"'):
        cut(tmp_path / "cache", data)
