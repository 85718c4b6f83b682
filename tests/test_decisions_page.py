"""`docs/decisions/README.md` lists every decision by number and title, and says which numbers were never given."""

import re
from pathlib import Path

DECISIONS = Path(__file__).parent.parent / "docs" / "decisions"
ROWS = re.findall(r"^\| (\d+) \| (.+) \|$", (DECISIONS / "README.md").read_text(), re.MULTILINE)
NEVER_GIVEN = "(never given: no page in the history of this repository has this number)"


def test_the_index_counts_from_one_without_a_gap() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, len(ROWS) + 1))


def test_the_index_links_every_page_under_its_number_and_title() -> None:
    pages = [path for path in DECISIONS.glob("*.md") if path.name != "README.md"]
    titles = {int(page.name[:4]): page.read_text().splitlines()[0].removeprefix("# ") for page in pages}
    assert len(titles) == len(pages) > 20
    linked = {f"[{titles[int(page.name[:4])]}]({page.name})": int(page.name[:4]) for page in pages}
    assert {cell: int(number) for number, cell in ROWS if cell != NEVER_GIVEN} == linked
