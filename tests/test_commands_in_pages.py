"""Commands that the README and the pages show: make has these targets, and the programs take these settings."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro

import pipeline.__main__
import trainer.__main__

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
PROGRAMS = {"pipeline": pipeline.__main__.main, "trainer": trainer.__main__.main}
RUNS_PROGRAM = re.compile(r"-m (pipeline|trainer) (.*?)(?=\)| \|\|| &&| \||;|$)", re.MULTILINE)
LEFT_OUT = "…"
"""Stands for settings that do not matter where it is shown."""


class UnderstoodError(Exception):
    """A program has read its settings; it goes no further."""


def lines_of(page: str) -> Iterator[str]:
    """Yield the lines of the blocks of shell commands of a page, without comments."""
    for block in re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"(^|\s)#.*", "", line).strip()


SHOWN = sorted(
    {line for page in PAGES for line in lines_of(page) if re.search(r"\bmake | -m (pipeline|trainer) ", line)}
)


def made_by(line: str) -> str:
    """Return the commands that a line with make would run."""
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "ARGS")}
    dry = re.sub(r"\bmake ", "make --dry-run --no-print-directory ", line, count=1)
    shown = subprocess.run(["bash", "-c", dry], cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    return re.sub(r"\$\{\w+:\+([^}]*)\}", r"\1", shown.stdout.replace("\\\n", " "))


def test_there_are_commands_to_try() -> None:
    assert len(SHOWN) > 20


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_that_a_page_shows_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    understand: Any = tyro.cli

    def cli(*arguments: Any, **settings: Any) -> None:
        understand(*arguments, **settings)
        raise UnderstoodError

    monkeypatch.setattr(tyro, "cli", cli)
    commands = made_by(line) if re.search(r"\bmake ", line) else line
    run = RUNS_PROGRAM.findall(commands)
    assert run or re.search(r"make (install|test|check|docs)\b", line), commands
    for module, settings in run:
        with pytest.raises(UnderstoodError):
            PROGRAMS[module]([word for word in shlex.split(settings) if word != LEFT_OUT])
