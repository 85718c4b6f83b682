"""The tables and the example in the documentation are those of the code."""

import re
import sys
from pathlib import Path

import pytest
import torch

from teachers.build import build_teacher
from teachers.catalogue import CATALOGUE
from teachers.source import spec_of
from teachers.table import TABLES, markdown, refreshed, shape_rows, terminal_table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_of_the_teachers_page_are_those_of_the_catalogue():
    page = (DOCS / "teachers.md").read_text()
    blocks = dict(re.findall(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", page, flags=re.DOTALL))
    assert set(blocks) == set(TABLES)
    for name in set(TABLES) - {"costs"}:
        assert blocks[name] == markdown(TABLES[name]()), "run `python -m teachers.table docs/teachers.md`"


@pytest.mark.slow
def test_the_costs_on_the_teachers_page_are_those_that_are_counted():
    page = (DOCS / "teachers.md").read_text()
    assert refreshed(page) == page, "run `python -m teachers.table docs/teachers.md`"


@pytest.mark.slow
def test_the_terminal_s_table_has_a_line_for_each_teacher_in_columns():
    heading, *lines = terminal_table().splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert lines[5].split()[:3] == ["dinov3-7b", "4096", "4096"]
    assert lines[5].split()[-5:] == ["6,716.0", "M", "3.55", "10.2", "87.3"]
    assert {line.find(entry.spec.licence) for line, entry in zip(lines, CATALOGUE.values(), strict=True)} == {
        heading.index("licence")
    }


def test_a_row_says_what_a_teacher_accepts_and_returns():
    rows = {row[0]: row for row in shape_rows()}
    assert rows["sam3"][1:] == ("1024", "none", "14", "0", "only 1008 (canvas)", "bf16-autocast", "SAM License")
    assert rows["dinov3-7b"][1:] == ("4096", "4096", "16", "5", "multiples of 16", "bf16", "DINOv3 License")


def test_the_example_of_a_users_own_teacher_runs_and_equals_the_one_that_comes_with_stillhouse(tmp_path, monkeypatch):
    code, _upsampler = re.findall(r"```python\n(.*?)```", (DOCS / "adding_a_teacher.md").read_text(), flags=re.DOTALL)
    (tmp_path / "example_teacher.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        own = build_teacher("example_teacher:QuarterMean", weights="own")
    finally:
        sys.modules.pop("example_teacher", None)
    shipped = build_teacher("teachers.quarter_mean:QuarterMean", weights="own")
    images = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    assert own.spec == shipped.spec == spec_of("teachers.quarter_mean:QuarterMean")
    assert torch.equal(own.encode(images).spatial, shipped.encode(images).spatial)
    assert torch.equal(own.encode(images).summary, shipped.encode(images).summary)
