"""Who may import whom, and how modules, classes and settings are written: read from the source, proved to bite."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {
    "storage_schemas": set[str](),
    "teachers": {"storage_schemas"},
    "pipeline": {"storage_schemas", "teachers"},
    "trainer": {"storage_schemas"},
}
"""Package → which others of ours it may import."""
HOMES = {
    "ray": ("pipeline/workers/ray_",),
    "transformers": ("teachers/",),
    "lightning": ("trainer/",),
    "pytorch_lightning": (),
    "torch": ("teachers/", "pipeline/", "trainer/"),
    "torchvision": ("teachers/", "pipeline/", "trainer/"),
    "timm": ("teachers/", "pipeline/", "trainer/"),
    "zarr": ("pipeline/verify/independent.py",),
}
"""Library → the only places that may import it."""
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
SETTINGS = ("Config", "Recipe", "Settings", "Choice")
"""Endings of the names of dataclasses whose every field says what it means."""


def imported(tree: ast.AST) -> Iterator[str]:
    """Name every module that is imported: at the top, inside a function, relatively, or by a name given as text."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield module
            case ast.ImportFrom():
                yield "relative"
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def import_faults(path: str, source: str) -> Iterator[str]:
    """Name the imports that a module must not have."""
    package = path.split("/", 1)[0]
    for module in imported(ast.parse(source)):
        top = module.split(".", 1)[0]
        if top == "relative":
            yield f"{path}: a relative import"
        if top in OURS and top != package and top not in OURS[package]:
            yield f"{path}: {package} must not import {module}"
        if top in HOMES and not path.startswith(HOMES[top]):
            yield f"{path}: {module} belongs in {' or '.join(HOMES[top]) or 'no module'}"


def name_faults(path: str, _: str) -> Iterator[str]:
    """Name the parts of a module's path that say nothing of what is in it."""
    yield from (
        f"{path}: {word!r} says nothing of what is in it"
        for part in path.removesuffix(".py").split("/")
        for word in part.split("_")
        if word in VAGUE
    )


def class_faults(path: str, source: str) -> Iterator[str]:
    """Name the public classes that are neither abstract nor final, or both."""
    for node in classes_in(source):
        final = any(ast.unparse(one) in ("final", "typing.final") for one in node.decorator_list)
        if not node.name.startswith("_") and final == node.name.startswith("Abstract"):
            yield f"{path}: class {node.name} is {'both abstract and' if final else 'neither abstract nor'} final"


def docstring_faults(path: str, source: str) -> Iterator[str]:
    """Name a module without a docstring, and the public functions and classes at its top that have none."""
    tree = ast.parse(source)
    if tree.body and not ast.get_docstring(tree):
        yield f"{path}: no docstring"
    told = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_")
    yield from (f"{path}: {node.name} has no docstring" for node in told if not ast.get_docstring(node))


def setting_faults(path: str, source: str) -> Iterator[str]:
    """Name the settings without a line under them; one that holds further settings is told by their class."""
    for node in classes_in(source):
        if node.name.endswith(SETTINGS):
            below = zip_longest(node.body, node.body[1:])
            untold = (field for field, after in below if isinstance(field, ast.AnnAssign) and not is_text(after))
            for field in untold:
                if not ast.unparse(field.annotation).endswith(SETTINGS):
                    yield f"{path}: {node.name}.{ast.unparse(field.target)} has no line of docstring"


def is_text(node: ast.stmt | None) -> bool:
    """Say whether a statement is a text and nothing else."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def classes_in(source: str) -> list[ast.ClassDef]:
    """Return every class of a module, inner ones too."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]


VALUE = {"frozen": "True", "slots": "True", "kw_only": "True"}


def value_faults(path: str, source: str) -> Iterator[str]:
    """Name the contract's dataclasses that are not frozen, slotted and called by name, or that compare arrays."""
    if path.startswith("storage_schemas/"):
        made = [(node, one) for node in classes_in(source) for one in node.decorator_list if is_dataclass(one)]
        for node, decorator in made:
            given = keywords(decorator)
            arrays = any("np.ndarray" in ast.unparse(one.annotation) for one in fields_of(node))
            asked = VALUE | ({"eq": "False"} if arrays else {})
            lacking = [f"{name}={value}" for name, value in asked.items() if given.get(name) != value]
            yield from (f"{path}: {node.name} lacks {one}" for one in lacking)


