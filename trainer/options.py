"""The command line of a training run. Every field of the recipe is an option, and its docstring is the help text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import tyro

from storage_schemas.command_line import option_value
from storage_schemas.format.errors import Problem, SettingError
from trainer.recipes import RECIPES
from trainer.run_name import choose_folder
from trainer.settings.config import TrainRecipe


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Train a student from a cache. To resume a run that was interrupted, repeat the same command."""

    settings: Annotated[TrainRecipe, tyro.conf.arg(name="")]
    recipe: str
    """Training recipe that gives the defaults of all settings; see `trainer/recipes`."""
    cache: str = ""
    """The cache: a folder, or a URI such as s3://bucket/prefix (CACHE)."""
    runs: Path = Path("runs")
    """Folder of runs (RUNS). Each run is kept in a subfolder of its name."""
    run_name: Annotated[str, tyro.conf.arg(name="name")] = ""
    """Name of the run (NAME). By default the student, followed by each setting that differs from the recipe's, such as
    `small-lr=0.0005`; `steps` is not part of it. `make runs` lists the runs."""

    dry_run: bool = False
    """Whether to train nothing, and to print what a step needs: the memory of each process by kind (parameters,
    gradients, optimiser, moving average, activations), and the arithmetic. It needs the cache, but no GPU."""

    @property
    def folder(self) -> Path:
        """Folder that keeps the run.

        Raises:
            SettingError: the name cannot be that of a folder; or settings of a run are to change, and it is not named.
        """
        return choose_folder(self.runs, self.run_name, self.settings, RECIPES[self.recipe]())


def train_options(arguments: Sequence[str]) -> TrainOptions:
    """Read the command line of `train`. An invalid one ends the process with a message and status 2.

    Raises:
        SettingError: no such recipe, no cache, or a setting that cannot be used.
    """
    name = option_value(arguments, "recipe", "demo")
    if name not in RECIPES:
        fix = f"the training recipes are {', '.join(RECIPES)}"
        raise SettingError("recipe", [Problem(place=name, found="is not a training recipe", fix=fix)])
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

  train    train a student from a cache; the same command again resumes a run that was interrupted
  runs     list the runs of a folder
  report   print the closing table, and write one HTML page about a cache and its students
  evaluate measure what the features of a student or a teacher are good for: kNN, linear probe, retrieval, …
  export   write a finished student for another library, and compare it with the student
  families try a model of each family of timm as a student, and print a table
  latency  measure the speed and the memory of students and timm models, over resolutions and windows
  normalise
           fit the normaliser of a finished student's blocks on its held-out views

Recipes: {", ".join(RECIPES)}."""
"""Text of `python -m trainer --help`."""
