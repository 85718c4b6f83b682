"""Where the loss history goes."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, final

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.identity import Identity, digest
from trainer.data.source import Source
from trainer.run.history import HistoryLogger
from trainer.run.metrics import history_columns
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.running import LoggerName

PROJECT = "stillhouse"
"""What Weights & Biases calls the project, and MLflow the experiment."""
EXTRAS: dict[LoggerName, str] = {"wandb": "wandb", "mlflow": "mlflow"}
"""Logger → the library that it needs beyond the trainer's own."""


@final
class FlatMLFlowLogger(MLFlowLogger):
    """MLflow, by metric names without slashes.

    Its file store keeps each metric in a file of the metric's name, where `fidelity/dinov3` cannot be the folder of
    `fidelity/dinov3/low-128` too.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values by step, `fidelity/dinov3` as `fidelity.dinov3`."""
        super().log_metrics({name.replace("/", "."): value for name, value in metrics.items()}, step)


def require_loggers(recipe: TrainRecipe) -> None:
    """Refuse loggers whose library is not installed.

    Raises:
        SettingError: each is named, with how to install it.
    """
    asked = [name for name in recipe.running.loggers if name in EXTRAS and find_spec(EXTRAS[name]) is None]
    if asked:
        problems = [
            Problem(place=name, found=f"{EXTRAS[name]} is not installed", fix=f"pip install 'stillhouse[{name}]'")
            for name in asked
        ]
        raise SettingError("running.loggers", problems)


def make_loggers(recipe: TrainRecipe, source: Source, run: RunFolder, identity: Identity, start: int) -> list[Logger]:
    """Return the loggers of a run that goes on after `start` steps.

    Each goes on where it stood, but MLflow, which begins another run with the same tag `run`.

    Args:
        recipe: which loggers.
        source: the cache, for the names of what is logged.
        run: the run's folder.
        identity: all that the trained weights depend on; services know a run by it.
        start: steps behind the run.
    """
    about: dict[str, Any] = dict(identity)
    known = digest(identity)[:16]
    kinds: dict[LoggerName, Callable[[], Logger]] = {
        "csv": lambda: HistoryLogger(run.history, history_columns(recipe, source), start),
        "tensorboard": lambda: TensorBoardLogger(
            save_dir=run.path, name=run.tensorboard.name, version="", purge_step=start + 1 if start else None
        ),
        "wandb": lambda: WandbLogger(
            project=PROJECT, name=run.path.name, id=known, resume="allow", save_dir=run.path, config=about
        ),
        "mlflow": lambda: FlatMLFlowLogger(experiment_name=PROJECT, run_name=run.path.name, tags={"run": known}),
    }
    return [kinds[name]() for name in recipe.running.loggers]
