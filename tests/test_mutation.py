"""Faults planted one at a time in modules that could do harm without a message are seen: mutmut plants them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pytest
from environments import installed_environment

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
EQUIVALENT: dict[str, list[dict[str, str]]] = tomllib.loads((ROOT / "tests/equivalent_mutants.toml").read_text())
LEAST_SCORE = 0.95


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A planted fault: one line of one function."""

    name: str
    """Module, function and number, as mutmut writes them."""
    line: str
    becomes: str

    @property
    def function(self) -> str:
        """Module and function, as mutmut writes them."""
        return self.name.rpartition("__mutmut_")[0]


def is_equivalent(mutant: Mutant) -> bool:
    """Return whether the list of equivalent mutants has a reason for this one."""
    entries = EQUIVALENT["line"]
    listed = any((entry["line"], entry["becomes"]) == (mutant.line, mutant.becomes) for entry in entries)
    unplanted = any(entry["function"] == mutant.function for entry in EQUIVALENT["unplanted"])
    return listed or unplanted or plain(mutant.line) == plain(mutant.becomes)


def plain(line: str) -> str:
    """Return a line without what the kinds of equivalent mutants leave out."""
    for kind in EQUIVALENT["kind"]:
        line = re.sub(kind["what"], kind["becomes"], line)
    return line


@pytest.mark.parametrize("entry", EQUIVALENT["line"], ids=lambda entry: entry["becomes"][:60])
def test_each_equivalent_mutant_names_a_line_that_is_there(entry: dict[str, str]) -> None:
    lines = {line.strip() for module in SETTINGS["only_mutate"] for line in (ROOT / module).read_text().splitlines()}
    assert entry["line"] in lines, "the line was changed: is the fault still equivalent?"


def test_every_kind_of_equivalent_mutant_has_its_reason() -> None:
    assert set(EQUIVALENT) == {"kind", "line", "unplanted"}
    assert all(entry["why"] for entries in EQUIVALENT.values() for entry in entries)


def test_a_fault_is_not_equivalent_because_of_another() -> None:
    sound = 'total = np.einsum("ij,j->i", left.astype(np.float64), right, optimize=True) + 1'
    unseen = Mutant(name="m.x_f__mutmut_1", line=sound, becomes=sound.replace("float64", "float32"))
    assert not is_equivalent(unseen)
    assert is_equivalent(Mutant(name="m.x_f__mutmut_2", line=sound, becomes=sound.replace(", optimize=True", ", ")))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mutmut:
    """The tool, in a copy of the project."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> str:
        """Run a command of mutmut and return what it prints."""
        command = [sys.executable, "-m", "mutmut", *arguments]
        ran: Any = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        return str(ran.stdout)

    def unseen(self) -> Iterator[Mutant]:
        """Yield the faults that no test has seen."""
        for name in re.findall(r"^\s*(\S+): (?:survived|no tests|suspicious)$", self.run("results"), re.M):
            change = self.run("show", name)
            removed, added = (re.findall(rf"^[{sign}](?![{sign}])(.*)$", change, re.M) for sign in "-+")
            yield Mutant(name=name, line=" ".join(map(str.strip, removed)), becomes=" ".join(map(str.strip, added)))


@pytest.fixture
def mutmut(tmp_path: Path) -> Mutmut:
    """The tool beside a copy of the project: it writes into the folder that it works in."""
    for name in ("docs", "tests", *SETTINGS["source_paths"]):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    home = installed_environment("mutation", ["mutmut==3.8.1"], (ROOT / "constraints.txt").read_text()).parent
    [packages] = home.glob("lib/python*/site-packages")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return Mutmut(folder=tmp_path, environment={**kept, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_planted_faults_are_seen(mutmut: Mutmut) -> None:
    planted = int(re.findall(r"(\d+)/\1 ", mutmut.run("run"))[-1])
    survivors = list(mutmut.unseen())
    unseen = [mutant for mutant in survivors if not is_equivalent(mutant)]
    faults = planted - (len(survivors) - len(unseen))
    score = 1 - len(unseen) / faults
    listed = "\n".join(f"{mutant.name}\n  {mutant.line}\n  {mutant.becomes}" for mutant in unseen)
    print(f"{planted} planted, {planted - faults} equivalent, {faults - len(unseen)} of {faults} seen\n{listed}")
    assert score >= LEAST_SCORE, f"{score:.3f}\n{listed}"
