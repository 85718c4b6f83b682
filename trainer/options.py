"""The command line of a training run: the recipe's fields, to be overridden by name, with their docstrings as help."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import tyro

from storage_schemas.command_line import option_value
from storage_schemas.format.errors import Problem, SettingError
from trainer.recipes import RECIPES
from trainer.settings.config import TrainRecipe


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Train a student from a cache. The same command again goes on where a run stopped."""

    settings: Annotated[TrainRecipe, tyro.conf.arg(name="")]
    recipe: str
    """Which training recipe the settings start from; see `trainer/recipes`."""
    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    runs: Path = Path("runs")
    """Folder of runs: each is kept in a folder of its student's name."""

    @property
    def folder(self) -> Path:
        """Folder that the run is kept in."""
        return self.runs / self.settings.student


def train_options(arguments: Sequence[str]) -> TrainOptions:
    """Read the command line of `train`. A wrong one ends the process with status 2 and says why.

    Raises:
        SettingError: no such recipe, no cache, or a setting that cannot be used.
    """
    name = option_value(arguments, "recipe", "demo")
    if name not in RECIPES:
        fix = f"there are {', '.join(RECIPES)}"
        raise SettingError("recipe", [Problem(place=name, found="is no training recipe", fix=fix)])
    default = TrainOptions(settings=RECIPES[name](), recipe=name)
    options = tyro.cli(
        TrainOptions,
        prog="python -m trainer train",
        default=default,
        args=list(arguments),
        config=(tyro.conf.FlagConversionOff,),
    )
    if not options.cache:
        raise SettingError("CACHE", [Problem(place="--cache", found="is not given", fix="make … CACHE=…")])
    return options


USAGE = f"""python -m trainer COMMAND [--help] [settings]

  train    train a student from a cache; the same command again goes on where it stopped
  report   the closing table, and one HTML page on a cache and its students
  export   a finished student for torch.export, ONNX or timm, checked against itself

Recipes: {", ".join(RECIPES)}."""
"""What `python -m trainer --help` says."""
