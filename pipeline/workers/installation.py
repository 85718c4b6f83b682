"""The installation of a process: workers on other machines must write the bytes that the driver's machine would."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pipeline
from storage_schemas.format.errors import Problem, SettingError

PACKAGES = ("pipeline", "storage_schemas", "teachers")
"""Our packages that workers run."""
LIBRARIES = ("numpy", "pillow", "pyarrow", "safetensors", "timm", "torch", "torchvision", "transformers")
"""Libraries whose version can change the stored bytes."""

ROOT = Path(pipeline.__file__).parents[1]
"""The folder that holds our packages."""


def installation() -> dict[str, str]:
    """Return version by name: Python, each library (empty where it is not installed), and a digest of our code.

    Build labels are left out, so a CPU build of torch on the driver equals a CUDA build of that version on a worker.
    """
    versions = {name: _version(name).partition("+")[0] for name in LIBRARIES}
    return {"python": platform.python_version(), "stillhouse": code_sha256(PACKAGES)} | versions


def require_same_installation(expected: Mapping[str, str], found: Mapping[str, str], place: str) -> None:
    """Refuse a worker whose installation differs from the driver's.

    Args:
        expected: the driver's.
        found: the worker's.
        place: the worker's machine.

    Raises:
        SettingError: it lists every name that differs, with both versions.
    """
    fix = "install the same on every node; docs/cluster.md"
    problems = [
        Problem(
            place=f"{name} on {place}",
            found=f"is {_shown(found.get(name, ''))}, the driver has {_shown(version)}",
            fix=fix,
        )
        for name, version in expected.items()
        if found.get(name, "") != version
    ]
    if problems:
        raise SettingError("worker", problems)


def _shown(version: str) -> str:
    return version or "not installed"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


@cache
def code_sha256(packages: tuple[str, ...]) -> str:
    """Return a digest of all Python files of some of our packages."""
    code = hashlib.sha256()
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        body = path.read_bytes()
        code.update(f"{path.relative_to(ROOT).as_posix()}\0{len(body)}\0".encode() + body)
    return code.hexdigest()[:16]
