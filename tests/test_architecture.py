"""Who may import whom, and how modules, classes and settings are written: read from the source, proved to bite."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
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
    "transformers": ("teachers/", "trainer/portable/"),
    "lightning": ("trainer/",),
    "pytorch_lightning": (),
    "torch": ("teachers/", "pipeline/", "trainer/"),
    "torchvision": ("teachers/", "pipeline/", "trainer/"),
    "timm": ("teachers/", "pipeline/", "trainer/"),
    "sklearn": ("trainer/downstream/",),
    "zarr": ("pipeline/verify/independent.py",),
}
"""Library → the only places that may import it."""
FLAT = ("teachers", "storage_schemas")
"""Packages whose modules at the top are one room; of others, each of these is a room of its own."""
PLAN = {
    "storage_schemas": """
        format:
        objects: format
        storage_schemas: format objects
    """,
    "teachers": """
        teachers: storage_schemas.format
    """,
    "pipeline": """
        pipeline:
        text_table:
        command_line: storage_schemas.format
        config: storage_schemas.format
        phi_s: storage_schemas.format
        recipes: command_line config storage_schemas.format teachers
        workers: pipeline config storage_schemas.format storage_schemas.objects
        images: config workers storage_schemas.format storage_schemas.objects
        labels: command_line config images recipes workers storage_schemas storage_schemas.format
            storage_schemas.objects teachers
        inventory: config recipes storage_schemas storage_schemas.format teachers
        leases: storage_schemas storage_schemas.format storage_schemas.objects
        training: config workers storage_schemas.format
        compact: command_line inventory leases workers storage_schemas storage_schemas.format
        stats: command_line config inventory leases phi_s text_table workers storage_schemas storage_schemas.format
            storage_schemas.objects teachers
        views: command_line compact config images inventory leases recipes workers storage_schemas
            storage_schemas.format storage_schemas.objects
        export: command_line compact config inventory leases phi_s stats views workers storage_schemas
            storage_schemas.format storage_schemas.objects
        features: command_line compact config inventory leases phi_s recipes views workers storage_schemas
            storage_schemas.format storage_schemas.objects teachers
        inspect: command_line config inventory leases recipes stats text_table views storage_schemas
            storage_schemas.format storage_schemas.objects
        plan: command_line config features images inventory phi_s recipes text_table views workers storage_schemas
            storage_schemas.format storage_schemas.objects teachers
        verify: command_line config features inventory leases recipes stats text_table views workers storage_schemas
            storage_schemas.format storage_schemas.objects teachers
        __main__: command_line compact export features inspect inventory labels plan recipes stats training verify views
            workers storage_schemas storage_schemas.format storage_schemas.objects teachers
    """,
    "trainer": """
        stopping:
        settings: storage_schemas.format
        recipes: settings
        run_folder: settings storage_schemas.format storage_schemas.objects
        run_name: run_folder settings storage_schemas.format
        student: settings storage_schemas storage_schemas.format
        data: settings stopping storage_schemas storage_schemas.format
        export: run_folder settings student storage_schemas.format storage_schemas.objects
        options: recipes run_name settings storage_schemas storage_schemas.format
        objective: data settings student storage_schemas.format
        normalise_options: storage_schemas.format
        normaliser: data export run_folder student storage_schemas storage_schemas.format storage_schemas.objects
        trainer: data export objective settings student
        weights: export run_folder student storage_schemas.format
        portable: export student weights storage_schemas.format storage_schemas.objects
        evaluation: data objective student storage_schemas.format
        downstream: data evaluation export run_folder student storage_schemas storage_schemas.format
            storage_schemas.objects
        learning: data objective settings student storage_schemas.format
        run: data downstream evaluation export learning objective run_folder settings stopping student weights
            storage_schemas storage_schemas.format storage_schemas.objects
        report: data downstream export objective recipes run run_folder run_name settings student storage_schemas
            storage_schemas.format storage_schemas.objects
        __main__: downstream export normalise_options normaliser options portable report run run_folder stopping
            storage_schemas
    """,
}
"""Package → its rooms, the lowest first, each with the rooms that it imports: those of other packages by their full
names. A room is a sub-package, or a module at the top of a package."""
ALL_OF_IT = "all of it"
"""A room's door, where every module of it may be imported from outside."""
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


