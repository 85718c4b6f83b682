"""The sources that are accepted, and the messages for those that are not."""

import subprocess
import sys

import pytest
import torch

from storage_schemas.format.errors import MissingError, SettingError
from storage_schemas.format.teacher import Precision
from teachers.build import build_teacher
from teachers.catalogue import CATALOGUE
from teachers.cost import tflop_per_input
from teachers.source import precision_of, spec_of, specs_of

MODULE = """
from typing import final
import torch
from torch import nn
from storage_schemas.format.teacher import TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput

SPEC = TeacherSpec(name="own", model="own", dim=3, summary_dim=None, patch=16, size_rule="any", native=32,
                   mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

@final
class Plain(AbstractTeacher):
    declared = SPEC
    def __init__(self, *, spec, device, precision):
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)
    def features(self, images):
        return TeacherOutput(summary=None, spatial=nn.functional.avg_pool2d(images, 16).permute(0, 2, 3, 1))

@final
class Loading(AbstractTeacher):
    declared = SPEC
    def __init__(self, *, spec, device, precision, weights, layers=(), compiled=False):
        network = nn.Conv2d(3, 3, 16, 16)
        network.load_state_dict(torch.load(weights, weights_only=True))
        super().__init__(spec=spec, network=network, device=device, precision=precision, layers=layers)
        self.compiled = compiled
    def features(self, images):
        spatial = self.network(images).permute(0, 2, 3, 1)
        return TeacherOutput(summary=None, spatial=spatial, layers={layer: spatial for layer in self.layers})

@final
class Undeclared(AbstractTeacher):
    def features(self, images):
        raise NotImplementedError

class AbstractOwn(AbstractTeacher):
    declared = SPEC

NUMBER = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_teachers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_teachers"
    sys.modules.pop("own_teachers", None)


def refusal_of(source, **settings):
    with pytest.raises(SettingError) as refusal:
        build_teacher(source, **{"weights": "own", **settings})
    return str(refusal.value)


@pytest.mark.parametrize(
    ("source", "near"),
    [
        ("dinov3-7", "; did you mean dinov3-7b or dinov3-s or dinov3-l?"),
        ("siglip2-g", "; did you mean siglip2-g-384 or siglip2-tiny or siglip2-b-512?"),
        ("resnet50", ""),
    ],
)
def test_an_unknown_name_is_refused_with_similar_names(source, near):
    assert refusal_of(source) == (
        f"teacher {source!r} cannot be used:\n  source: no such teacher{near} "
        "(`python -m pipeline teachers` lists them; or give timm:<model.tag>, or module:Class for a class of your own)"
    )


def test_a_teacher_is_renamed_for_the_cache_and_otherwise_unchanged():
    renamed = spec_of("dinov3-7b", name="dinov3")
    assert renamed.name == "dinov3"
    assert renamed.attributes() | {"name": "dinov3-7b"} == CATALOGUE["dinov3-7b"].spec.attributes()
    assert build_teacher("dinov3-tiny", name="dinov3", weights="random:0").spec.name == "dinov3"


def test_a_spec_says_whether_the_weights_are_random():
    assert not spec_of("dinov3-tiny").random_weights
    assert spec_of("dinov3-tiny", random_weights=True).random_weights
    assert build_teacher("dinov3-tiny", weights="random:0").spec.random_weights


def test_the_map_of_a_block_has_its_own_name_and_no_summary():
    _, spec = specs_of("dinov3-7b", name="dinov3", layers=(7,))
    assert (spec.name, spec.layer, spec.summary_dim, spec.dim) == ("dinov3-block7", 7, None, 4096)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((1, 0), "layers: (1, 0) is not ascending (name each block once, in ascending order)"),
        ((0, 0), "layers: (0, 0) is not ascending (name each block once, in ascending order)"),
        ((-1,), "layers: there is no block -1 (blocks are 0 to 1)"),
        ((1, 2), "layers: there is no block 2 (blocks are 0 to 1)"),
    ],
)
def test_blocks_that_are_not_there_are_refused(layers, message):
    assert refusal_of("dinov3-tiny", layers=layers) == f"teacher 'dinov3-tiny' cannot be used:\n  {message}"


def test_a_users_own_class_is_built_by_its_name(own):
    teacher = build_teacher(f"{own}:Plain", name="mine", weights="own")
    assert (teacher.spec.name, teacher.precision) == ("mine", "fp32")
    assert spec_of(f"{own}:Plain").name == "own"
    images = torch.arange(3 * 32 * 32.0).reshape(1, 3, 32, 32)
    assert teacher.encode(images).spatial[0, 1, 0, 2] == images[0, 2, 16:, :16].mean()


def test_a_class_that_takes_weights_layers_and_compiled_is_given_them(own, tmp_path):
    torch.save(torch.nn.Conv2d(3, 3, 16, 16).state_dict(), tmp_path / "own.pth")
    settings = {"weights": str(tmp_path / "own.pth"), "layers": (0, 3), "compiled": True}
    teacher = build_teacher(f"{own}:Loading", **settings, precision="bf16")
    assert (teacher.layers, teacher.compiled, teacher.precision) == ((0, 3), True, "bf16")
    assert set(teacher.encode(torch.zeros(1, 3, 32, 32)).layers) == {0, 3}


def test_a_class_that_needs_weights_is_counted_with_them(own, tmp_path):
    torch.save(torch.nn.Conv2d(3, 3, 16, 16).state_dict(), tmp_path / "own.pth")
    products = 4 * 3 * 3 * 16 * 16
    tflop = tflop_per_input(f"{own}:Loading", 32, weights=str(tmp_path / "own.pth"))
    assert tflop == pytest.approx(2 * products / 1e12, rel=1e-9)


def test_a_setting_that_a_class_does_not_take_is_refused_and_not_ignored(own):
    assert refusal_of(f"{own}:Plain", weights="/a/file", layers=(1,), compiled=True) == (
        f"teacher '{own}:Plain' cannot be used:\n"
        f"  layers: is (1,), but {own}:Plain takes no layers (add layers= to __init__)\n"
        f"  compiled: is True, but {own}:Plain takes no compiled (add compiled= to __init__)\n"
        f"  weights: is '/a/file', but {own}:Plain takes no weights (add weights= to __init__)"
    )


@pytest.mark.parametrize("weights", ["hub", "random:1"])
def test_a_users_own_class_has_no_hub_and_no_random_weights(own, weights):
    assert refusal_of(f"{own}:Plain", weights=weights) == (
        f"teacher '{own}:Plain' cannot be used:\n"
        f"  weights: {weights!r} is only for the catalogue's models (give 'own', or a path if the class takes a path)"
    )


def test_a_class_that_needs_weights_is_not_built_without(own):
    assert refusal_of(f"{own}:Loading") == (
        f"teacher '{own}:Loading' cannot be used:\n  weights: is not given, and the class requires it (give a path)"
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Undeclared", "class: declares no spec: `declared = TeacherSpec(...)` (see docs/adding_a_teacher.md)"),
        ("AbstractOwn", "class: does not implement features (see docs/adding_a_teacher.md)"),
        ("NUMBER", "class: is not a subclass of teachers.base.AbstractTeacher (see docs/adding_a_teacher.md)"),
        (
            "Absent",
            "source: module 'own_teachers' has no attribute 'Absent' "
            "(the module must be importable from where the command runs)",
        ),
    ],
)
def test_what_is_not_a_teacher_is_refused(own, name, problem):
    assert refusal_of(f"{own}:{name}") == f"teacher '{own}:{name}' cannot be used:\n  {problem}"


def test_a_module_that_does_not_import_is_refused():
    assert refusal_of("no_such_module:Teacher") == (
        "teacher 'no_such_module:Teacher' cannot be used:\n  source: No module named 'no_such_module' "
        "(the module must be importable from where the command runs)"
    )


def test_own_weights_are_not_for_the_catalogue():
    assert refusal_of("dinov3-tiny") == (
        "teacher 'dinov3-tiny' cannot be used:\n"
        "  weights: 'own' is only for a class of your own (give 'hub', 'random:<seed>' or a path)"
    )


def test_the_catalogue_is_read_without_torch():
    script = (
        "import sys, teachers.catalogue\n"
        "heavy = {'torch', 'timm', 'transformers', 'huggingface_hub', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_sam3_without_transformers_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "teachers.sam3", raising=False)
    with pytest.raises(MissingError) as refusal:
        build_teacher("sam3-tiny", weights="random:0")
    assert str(refusal.value) == (
        "a package is missing:\n  transformers: SAM3 needs it, and it cannot be imported: "
        "import of transformers halted; None in sys.modules (pip install 'stillhouse[sam3]')"
    )


@pytest.mark.parametrize(
    ("source", "chosen", "precision"),
    [
        ("dinov3-7b", None, "bf16"),
        ("dinov3-7b", "fp32", "fp32"),
        ("siglip2-g-384", None, "bf16-autocast"),
        ("teachers.quarter_mean:QuarterMean", None, "fp32"),
        ("teachers.quarter_mean:QuarterMean", "bf16", "bf16"),
    ],
)
def test_precision_is_the_chosen_one_or_else_the_models_default(
    source: str, chosen: Precision | None, precision: Precision
) -> None:
    assert precision_of(source, chosen) == precision
