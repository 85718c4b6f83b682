"""The code and the libraries of a teacher: every module of the user's own that it reaches, by any way, and no other."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest

from storage_schemas.format.computed_by import ComputedBy
from storage_schemas.format.errors import ContractError
from teachers.build import build_teacher
from teachers.computed_by import computed_by
from teachers.upsamplers import build_upsampler

MODULES: Mapping[str, str] = {
    "mine_teacher.py": """
import json
import numpy as np
from torch import nn
from mine_base import Base
from mine_package import deep
import mine_nets
chosen = __import__("importlib").import_module("mine_chosen")
class Mine(Base):
    def __init__(self, *, spec, device, precision):
        super().__init__(spec=spec, network=nn.Sequential(mine_nets.made()), device=device, precision=precision)
    def features(self, images):
        from mine_late import late  # never run here
        return late(images)
""",
    "mine_base.py": """
from storage_schemas.format.teacher import TeacherSpec
from teachers.base import AbstractTeacher
class Base(AbstractTeacher):
    declared = TeacherSpec(name="mine", model="mine", dim=12, summary_dim=None, patch=16, size_rule="any", native=256,
                           mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
""",
    "mine_nets.py": """
import importlib
def made():
    return importlib.import_module("mine_" + "layers").Layer()
""",
    "mine_layers.py": "import importlib\nclass Layer(importlib.import_module('mine_' + 'root').Root): pass\n",
    "mine_root.py": "from torch import nn\nclass Root(nn.Identity): pass\n",
    "mine_late.py": "import mine_package.later\ndef late(images): return images\n",
    "mine_chosen.py": "value = 1\n",
    "mine_package/__init__.py": "",
    "mine_package/deep.py": "from . import side\n",
    "mine_package/side.py": "from .later import number\n",
    "mine_package/later.py": "number = 1\n",
    "mine_upsampler.py": """
from mine_kernel import width
from teachers.upsamplers import AbstractUpsampler
class Mine(AbstractUpsampler):
    def __init__(self, *, device): pass
    def upsample(self, seen): return seen.tiled
""",
    "mine_kernel.py": "width = 3\n",
    "mine_stranger.py": "import mine_teacher\n",
}
OF_UPSAMPLER = {"mine_upsampler", "mine_kernel"}
OF_TEACHER = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in MODULES} - OF_UPSAMPLER
OF_TEACHER -= {"mine_stranger"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user's modules, from which they can be imported."""
    (tmp_path / "mine_package").mkdir()
    for name, source in MODULES.items():
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget()


def forget() -> None:
    """Forget the user's modules, as a new process would."""
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def found(*, upsampled: bool = False) -> ComputedBy:
    """What a new process finds."""
    forget()
    teacher = build_teacher("mine_teacher:Mine", weights="own")
    upsampler = build_upsampler("mine_upsampler:Mine", teacher.device) if upsampled else None
    return computed_by(teacher, upsampler)


@pytest.mark.usefixtures("folder")
def test_every_module_of_the_users_own_that_a_teacher_reaches_is_found() -> None:
    assert found().code.keys() == OF_TEACHER
    assert found(upsampled=True).code.keys() == OF_TEACHER | OF_UPSAMPLER


@pytest.mark.usefixtures("folder")
def test_libraries_have_the_versions_of_their_distributions_without_build_labels() -> None:
    assert found().libraries == {name: metadata.version(name).partition("+")[0] for name in ("numpy", "torch")}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"mine_stranger.py", "mine_package/__init__.py"}))
def test_a_change_of_any_of_these_modules_is_seen(folder: Path, name: str) -> None:
    before = found(upsampled=True)
    (folder / name).write_text(MODULES[name] + "\nmore = 1\n")
    after = found(upsampled=True)
    module = name.removesuffix(".py").replace("/", ".")
    assert {key for key, value in after.code.items() if before.code[key] != value} == {module}
    assert before.digest != after.digest


def test_comments_and_empty_lines_change_nothing(folder: Path) -> None:
    before = found()
    commented = "# a comment\n\n" + MODULES["mine_late.py"].replace("images\n", "images  # at the end\n\n\n")
    (folder / "mine_late.py").write_text(commented)
    assert found() == before
    (folder / "mine_late.py").write_text(MODULES["mine_late.py"] + 'text = """\n# no comment\n\n"""\n')
    text = found()
    (folder / "mine_late.py").write_text(MODULES["mine_late.py"] + 'text = """\n# no commend\n\n"""\n')
    assert found() != text


def test_a_module_that_has_no_source_counts_with_its_bytes(folder: Path) -> None:
    before = found()
    (folder / "mine_late.py").write_text("def broken(:\n")
    broken = found().code["mine_late"]
    assert broken != before.code["mine_late"]
    (folder / "mine_late.py").write_text("def broken(:\n\n")
    assert found().code["mine_late"] not in (broken, before.code["mine_late"])


def test_a_model_of_the_catalogue_has_the_libraries_of_its_network_and_no_code() -> None:
    versions = {name: metadata.version(name).partition("+")[0] for name in ("timm", "torch", "transformers")}
    for source, libraries in (("dinov3-tiny", ("timm", "torch")), ("sam3-tiny", ("torch", "transformers"))):
        teacher = build_teacher(source, weights="random:1")
        expected = ComputedBy(code={}, libraries={name: versions[name] for name in libraries})
        assert computed_by(teacher, None) == expected


@pytest.mark.parametrize(
    "values", [[], {"code": {}}, {"code": {"a": 1}, "libraries": {}}, {"code": {}, "libraries": ["torch"]}]
)
def test_what_is_no_version_is_refused(values: object) -> None:
    with pytest.raises(ContractError, match=r"^computed_by breaks the storage contract"):
        ComputedBy.from_attributes(values)
