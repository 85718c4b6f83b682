"""Make a page of the API reference for each package and each room: its docstring, and its door modules.

MkDocs calls `on_files`. Rooms are found in the source, so that the reference names each of them without a list.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from properdocs.config.defaults import ProperDocsConfig
from properdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGES = ("storage_schemas", "teachers", "pipeline", "trainer")


def on_files(files: Files, config: ProperDocsConfig) -> Files:
    """Add the pages of the reference to those of the folder."""
    for package in PACKAGES:
        for room in rooms(ROOT / package):
            name = ".".join(room.relative_to(ROOT).parts)
            files.append(File.generated(config, f"reference/{name}.md", content=page(name, room)))
    return files


def rooms(package: Path) -> Iterator[Path]:
    """Name a package and its sub-packages, each before those inside it."""
    return (init.parent for init in sorted(package.rglob("__init__.py")))


def page(name: str, room: Path) -> str:
    """Return a room's page: one directive for the room, then one for each door module."""
    lines = [f"# {name}", f"::: {name}\n    options:\n      heading_level: 2\n      show_root_heading: false"]
    lines += [f"::: {name}.{module}" for module in door(room)]
    return "\n\n".join(lines) + "\n"


def door(room: Path) -> list[str]:
    """Name the modules of a room that others may import: those of its `Door:` line, or all where it has none."""
    modules = sorted(path.stem for path in room.glob("*.py") if not path.stem.startswith("_"))
    said = re.search(
        r"^Door: ([a-z0-9_, ]+)\.$", ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "", re.M
    )
    named = said[1].split(", ") if said else ["all of it"]
    return modules if named == ["all of it"] else named
