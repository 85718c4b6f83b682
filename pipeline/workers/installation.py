"""What a process runs on: another machine's workers must give the bytes that this machine's would."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pipeline
from storage_schemas.format.errors import Problem, SettingError

PACKAGES = ("pipeline", "storage_schemas", "teachers")
"""Our own packages that take part."""
LIBRARIES = ("numpy", "pillow", "pyarrow", "safetensors", "timm", "torch", "torchvision", "transformers")
"""Libraries whose version can move what is stored."""

ROOT = Path(pipeline.__file__).parents[1]
"""The folder that our packages lie in."""


def installation() -> dict[str, str]:
    """Return versions by name: of Python, of each library (empty where there is none), and a digest of our code.

    A build's label does not count: torch for CPUs on the driver and for CUDA on the workers are one version.
    """
    versions = {name: _version(name).partition("+")[0] for name in LIBRARIES}
    return {"python": platform.python_version(), "stillhouse": code_sha256(PACKAGES)} | versions


def require_same_installation(expected: Mapping[str, str], found: Mapping[str, str], place: str) -> None:
    """Refuse a worker's installation that is not the driver's.

    Args:
        expected: the driver's.
        found: the worker's.
        place: the worker's machine.

    Raises:
        SettingError: with every name that differs, and both values.
    """
    fix = "install the same on every node; docs/cluster.md"
    problems = [
        Problem(place=f"{name} on {place}", found=f"{found.get(name, '') or 'none'}, here {value or 'none'}", fix=fix)
        for name, value in expected.items()
        if found.get(name, "") != value
    ]
    if problems:
        raise SettingError("worker", problems)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


@cache
def code_sha256(packages: tuple[str, ...]) -> str:
    """Return a digest of the code of some of our packages."""
    code = hashlib.sha256()
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        body = path.read_bytes()
        code.update(f"{path.relative_to(ROOT).as_posix()}\0{len(body)}\0".encode() + body)
    return code.hexdigest()[:16]
