"""The loggers of a run: CSV file, TensorBoard, Weights & Biases, MLflow."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, final

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.identity import digest
from trainer.run.history import HistoryLogger
from trainer.run.metrics import history_columns
from trainer.run.training_run import TrainingRun
from trainer.settings.config import TrainRecipe
from trainer.settings.running import LoggerName

PROJECT = "stillhouse"
"""Name of the project in Weights & Biases, and of the experiment in MLflow."""
EXTRAS: dict[LoggerName, str] = {"wandb": "wandb", "mlflow": "mlflow"}
"""Logger → the optional library that it needs."""


@final
class FlatMLFlowLogger(MLFlowLogger):
    """MLflow with dots instead of slashes in the names of metrics.

    MLflow's file store makes a file or a folder of each name, and `fidelity/dinov3` cannot be a file and the folder of
    `fidelity/dinov3/low-128` at the same time.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values of a step, `fidelity/dinov3` as `fidelity.dinov3`."""
        super().log_metrics({name.replace("/", "."): value for name, value in metrics.items()}, step)


def require_loggers(recipe: TrainRecipe) -> None:
    """Refuse loggers whose library is not installed.

    Raises:
        SettingError: a library is missing; the message says how to install it.
    """
    missing = [name for name in recipe.running.loggers if name in EXTRAS and find_spec(EXTRAS[name]) is None]
    if missing:
        problems = [
            Problem(place=name, found=f"{EXTRAS[name]} is not installed", fix=f"pip install 'stillhouse[{name}]'")
            for name in missing
        ]
        raise SettingError("running.loggers", problems)


def make_loggers(run: TrainingRun, start: int) -> list[Logger]:
    """Return the loggers of a run.

    When a run resumes, each logger continues its record. Only MLflow begins another run, with the same tag `run`.

    Args:
        run: the run.
        start: the step after which it starts or resumes.
    """
    folder, about = run.folder, dict[str, Any](run.identity)
    run_id = digest(run.identity)[:16]
    kinds: dict[LoggerName, Callable[[], Logger]] = {
        "csv": lambda: HistoryLogger(folder.history, history_columns(run.recipe, run.source), start),
        "tensorboard": lambda: TensorBoardLogger(
            save_dir=folder.path, name=folder.tensorboard.name, version="", purge_step=start + 1 if start else None
        ),
        "wandb": lambda: WandbLogger(
            project=PROJECT, name=folder.path.name, id=run_id, resume="allow", save_dir=folder.path, config=about
        ),
        "mlflow": lambda: FlatMLFlowLogger(experiment_name=PROJECT, run_name=folder.path.name, tags={"run": run_id}),
    }
    return [kinds[name]() for name in run.recipe.running.loggers]
