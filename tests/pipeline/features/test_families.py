"""The table of timm's families in `docs/students.md` is what trying them gives."""

from pathlib import Path

import pytest
from timm.models import list_modules

from pipeline.features.families import HEAD, MARKERS, family_rows, refreshed
from storage_schemas.timm_families import FAMILIES
from teachers.table import markdown

PAGE = (Path(__file__).parents[3] / "docs" / "students.md").read_text()
FEW = ("starnet", "levit", "csatv2", "pit")
SAMPLE = (
    *("byoanet", "cait", "coat", "convnext", "crossvit", "efficientformer_v2", "efficientnet", "efficientvim"),
    *("eva", "ghostnet", "hiera", "inception_v3", "mambaout", "mobilevit", "mvitv2", "naflexvit", "nfnet", "resnet"),
    *("tiny_vit", "vision_transformer", "vision_transformer_relpos", "volo", "xcit"),
)


def rows_of_the_page() -> dict[str, str]:
    [match] = MARKERS.finditer(PAGE)
    return {line.split(" | ")[0].removeprefix("| "): line for line in match[0].splitlines()[1:-1]}


def test_the_page_has_one_row_for_every_module_of_timm() -> None:
    rows = rows_of_the_page()
    assert list(rows)[2:] == list(FAMILIES)
    assert set(FAMILIES) == set(list_modules())
    works = [row for row in rows.values() if row.endswith((" runs |", " M parameters |"))]
    assert len(works) > 0.8 * len(FAMILIES)


@pytest.mark.parametrize("families", [FEW, pytest.param(SAMPLE, marks=pytest.mark.slow)])
def test_rows_of_the_page_are_those_of_a_fresh_run(families: tuple[str, ...]) -> None:
    fresh = markdown(family_rows(families)).splitlines()[2:]
    assert fresh == [rows_of_the_page()[family] for family in families]


def test_a_page_keeps_everything_but_the_table() -> None:
    page = (
        "a\n<!-- table: teacher families -->\nold\n<!-- end -->\nb\n<!-- table: student families -->\nc\n<!-- end -->\n"
    )
    changed = refreshed(page, [HEAD])
    assert changed == page.replace("old\n", markdown([HEAD]))
