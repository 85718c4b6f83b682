"""The table of timm's families as students: made by trying them, whole, and written into its page."""

from pathlib import Path

import pytest
import torch

from storage_schemas.format.errors import SettingError
from trainer.__main__ import main
from trainer.report.families_table import BEGIN, END, HEADER, row, with_table
from trainer.student import families
from trainer.student.families import FamilyTrial, model_of, try_family

PAGE = (Path(__file__).parents[2] / "docs" / "students.md").read_text()
ROWS = PAGE.partition(f"{BEGIN}\n{HEADER}")[2].partition(END)[0].splitlines(keepends=True)


def trial(family: str, model: str) -> FamilyTrial:
    return try_family(family, model)


def test_a_family_of_any_size_one_of_built_sizes_and_one_of_none_are_told_apart() -> None:
    convnext = trial("convnext", "test_convnext")
    assert (convnext.any_size, convnext.built_size, convnext.stride, convnext.reason) == ((128, 160, 256), (), 32, "")
    convit = trial("convit", "convit_tiny")
    assert (convit.any_size, convit.built_size, convit.stride) == ((224,), (128, 256), 16)
    crossvit = trial("crossvit", "crossvit_tiny_240")
    assert (crossvit.any_size, crossvit.built_size, crossvit.stride) == ((), (), None)
    assert crossvit.reason.startswith("128 px: has two token grids, of different sizes")


def test_a_student_that_does_not_learn_works_at_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda tensor: torch.zeros_like(tensor))
    found = trial("convnext", "test_convnext")
    assert (found.any_size, found.reason) == ((), "128 px: it does not learn: no gradient, or one that is not finite")


def test_of_a_large_model_the_shapes_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "LARGEST", 1)
    found = trial("vision_transformer", "test_vit")
    assert (found.meta, found.any_size, found.stride) == (True, (128, 160, 256), 16)


def test_the_page_has_every_family_of_timm_and_its_model() -> None:
    listed = [line.split(" | ")[:2] for line in ROWS]
    assert listed == [[f"| {family}", f"`{model_of(family)}`"] for family in families.families()]
    assert len(listed) > 90


@pytest.mark.parametrize("family", ["starnet", "crossvit", "efficientvim"])
def test_rows_of_the_page_are_what_trying_the_family_gives(family: str) -> None:
    assert row(try_family(family, model_of(family))) in ROWS


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_all_rows_of_the_page_are_what_trying_every_family_gives() -> None:
    assert [row(try_family(family, model_of(family))) for family in families.families()] == ROWS


def test_the_command_prints_rows_and_refuses_what_is_no_family_or_has_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["families", "--families", "starnet"]) == 0
    assert capsys.readouterr().out in ROWS
    assert main(["families", "--families", "convnet"]) == 2
    assert "convnet: is no family of timm" in capsys.readouterr().err
    (tmp_path / "page.md").write_text("no table")
    assert main(["families", "--page", str(tmp_path / "page.md")]) == 2
    assert "has no place for the table" in capsys.readouterr().err


def test_a_table_is_replaced_and_the_rest_of_the_page_stays() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter"
    assert with_table(page, "| new |\n") == f"before\n{BEGIN}\n{HEADER}| new |\n{END}\nafter"
    with pytest.raises(SettingError):
        with_table("before", "")
