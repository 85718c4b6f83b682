"""What computes a teacher's features: the user's own modules, and the libraries that these or the network come from."""

import ast
import hashlib
import importlib.machinery
import importlib.util
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType

from torch import nn

from storage_schemas.format.computed_by import ComputedBy
from teachers.base import AbstractTeacher
from teachers.upsamplers import AbstractUpsampler

OURS = frozenset({"pipeline", "storage_schemas", "teachers", "trainer"})
"""Our packages. Their versions are states of this repository, whose tests hold that features stay as they are."""
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders into which installers put libraries."""


def computed_by(teacher: AbstractTeacher, upsampler: AbstractUpsampler | None) -> ComputedBy:
    """Find the code and the libraries that compute features.

    It starts from the classes of the teacher, of the upsampler, their base classes, and the classes of their networks.
    From a module of the user's own it follows every import, also those inside functions. It does not see a module that
    only `importlib` imports inside a function, nor files that a module reads.

    Args:
        teacher: a built teacher.
        upsampler: its upsampler, if it has one.

    Returns:
        Digests of the user's own modules without their comments and empty lines, and the versions of the libraries.
        Build labels are left out, so a CPU build of torch equals a CUDA build.
    """
    modules, libraries = {}, set[str]()
    distributions = _distributions()
    waiting, seen = sorted(_modules_of_classes(teacher, upsampler)), set[str]()
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or top in OURS or top in sys.stdlib_module_names:
            continue
        seen.add(name)
        if spec := _found(name):
            if top in distributions and INSTALLED & set((spec.origin or "").replace("\\", "/").split("/")):
                libraries.update(distributions[top])
            else:
                waiting += _imports(spec)
                modules[name] = spec
    return ComputedBy(
        code={name: sha256 for name, spec in sorted(modules.items()) if (sha256 := _source_sha256(spec))},
        libraries={name: metadata.version(name).partition("+")[0] for name in sorted(libraries)},
    )


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions that install a package or module, by its name."""
    return metadata.packages_distributions()


def _modules_of_classes(teacher: AbstractTeacher, upsampler: AbstractUpsampler | None) -> set[str]:
    carriers: list[object] = [teacher] if upsampler is None else [teacher, upsampler]
    networks = [held for carrier in carriers for held in vars(carrier).values() if isinstance(held, nn.Module)]
    classes = {type(part) for network in networks for part in network.modules()} | set(map(type, carriers))
    return {base.__module__ for kind in classes for base in kind.__mro__}


def _found(name: str) -> ModuleSpec | None:
    """Find a module without importing it."""
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__spec__ is not None:
        return loaded.__spec__
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(name)
        above = _found(parent)
        places = None if above is None else above.submodule_search_locations
        return None if places is None else importlib.machinery.PathFinder.find_spec(name, list(places))
    except (ImportError, ValueError):
        return None


def _imports(spec: ModuleSpec) -> set[str]:
    """Return the names that a module imports anywhere, and the modules of what it holds; packages above them too."""
    held = {name for value in vars(sys.modules.get(spec.name, object)).values() if (name := _home(value))}
    source = _source(spec)
    named = set() if source is None else set(_imported_names(source, spec.parent or ""))
    parts = [name.split(".") for name in named | held | {spec.name}]
    return {".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}


def _home(value: object) -> str | None:
    if isinstance(value, ModuleType):
        return value.__name__
    return value.__module__ if isinstance(value, type | FunctionType) else None


def _imported_names(source: str, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = importlib.util.resolve_name("." * node.level + module, package) if package else module
            yield from (f"{module}.{alias.name}".strip(".") for alias in node.names)


def _source_sha256(spec: ModuleSpec) -> str | None:
    """Return the digest of a module's source without comments; of its bytes, where it has no source."""
    source = _source(spec)
    if source is not None:
        return hashlib.sha256(_without_comments(source).encode()).hexdigest()
    body = _bytes(spec)
    return None if body is None else hashlib.sha256(body).hexdigest()


def _source(spec: ModuleSpec) -> str | None:
    """Return a module's source, or None where it has none that this Python can parse."""
    body = _bytes(spec) if (spec.origin or "").endswith(".py") else None
    try:
        source = None if body is None else importlib.util.decode_source(body)
        ast.parse(source or "")
    except SyntaxError:
        return None
    return source


def _bytes(spec: ModuleSpec) -> bytes | None:
    # the loader also reads out of an archive; a package without a file has none
    read = getattr(spec.loader, "get_data", None)
    return None if read is None or not spec.has_location else bytes(read(spec.origin))


def _without_comments(source: str) -> str:
    lines: list[str | None] = list(source.split("\n"))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start[0] - 1, token.start[1]
        if token.type == tokenize.COMMENT:
            lines[row] = str(lines[row])[:column].rstrip()
        elif token.type == tokenize.NL and not str(lines[row]).strip():
            lines[row] = None
    return "\n".join(line for line in lines if line is not None)