def module_name(path: str) -> str:
    """Return the dotted name of a module: of a package's `__init__.py`, the package's."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def sources() -> dict[str, str]:
    """Return the source of each of our modules, by path."""
    paths = (path for package in OURS for path in sorted((ROOT / package).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


MODULES = frozenset(map(module_name, sources()))


def own_imports(source: str, modules: Collection[str] = MODULES) -> set[str]:
    """Return the modules, of those given, that a source imports; also inside functions and for type checking."""
    tree, found = ast.parse(source), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in (*imported(tree), *found) if name in modules}


def room_of(module: str) -> str:
    """Return the room that a module of ours lies in."""
    package, _, rest = module.partition(".")
    room = f"{package}.{rest.partition('.')[0]}" if rest else package
    return package if package in FLAT and not (ROOT / room.replace(".", "/")).is_dir() else room


def planned_rooms(plan: Mapping[str, str]) -> dict[str, set[str]]:
    """Return each room with the rooms that it imports, all by their full names."""
    rooms: dict[str, set[str]] = {}
    for package, lines in plan.items():
        for entry in re.findall(r"\S+:[^:]*(?=\n|$)", lines):
            name, _, others = entry.partition(":")
            full = [word if "." in word or word in OURS else f"{package}.{word}" for word in (name, *others.split())]
            rooms[full[0]] = set(full[1:])
    return rooms


def door_of(docstring: str) -> set[str]:
    """Return the modules of a room that its docstring names as its door."""
    line = re.search(r"^Door: (.+?)\.$", docstring, flags=re.DOTALL | re.MULTILINE)
    return set(re.split(r",\s+", line[1])) if line else set()


ROOMS = planned_rooms(PLAN)
DOORS = {
    module_name(path): door_of(ast.get_docstring(ast.parse(source)) or "")
    for path, source in sources().items()
    if path.count("/") == 2 and path.endswith("/__init__.py")
}
"""Room that is a sub-package → the modules that other rooms may import, beside its `__init__.py`."""


def room_faults(path: str, source: str) -> Iterator[str]:
    """Name the imports of rooms that a module's room must not import."""
    room = room_of(module_name(path))
    others = set(map(room_of, own_imports(source))) - {room, *ROOMS.get(room, ())}
    yield from (f"{path}: {room} must not import {other}" for other in sorted(others))


def door_faults(path: str, source: str) -> Iterator[str]:
    """Name the private modules of other rooms that a module imports."""
    room = room_of(module_name(path))
    for module in sorted(own_imports(source)):
        other = room_of(module)
        door = DOORS.get(other, {ALL_OF_IT})
        if room != other != module and not door & {ALL_OF_IT, module.removeprefix(f"{other}.")}:
            yield f"{path}: {module} is private to {other}, whose door is {', '.join(sorted(door)) or 'its __init__'}"


