"""The table of timm's families as students, in Markdown, and its place in a page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.publish import write_whole
from trainer.student.families import FamilyTrial, families, model_of, try_family

BEGIN, END = "<!-- table: student families -->", "<!-- end -->"
"""Comments around the table in a page."""
COLUMNS = (
    "family",
    "student",
    "tried",
    "token (px)",
    "as built (px)",
    "with `--image-size` (px)",
    "why not at others",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"


def tell_families(only: Sequence[str], page: Path | None, say: Callable[[str], None]) -> None:
    """Try families of timm as students; print the table, or write it into a page.

    Args:
        only: families; none for all that timm has.
        page: a Markdown page with the comments `BEGIN` and `END`, or None to print the table. A page gets all families.
        say: receives each line for the user.

    Raises:
        SettingError: there is no such family, or the page has no place for the table.
    """
    known = families()
    if unknown := [name for name in only if name not in known]:
        fix = "`timm.list_modules()` lists all families"
        problems = [Problem(place=name, found="is no family of timm", fix=fix) for name in unknown]
        raise SettingError("families", problems)
    if page is not None:
        with_table(page.read_text(), "")  # before the work of minutes
    rows = []
    for family in only or known:
        rows.append(row(try_family(family, model_of(family))))
        say(rows[-1].strip() if page is None else f"families: {len(rows)} of {len(only or known)}: {family}")
    if page is not None:
        write_whole(page, with_table(page.read_text(), "".join(rows)).encode())


def row(trial: FamilyTrial) -> str:
    """Return a family's row of the table."""
    cells = (
        trial.family,
        f"`{trial.model}`",
        "shapes" if trial.meta else "all",
        str(trial.stride or "–"),
        _sizes(trial.any_size, trial.own_size),
        _sizes(trial.built_size, trial.own_size),
        trial.reason.replace("|", "/"),
    )
    return f"| {' | '.join(cells)} |\n"


def with_table(page: str, rows: str) -> str:
    """Return a page with other rows in its table.

    Raises:
        SettingError: the page has no place for the table.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        found = f"has no place for the table: {BEGIN} … {END}"
        raise SettingError("page", [Problem(place="page", found=found)])
    return f"{before}{BEGIN}\n{HEADER}{rows}{END}{after}"


def _sizes(sizes: Sequence[int], own: int) -> str:
    return ", ".join(f"**{size}**" if size == own else str(size) for size in sizes) or "–"
