"""`docs/recipes.md` says what the recipes of the papers are: every row is compared with both recipes."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipes import RECIPES as CACHE_RECIPES
from trainer.recipes import RECIPES as TRAIN_RECIPES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "recipes.md").read_text()
NAMES = ("c_radio_v4", "radio_v2_5")
SOURCE = re.compile(
    r"not published|v4 (section|sections|eq|eqs|table) .+|v2\.5 (section|eq|table|listing) .+|NVlabs/RADIO(#\d+|, code)"
    r"|NVIDIA TAO, code|PHI-S table \d+|published (configuration|weights)"
)
OF_NO_PAPER = {"name", "image_size", "patience", "seed", "data.teachers"}
"""Settings of training that no paper can have."""
OF_VIEWS = {"low", "high", "low_proportions", "high_proportions", "high_share", "canvas_tokens", "patch", "shifts"} | {
    "shift_sd",
    "margin",
    "crop",
    "area",
    "aspect",
    "flip",
}
"""Settings of views that a paper can have: the others say how images are read and shards are sized."""


def rows_under(heading: str) -> list[list[str]]:
    """The rows of the table under a heading, cell by cell, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


CACHE, TRAINING, OTHERS = (rows_under(name) for name in ("The cache", "Training", "What is not a setting"))


def leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The full names of all settings; a table that a user fills, such as proportions, is one."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def value_of(recipe: Any, setting: str) -> Any:
    """A setting of a recipe, as JSON has it; of teachers, that of each."""
    value: Any = json.loads(json.dumps(asdict(recipe)))
    for name in setting.split("."):
        value = [teacher[name] for teacher in value] if isinstance(value, list) else value[name]
    return value


@pytest.mark.parametrize("row", [*CACHE, *TRAINING], ids=lambda row: row[0])
def test_every_setting_of_the_table_is_that_of_the_recipe(row: list[str]) -> None:
    recipes = CACHE_RECIPES if row in CACHE else TRAIN_RECIPES
    for name, cell in zip(NAMES, (row[3], row[6]), strict=True):
        assert json.loads(cell.strip("`")) == value_of(recipes[name](), row[0].strip("`"))


def test_the_tables_have_every_setting_that_a_paper_can_have() -> None:
    listed = [row[0].strip("`") for row in (*CACHE, *TRAINING)]
    assert len(set(listed)) == len(listed)
    training = set(leaves(asdict(TRAIN_RECIPES["c_radio_v4"]()))) - OF_NO_PAPER
    expected = {name for name in training if not name.startswith("running.")}
    assert {row[0].strip("`") for row in TRAINING} == expected
    assert {row[0].strip("`") for row in CACHE} == {f"views.{name}" for name in OF_VIEWS} | {
        "teachers.source",
        "teachers.tiles",
    }


@pytest.mark.parametrize("row", [*CACHE, *TRAINING, *OTHERS], ids=lambda row: row[0])
def test_every_row_names_its_sources_and_a_test_that_exists(row: list[str]) -> None:
    sources = (row[2], row[5]) if len(row) == 8 else (row[2], row[4])
    assert all(SOURCE.fullmatch(source) for source in sources), sources
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert f"def {row[-1].strip('`')}(" in tests


def test_what_is_called_unpublished_is_nowhere_given_a_source_of_its_own() -> None:
    for row in (*CACHE, *TRAINING):
        for published, source in ((row[1], row[2]), (row[4], row[5])):
            assert (published == "not published") <= (source == "not published"), row[0]
