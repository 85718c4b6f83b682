"""The pages beside the code name what there is; hooks and versions agree with the Makefile and pyproject.toml."""

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".github/pull_request_template.md"]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []


def test_every_path_that_a_contributor_is_sent_to_exists() -> None:
    folders = "docs|pipeline|storage_schemas|teachers|tests|trainer"
    named = re.findall(rf"`((?:{folders})/[\w./]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_hooks_before_a_commit_run_what_make_check_runs() -> None:
    check = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0].splitlines()[1:]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    made = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in check]
    assert [hook["entry"].removesuffix(" --force-exclude") for hook in hooks] == made
    assert len(made) == 3


def test_the_changelog_goes_back_from_what_is_unreleased_to_the_first_version() -> None:
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - (\d{4}-\d\d-\d\d)", head) for head in heads[1:]]
    order = [(date.fromisoformat(head[4]), tuple(map(int, head.groups()[:3]))) for head in released if head]
    assert len(order) == len(released) > 0
    assert order == sorted(order, reverse=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert order[0][1] < tuple(map(int, version.removesuffix(".dev0").split(".")))


def test_every_kind_of_change_in_the_changelog_is_one_that_readers_know() -> None:
    kinds = re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("package", ["pipeline", "storage_schemas", "teachers", "trainer"])
def test_each_package_tells_type_checkers_that_it_is_typed(package: str) -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert (ROOT / package / "py.typed").exists()
    assert "py.typed" in shipped[package]
