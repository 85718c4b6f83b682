"""The lowest versions that `pyproject.toml` admits work: each is installed, and tests run under all of them."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import installed_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints-lowest.txt").read_text()
PINS = {canonicalize_name(name): Version(pin) for name, pin in re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS, re.M)}
LOWEST_PYTHON = (3, 11)
RUN = (
    "tests/storage_schemas/format/test_shard_format.py",
    "tests/storage_schemas/test_other_readers.py",
    "tests/storage_schemas/test_cache.py",
    "tests/teachers",
    "tests/pipeline/images",
    "tests/pipeline/stages/test_ray.py",
    "tests/pipeline/stages/test_real_teachers.py",
    "tests/reliability/test_s3.py",
    "tests/trainer/test_downstream_classification.py",
    "tests/trainer/test_train.py",
    "tests/trainer/test_portable.py",
    "tests/trainer/test_running.py",
)
"""Tests whose outcome depends on libraries: other readers of Zarr, teachers beside their authors' code, image decoders,
Ray, an S3 server, Lightning, ONNX, loggers, scikit-learn."""
KNOWN = (
    # Ray 2.54 leaves /dev/null open where its own class for tests starts a cluster
    *("-W", "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
    # Pillow 11.3 calls deprecated what Pillow 12 and 13 do not: tests make images of several modes
    *("-W", "ignore:'mode' parameter is deprecated:DeprecationWarning"),
    # transformers' SAM3 video, which only a test of ours imports, is compiled by what this torch calls deprecated
    *("-W", "ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    # torch.export and torch.onnx of torch 2.10 warn of what they do themselves
    *("-W", "ignore:The given buffer is not writable:UserWarning"),
    *("-W", "ignore:`isinstance(treespec, LeafSpec)` is deprecated:FutureWarning"),
)
"""Warnings of the lowest versions among themselves; all others are errors."""
EVERY_MODULE = """
import importlib, pkgutil, warnings
warnings.simplefilter("error")
for package in map(importlib.import_module, ("storage_schemas", "teachers", "pipeline", "trainer")):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def requirements() -> Iterator[Requirement]:
    """Name every direct dependency, those of all extras too."""
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        yield from map(Requirement, group)


def lowest(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement admits."""
    [least] = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    return least


def test_each_dependency_has_one_lowest_version_and_the_constraints_pin_it() -> None:
    admitted = {(canonicalize_name(requirement.name), lowest(requirement)) for requirement in requirements()}
    assert len(admitted) > 40
    assert {(name, PINS.get(name)) for name, _ in admitted} == admitted


@pytest.fixture(scope="module")
def python() -> Path:
    """Install the lowest versions, and return the Python that has them."""
    if sys.version_info[:2] != LOWEST_PYTHON:
        pytest.skip("the lowest versions are those for the lowest Python, 3.11")
    return installed_environment("lowest", sorted(map(str, requirements())), CONSTRAINTS) / "python"


def run(python: Path, *arguments: str) -> str:
    """Run that Python in the folder of the project, and return what it prints."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    alone["PYTHONPATH"] = str(ROOT)  # the project itself is not installed there: clones share the environment
    ended = subprocess.run([python, *arguments], cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-20_000:]}\n{ended.stderr[-20_000:]}"
    return ended.stdout


@pytest.mark.slow
def test_the_lowest_versions_are_what_is_installed(python: Path) -> None:
    names = sorted({canonicalize_name(requirement.name) for requirement in requirements()})
    program = f"from importlib.metadata import version\nprint(*map(version, {names}))"
    assert [Version(found).base_version for found in run(python, "-c", program).split()] == [
        PINS[name].base_version for name in names
    ]


@pytest.mark.slow
def test_every_module_is_imported_without_a_warning_under_the_lowest_versions(python: Path) -> None:
    run(python, "-c", EVERY_MODULE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tests_pass_under_the_lowest_versions(python: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--timeout=1200", "--tb=short", *KNOWN)
    said = run(python, "-m", "pytest", *options, *RUN)
    [passed] = re.findall(r"^(\d+) passed", said, re.M)
    assert int(passed) > 400


@pytest.mark.slow
def test_the_pages_are_built_under_the_lowest_versions(python: Path, tmp_path: Path) -> None:
    run(python, "-m", "properdocs", "build", "--strict", "--site-dir", str(tmp_path))
    assert (tmp_path / "index.html").exists()