def circle_in(graph: Mapping[str, Collection[str]]) -> list[str]:
    """Return a circle of arrows, the first node again at its end; nothing where there is none."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def module_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    modules = frozenset(map(module_name, sources))
    return {module_name(path): own_imports(source, modules) for path, source in sources.items()}


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
        final = any(ast.unparse(decorator) in ("final", "typing.final") for decorator in node.decorator_list)
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
        made = [
            (node, made_by) for node in classes_in(source) for made_by in node.decorator_list if is_dataclass(made_by)
        ]
        for node, decorator in made:
            given = keywords(decorator)
            arrays = any("np.ndarray" in ast.unparse(field.annotation) for field in fields_of(node))
            asked = VALUE | ({"eq": "False"} if arrays else {})
            lacking = [f"{name}={value}" for name, value in asked.items() if given.get(name) != value]
            yield from (f"{path}: {node.name} lacks {setting}" for setting in lacking)


def is_dataclass(decorator: ast.expr) -> bool:
    """Say whether a decorator makes a dataclass."""
    return ast.unparse(decorator).split("(")[0] in ("dataclass", "dataclasses.dataclass")


def keywords(decorator: ast.expr) -> dict[str | None, str]:
    """Return what a decorator is called with, as source."""
    if not isinstance(decorator, ast.Call):
        return {}
    return {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}


def fields_of(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """Return the annotated names of a class."""
    return [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]


Rule = Callable[[str, str], Iterator[str]]
RULES: list[Rule] = [
    import_faults,
    room_faults,
    door_faults,
    name_faults,
    class_faults,
    docstring_faults,
    setting_faults,
    value_faults,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_our_modules_keep_the_rule(rule: Rule) -> None:
    modules = sources()
    assert len(modules) > 50
    faults = [fault for path, source in modules.items() for fault in rule(path, source)]
    assert not faults, "\n".join(faults)


def test_the_plan_names_every_room_and_every_arrow_that_there_is_and_no_other() -> None:
    graph = module_graph(sources())
    found: dict[str, set[str]] = {room_of(module): set() for module in graph}
    for module, targets in graph.items():
        found[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    assert found == ROOMS


def test_arrows_between_rooms_run_one_way() -> None:
    assert circle_in(ROOMS) == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circle_in(module_graph(sources())) == []


def test_a_door_names_modules_that_there_are() -> None:
    named = {f"{room}.{module}" for room, door in DOORS.items() for module in door - {ALL_OF_IT}}
    assert named - MODULES == set()
    assert len(named) > 50


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
        (
            room_faults,
            "pipeline/inventory/a.py",
            "from pipeline.inspect.stage import facts_text",
            "pipeline.inventory must not import pipeline.inspect",
        ),
        (
            room_faults,
            "pipeline/leases/a.py",
            "def f():\n    from pipeline.views import stage",
            "pipeline.leases must not import pipeline.views",
        ),
        (
            room_faults,
            "pipeline/config.py",
            "if TYPE_CHECKING:\n    import pipeline.workers.pool",
            "pipeline.config must not import pipeline.workers",
        ),
        (
            room_faults,
            "storage_schemas/format/a.py",
            "from storage_schemas.objects.store import Store",
            "storage_schemas.format must not import storage_schemas.objects",
        ),
        (
            room_faults,
            "storage_schemas/objects/a.py",
            "from storage_schemas.cache import Cache",
            "storage_schemas.objects must not import storage_schemas",
        ),
        (
            room_faults,
            "trainer/student/vit/a.py",
            "from trainer.run import train",
            "trainer.student must not import trainer.run",
        ),
        (
            door_faults,
            "pipeline/plan/a.py",
            "from pipeline.features.tiling import features_of",
            "pipeline.features.tiling is private to pipeline.features, whose door is ",
        ),
        (
            door_faults,
            "pipeline/__main__.py",
            "def f():\n    from pipeline.verify import worker",
            "pipeline.verify.worker is private to pipeline.verify, whose door is ",
        ),
        (
            door_faults,
            "trainer/run/a.py",
            "import trainer.student.vit.positions",
            "trainer.student.vit.positions is private to trainer.student, whose door is ",
        ),
        (
            door_faults,
            "pipeline/inventory/a.py",
            "from pipeline.recipes.demo import demo",
            "pipeline.recipes.demo is private to pipeline.recipes, whose door is ",
        ),
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
        (room_faults, "pipeline/plan/a.py", "from pipeline.views.stage import x\nimport teachers.cost, numpy"),
        (room_faults, "pipeline/plan/a.py", "from pipeline.plan import text"),
        (door_faults, "pipeline/plan/a.py", "from pipeline.features.calibration import calibration_sample"),
        (door_faults, "pipeline/plan/a.py", "from pipeline.plan.forecast import drawn_views"),
        (door_faults, "pipeline/plan/a.py", "from pipeline.recipes import RECIPES\nimport teachers.layers"),
        (door_faults, "trainer/run/a.py", "from storage_schemas.format import errors\nimport trainer.run_folder"),
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


def test_a_circle_is_found_through_imports_within_functions() -> None:
    modules = {
        "pipeline/views/__init__.py": "",
        "pipeline/views/a.py": "from pipeline.views import b",
        "pipeline/views/b.py": "def f():\n    import pipeline.views.c",
        "pipeline/views/c.py": "if TYPE_CHECKING:\n    from pipeline.views.a import x",
    }
    circle = circle_in(module_graph(modules))
    assert set(circle) == {"pipeline.views.a", "pipeline.views.b", "pipeline.views.c"}
    assert circle[0] == circle[-1]
    assert circle_in(module_graph(modules | {"pipeline/views/c.py": "import pipeline.views"})) == []


def test_an_arrow_that_is_turned_round_makes_a_circle_of_the_plan() -> None:
    assert circle_in(ROOMS | {"pipeline.inventory": ROOMS["pipeline.inventory"] | {"pipeline.inspect"}})


def test_a_door_may_go_on_over_several_lines() -> None:
    assert door_of("What it is.\n\nDoor: stage, options,\n  vit.backbone.\n\nMore.") == {
        "stage",
        "options",
        "vit.backbone",
    }
    assert door_of("What it is, with a Door: none.") == set()


def test_the_contract_loads_no_heavy_library_through_anything_it_imports() -> None:
    program = (
        "import importlib, pkgutil, sys, storage_schemas\n"
        "for module in pkgutil.walk_packages(storage_schemas.__path__, 'storage_schemas.'):\n"
        "    importlib.import_module(module.name)\n"
        f"print(*sorted({set(HOMES)} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_the_page_of_the_architecture_names_every_room_and_only_modules_that_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {
        path.parent.relative_to(ROOT).as_posix() for package in OURS for path in (ROOT / package).glob("*/__init__.py")
    }
    assert set(re.findall(r"^\| `([a-z_/]+)/` \|", page, re.MULTILINE)) == rooms | set(FLAT)
    modules = set(re.findall(r"(?:[a-z_0-9]+/)+[a-z_0-9]+\.py", page)) - {"tests/test_architecture.py"}
    tops = ("", *(f"{package}/" for package in OURS))
    assert modules
    assert not [path for path in modules if not any((ROOT / f"{top}{path}").exists() for top in tops)]
