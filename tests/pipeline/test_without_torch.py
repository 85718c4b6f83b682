"""Reading commands work where torch is not installed; the others say in one message what to install."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from storage_schemas.command_line import EXTRAS, missing_package

ROOT = Path(__file__).parents[2]
HEAVY = ("lightning", "ray", "timm", "torch", "torchvision", "transformers")
DISTRIBUTIONS = {"PIL": "pillow", "huggingface_hub": "huggingface-hub", "sklearn": "scikit-learn"}
"""What is imported under another name than it is installed by."""
PROGRAM = f"""
import sys
HEAVY = {HEAVY}
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NotInstalled())
from pipeline.__main__ import main
status = main(sys.argv[1:])
assert not set(HEAVY) & sys.modules.keys(), sorted(set(HEAVY) & sys.modules.keys())
sys.exit(status)
"""
RECIPE = [
    *("--views.low", "192", "--views.high", "256", "--views.high-share", "0.4", "--views.draws", "2"),
    *("--views.heldout", "0.5", "--views.tokens-per-shard", "1152", "--views.canvas-tokens", "24"),
]
"""What the small run changes of the demo."""


def run_without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process where importing any of `HEAVY` raises."""
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect"], "teacher quarter-mean-canvas"),
        (["inspect", "--json"], '"recipe": "demo"'),
        (["inspect", "--view", "low-192/0"], "teachers/dinov3/low-192/spatial"),
        (["verify"], "verify: sound: "),
        (["verify", "--quick"], "verify: sound: "),
        (["verify", "--quick", "--independent", "2"], "independent: zarr-python "),
        (["gc"], "gc: 0 objects"),
        (["gc", "--details"], "gc: "),
        (["drop", "--teacher", "dinov3"], "  features.zarr/teachers/dinov3/stats: "),
        (["plan", "--images", "40", *RECIPE], "TFLOP"),
        (["plan", "--data", "DATA", "--extend", "--teacher", "sam3", *RECIPE], "total: "),
        (["export", "--to", "TO", "--run.executor", "local"], "export: wrote "),
        (["preview", "--sheet", "SHEET", *RECIPE], "pixels written to "),
    ],
)
def test_a_reading_command_runs_on_a_real_cache(
    arguments: list[str], said: str, small_run: Any, tmp_path: Path
) -> None:
    places = {"DATA": str(small_run.data), "TO": str(tmp_path / "export"), "SHEET": str(tmp_path / "sheet.png")}
    given = [places.get(argument, argument) for argument in arguments]
    done = run_without_torch(*given, "--cache", str(small_run.cache))
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_the_catalogue_and_every_help_need_no_torch() -> None:
    done = run_without_torch("teachers")
    assert (done.returncode, done.stderr) == (0, "")
    assert "siglip2-g-384" in done.stdout
    assert run_without_torch("--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["extract", "--teacher", "dinov3", *RECIPE, "--run.executor", "local"], "torch"),
        (["stats", "--run.executor", "local"], "torch"),
        (["verify", "--recompute", "1"], "torch"),
        (["plan", "--images", "40", "--probe", *RECIPE], "torch"),
        (["plan", "--images", "40", "--teacher", "teachers.quarter_mean:QuarterMean", *RECIPE], "torch"),
        (["verify", "--run.executor", "ray"], "ray"),
    ],
)
def test_a_command_that_needs_a_package_says_in_one_message_what_to_install(
    arguments: list[str], package: str, copied: Path
) -> None:
    done = run_without_torch(*arguments, "--cache", str(copied))
    expected = (
        f"error: a package is missing:\n  {package}: this command needs it: not installed "
        "(pip install 'stillhouse[pipeline]')\n"
    )
    assert (done.returncode, done.stderr) == (2, expected)


def test_every_extra_that_a_message_names_installs_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, named in EXTRAS.items():
        distribution = DISTRIBUTIONS.get(package, package)
        for extra in named:
            assert any(line.startswith(f"{distribution}>=") for line in extras[extra]), f"{distribution} in {extra}"


def test_the_extra_is_the_programs_own_where_it_brings_the_package() -> None:
    fixes = [
        missing_package(ModuleNotFoundError(name="torch.nn"), each).problems[0].fix for each in ("pipeline", "trainer")
    ]
    assert fixes == ["pip install 'stillhouse[pipeline]'", "pip install 'stillhouse[trainer]'"]
    [problem] = missing_package(ModuleNotFoundError(name="transformers"), "pipeline").problems
    assert (problem.place, problem.fix) == ("transformers", "pip install 'stillhouse[sam3]'")


def test_a_module_that_no_extra_installs_is_no_refusal() -> None:
    with pytest.raises(ModuleNotFoundError, match="colours"):
        missing_package(ModuleNotFoundError("No module named 'colours'", name="colours"), "pipeline")
