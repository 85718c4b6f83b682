"""The command line: refusals in one message and status 2, settings by name, and nothing loaded that is not needed."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from trainer.__main__ import main
from trainer.options import train_options
from trainer.recipes import RECIPES
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import LossSettings, OptimiserSettings
from trainer.settings.running import DataSettings
from trainer.settings.student import HeadSettings, VitSettings

BLOCKED = """
import importlib, importlib.abc, importlib.metadata, pkgutil, sys

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"no module named {{name!r}}: it is blocked", name=name)

sys.meta_path.insert(0, Wall())

# libraries also ask which distributions are installed, and import what they find
installed = importlib.metadata.distribution

def distribution(name):
    if name.partition(".")[0] in {names!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return installed(name)

importlib.metadata.distribution = distribution
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


def test_a_student_learns_and_is_reported_on_without_ray_transformers_teachers_and_pipeline(
    full_cache: Cache, tmp_path: Path
) -> None:
    program = BLOCKED.format(names={"ray", "transformers", "teachers", "pipeline"}) + (
        "import trainer\n"
        "names = [module.name for module in pkgutil.walk_packages(trainer.__path__, 'trainer.')]\n"
        "[importlib.import_module(name) for name in names if name != 'trainer.__main__']\n"
        "from trainer.__main__ import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        f"assert main(['report', '--cache', {full_cache.store.uri!r}, '--runs', {str(tmp_path)!r}, '--page', "
        f"{str(tmp_path / 'page.html')!r}]) == 0\n"
        f"trainer.load({str(tmp_path / 'test_vit')!r})\n"
        "print(len(names))\n"
    )
    settings = (
        "--name test_vit --student test_vit --steps 1 --optimiser.warmup 0 --heads.width 32 --running.accelerator cpu"
    )
    done = run(program, "train", "--cache", full_cache.store.uri, "--runs", str(tmp_path), *settings.split())
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 20


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["report", "--help"], ["export", "--help"]])
def test_help_is_given_without_torch_timm_or_lightning(arguments: list[str]) -> None:
    program = BLOCKED.format(names={"torch", "timm", "lightning", "zarr", "pyarrow"}) + (
        "import runpy\nsys.argv[0] = 'trainer'\nrunpy.run_module('trainer', run_name='__main__')\n"
    )
    done = run(program, *arguments)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [flag for flag in flags(TrainRecipe) if flag not in shown] == []


def flags(kind: type, prefix: str = "--") -> list[str]:
    found = []
    for field in fields(kind):
        name = field.name.replace("_", "-")
        nested = {"vit", "heads", "data", "loss", "average", "optimiser", "running"}
        if name in nested:
            assert is_dataclass(field.default_factory)
            found += flags(field.default_factory, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif name not in ("name", "stages"):  # stages are listed one by one, for recipes that have them
            found.append(f"{prefix}{'student.weights' if name == 'student-weights' else name} ")
    return found


def test_settings_of_a_recipe_are_overridden_by_name() -> None:
    arguments = (
        "--recipe=small --cache c --runs r --student resnet18 --steps 7 --optimiser.lr 0.5 --data.teachers a b "
        "--data.proportions low-32 2 high-64 1.5 --loss.teacher-weights a 3 --optimiser.gradient-clip None "
        "--running.loggers csv --vit.windows 6 8 --vit.window-tokens copied"
    )
    options = train_options(arguments.split())
    small = RECIPES["small"]()
    assert re.fullmatch("r/resnet18-[0-9a-f]{8}", str(options.folder)), "a name of all these would be too long"
    assert (options.settings.student, options.settings.steps) == ("resnet18", 7)
    assert options.settings.optimiser == OptimiserSettings(lr=0.5, warmup=small.optimiser.warmup, gradient_clip=None)
    assert options.settings.data.teachers == ("a", "b")
    assert options.settings.data.proportions == {"low-32": 2.0, "high-64": 1.5}
    assert options.settings.data.batch_low == small.data.batch_low
    assert options.settings.loss.teacher_weights == {"a": 3.0}
    assert options.settings.running.loggers == ("csv",)
    assert options.settings.vit == VitSettings(windows=(6, 8), window_tokens="copied")


def test_every_recipe_carries_its_name() -> None:
    assert {name: recipe().name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ""),
        (
            ["fly"],
            "error: command cannot be used:\n"
            "  fly: is no command (there are train, runs, report, evaluate, export, families, latency, normalise)\n",
        ),
        (["train"], "error: CACHE cannot be used:\n  --cache: is not given (make … CACHE=…)\n"),
        (
            ["train", "--recipe", "huge"],
            "error: recipe cannot be used:\n  huge: is not a training recipe (the training recipes are demo, small, ",
        ),
        (
            ["train", "--cache", "{empty}"],
            "error: cache is missing:\n  {empty}: holds no features.zarr "
            "(run `make extract` first, or point CACHE at a cache)\n",
        ),
        (
            ["train", "--cache", "{full}", "--runs", "{empty}", "--student", "vit_tinny_patch16_224"],
            "error: student cannot be used:\n"
            "  vit_tinny_patch16_224: is not a timm model (similar names: vit_tiny_patch16_",
        ),
        (
            ["train", "--cache", "{full}", "--runs", "{empty}", "--steps", "0"],
            "error: train recipe cannot be used:\n  steps: 0 is less than 1\n",
        ),
    ],
)
def test_a_refusal_is_one_message_on_standard_error_and_status_two(
    arguments: Sequence[str], said: str, full_cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"full": full_cache.store.uri, "empty": str(tmp_path)}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert capsys.readouterr().err.startswith(said.format(**places))


def test_a_setting_that_is_no_such_setting_ends_with_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--cache", "c", "--optimiser.lrr", "1"])
    assert ended.value.code == 2
    assert "--optimiser.lr" in capsys.readouterr().err


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingError) as refusal:
        TrainRecipe(
            name="a",
            student="b",
            steps=1,
            vit=VitSettings(position_grid=0, position_dropout=1.0, windows=(6, 1, 6), window_share=1.5),
            heads=HeadSettings(transformer_blocks=-1),
            data=DataSettings(batch_low=0, proportions={"low-32": 0.0}),
            loss=LossSettings(spatial_weight=float("nan"), teacher_weights={"a": -1.0}),
            optimiser=OptimiserSettings(lr=float("inf"), beta2=1.0, gradient_clip=0.0),
        )
    assert [str(problem) for problem in refusal.value.problems] == [
        "vit.position_grid: 0 is less than 1",
        "heads.transformer_blocks: -1 is less than 0",
        "vit.windows: 6 1 6 must be different numbers, each at least 2",
        "vit.position_dropout: 1.0 is not in [0, 1)",
        "vit.window_share: 1.5 is not in [0, 1]",
        "data.batch_low: 0 is less than 1",
        "loss.spatial_weight: nan is not a finite number of at least 0",
        "loss.teacher_weights.a: -1.0 is not a finite number of at least 0",
        "optimiser.lr: inf is not a positive number",
        "data.proportions.low-32: 0.0 is not a positive number",
        "optimiser.gradient_clip: 0.0 is not a positive number",
        "optimiser.beta2: 1.0 is not in [0, 1)",
    ]


def test_the_trainer_offers_load_and_nothing_that_it_does_not_have() -> None:
    assert trainer.load.__module__ == "trainer.export"
    with pytest.raises(AttributeError, match="module 'trainer' has no attribute 'save'"):
        _ = trainer.save