def is_dataclass(decorator: ast.expr) -> bool:
    """Say whether a decorator makes a dataclass."""
    return ast.unparse(decorator).split("(")[0] in ("dataclass", "dataclasses.dataclass")


def keywords(decorator: ast.expr) -> dict[str | None, str]:
    """Return what a decorator is called with, as source."""
    return {one.arg: ast.unparse(one.value) for one in decorator.keywords} if isinstance(decorator, ast.Call) else {}


def fields_of(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """Return the annotated names of a class."""
    return [one for one in node.body if isinstance(one, ast.AnnAssign)]


Rule = Callable[[str, str], Iterator[str]]
RULES: list[Rule] = [import_faults, name_faults, class_faults, docstring_faults, setting_faults, value_faults]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_our_modules_keep_the_rule(rule: Rule) -> None:
    modules = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for package in OURS
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    assert len(modules) > 50
    faults = [fault for path, source in modules.items() for fault in rule(path, source)]
    assert not faults, "\n".join(faults)


DOCUMENTED = '"""What it is."""\n'


@pytest.mark.parametrize(
    ("rule", "path", "source", "fault"),
    [
        (import_faults, "storage_schemas/a.py", "import teachers", "storage_schemas must not import teachers"),
        (import_faults, "storage_schemas/a.py", "from trainer.x import y", "storage_schemas must not import trainer.x"),
        (import_faults, "storage_schemas/a.py", "import torch.nn as nn", "torch.nn belongs in"),
        (import_faults, "storage_schemas/a.py", "from ray import data", "ray belongs in pipeline/workers/ray_"),
        (import_faults, "storage_schemas/a.py", "import timm", "timm belongs in"),
        (import_faults, "storage_schemas/a.py", "import lightning", "lightning belongs in trainer/"),
        (import_faults, "storage_schemas/a.py", "import transformers", "transformers belongs in teachers/"),
        (import_faults, "storage_schemas/a.py", "if TYPE_CHECKING:\n    import torch", "torch belongs in"),
        (import_faults, "teachers/a.py", "from pipeline import workers", "teachers must not import pipeline"),
        (import_faults, "teachers/a.py", "import trainer", "teachers must not import trainer"),
        (
            import_faults,
            "pipeline/a.py",
            "import trainer.settings.config",
            "pipeline must not import trainer.settings.config",
        ),
        (import_faults, "pipeline/a.py", "def f():\n    import ray", "ray belongs in pipeline/workers/ray_"),
        (import_faults, "pipeline/recipes/ray_pool.py", "import ray", "ray belongs in pipeline/workers/ray_"),
        (
            import_faults,
            "pipeline/a.py",
            "import_module('ray.data')",
            "ray.data belongs in pipeline/workers/ray_",
        ),
        (import_faults, "pipeline/a.py", "__import__('ray')", "ray belongs in pipeline/workers/ray_"),
        (import_faults, "pipeline/a.py", "import transformers", "transformers belongs in teachers/"),
        (import_faults, "pipeline/verify/a.py", "import zarr", "zarr belongs in pipeline/verify/independent.py"),
        (import_faults, "trainer/a.py", "from teachers import base", "trainer must not import teachers"),
        (
            import_faults,
            "trainer/a.py",
            "import os, pipeline.views.crop",
            "trainer must not import pipeline.views.crop",
        ),
        (
            import_faults,
            "trainer/a.py",
            "importlib.import_module('ray')",
            "ray belongs in pipeline/workers/ray_",
        ),
        (import_faults, "trainer/a.py", "from transformers import X", "transformers belongs in teachers/"),
        (import_faults, "trainer/a.py", "import pytorch_lightning", "pytorch_lightning belongs in no module"),
        (import_faults, "trainer/a.py", "from . import b", "a relative import"),
        (name_faults, "trainer/utils.py", "", "'utils' says nothing"),
        (name_faults, "trainer/cache_manager.py", "", "'manager' says nothing"),
        (name_faults, "pipeline/helpers/cut.py", "", "'helpers' says nothing"),
        (name_faults, "teachers/common.py", "", "'common' says nothing"),
        (class_faults, "trainer/a.py", "class Head: ...", "class Head is neither abstract nor final"),
        (class_faults, "trainer/a.py", "@final\nclass AbstractHead: ...", "class AbstractHead is both"),
        (class_faults, "trainer/a.py", "def f():\n    class Inner: ...", "class Inner is neither"),
        (docstring_faults, "trainer/a.py", "x = 1", "no docstring"),
        (docstring_faults, "trainer/a.py", f"{DOCUMENTED}def f(): ...", "f has no docstring"),
        (docstring_faults, "trainer/a.py", f"{DOCUMENTED}class A: ...", "A has no docstring"),
        (
            value_faults,
            "storage_schemas/a.py",
            "@dataclass(slots=True, kw_only=True)\nclass A: ...",
            "A lacks frozen=True",
        ),
        (
            value_faults,
            "storage_schemas/a.py",
            "@dataclass(frozen=True, kw_only=True)\nclass A: ...",
            "A lacks slots=True",
        ),
        (
            value_faults,
            "storage_schemas/a.py",
            "@dataclass(frozen=True, slots=True)\nclass A: ...",
            "A lacks kw_only=True",
        ),
        (
            value_faults,
            "storage_schemas/a.py",
            "@dataclass(frozen=True, slots=True, kw_only=True)\nclass A:\n    a: Float[np.ndarray, ' n']",
            "A lacks eq=False",
        ),
        (setting_faults, "trainer/a.py", "class RunConfig:\n    a: int = 1", "RunConfig.a has no line"),
        (
            setting_faults,
            "trainer/a.py",
            "class Recipe:\n    a: int\n    'So many.'\n    b: int",
            "Recipe.b has no line",
        ),
    ],
)
def test_a_planted_fault_is_found(rule: Rule, path: str, source: str, fault: str) -> None:
    found = list(rule(path, source))
    assert len(found) == 1
    assert found[0].startswith(f"{path}: {fault}")


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (
            import_faults,
            "pipeline/workers/ray_pool.py",
            "import ray\nfrom storage_schemas import cache\nimport teachers, torch, numpy",
        ),
        (
            import_faults,
            "teachers/sam3.py",
            "import transformers, timm\nfrom storage_schemas.format.teacher import TeacherSpec",
        ),
        (import_faults, "trainer/a.py", "import lightning, rays\nimport_module(name)"),
        (name_faults, "trainer/commons.py", ""),
        (class_faults, "trainer/a.py", "@final\n@dataclass\nclass A: ...\nclass AbstractA: ...\nclass _B: ..."),
        (value_faults, "pipeline/a.py", "@dataclass\nclass A: ..."),
        (
            value_faults,
            "storage_schemas/a.py",
            "@final\n@dataclass(frozen=True, slots=True, kw_only=True)\nclass A:\n    a: int",
        ),
        (docstring_faults, "trainer/__init__.py", ""),
        (docstring_faults, "trainer/a.py", f"{DOCUMENTED}def _f(): ..."),
        (setting_faults, "trainer/a.py", "class Recipe:\n    a: int = 1\n    '''So\n    many.'''\n    b: HeadSettings"),
        (setting_faults, "trainer/a.py", "class Other:\n    b: int"),
    ],
)
def test_what_keeps_the_rule_is_let_through(rule: Rule, path: str, source: str) -> None:
    assert list(rule(path, source)) == []


def test_the_contract_loads_no_heavy_library_through_anything_it_imports() -> None:
    program = (
        "import importlib, pkgutil, sys, storage_schemas\n"
        "for one in pkgutil.iter_modules(storage_schemas.__path__):\n"
        "    importlib.import_module(f'storage_schemas.{one.name}')\n"
        f"print(*sorted({set(HOMES)} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
