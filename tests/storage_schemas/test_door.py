"""What a program imports from `storage_schemas`: every name is there, documented, and comes without torch."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import storage_schemas

ROOT = Path(__file__).parent.parent.parent


def test_every_name_is_imported_for_type_checkers_and_listed_once() -> None:
    tree = ast.parse(Path(storage_schemas.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    checked = [(node.module, alias.name) for node in block.body for alias in node.names]
    assert checked == [(module, name) for module, names in storage_schemas._NAMES.items() for name in names]
    assert sorted(name for _, name in checked) == sorted(storage_schemas.__all__)


@pytest.mark.parametrize("name", storage_schemas.__all__)
def test_a_name_is_what_its_module_defines_and_is_documented(name: str) -> None:
    found = getattr(storage_schemas, name)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert found.__module__ == storage_schemas._HOMES[name]
        assert found.__doc__
        assert not found.__doc__.startswith(f"{name}(")  # what a dataclass says where it is not told


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'storage_schemas' has no attribute 'Cash'"):
        storage_schemas.Cash  # noqa: B018


def test_the_door_loads_no_torch_and_the_package_alone_almost_nothing() -> None:
    program = (
        "import sys, storage_schemas\n"
        "print(*sorted({'numpy', 'pyarrow', 'torch'} & sys.modules.keys()))\n"
        "from storage_schemas import *\n"
        "Cache, ViewReader\n"
        "print(*sorted({'numpy', 'pyarrow', 'torch'} & sys.modules.keys()))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n") == ["", "numpy pyarrow", ""]
