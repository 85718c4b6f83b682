"""The page on reliability names tests that are there."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "reliability.md").read_text()


def test_every_row_names_a_test_and_every_test_is_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and line.count("|") == 4]
    told = [re.findall(r"`(test_\w+)`", row.split("|")[3]) for row in rows if not re.match(r"\|[- |]+$|\| what", row)]
    there = {
        name for file in HERE.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert len(told) > 15
    assert all(told)
    assert {name for names in told for name in names} <= there
