"""The command line of `train`: its own settings say where on Ray a student trains; all others go to the trainer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, final

import tyro

from pipeline.config import RunConfig
from storage_schemas.format.errors import Problem, SettingError

SET_HERE = ("--running.devices", "--running.nodes", "--running.accelerator")
"""Settings of the trainer that `train` itself sets, from the workers it has."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingWorkersConfig:
    """The worker processes of a training run."""

    workers: int = 0
    """Training processes; 0 for as many as the cluster's GPUs (or CPUs, where `gpus` is 0) have room for. All of them
    start together, and the run ends when one is lost."""
    threads: int = 1
    """CPUs of each process: one for training, and one for each of `--running.workers`."""
    gpus: float = 0.0
    """GPUs of each process: 1 to train on GPUs, 0 to train on CPUs."""
    patience: float = 300.0
    """Seconds to wait until all processes can start, before aborting. An autoscaling cluster adds nodes meanwhile."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Train a student on the cluster at RAY_ADDRESS, or on a Ray of this machine.

    All other settings are those of `python -m trainer train --help`. The same command again resumes a run that stopped.
    """

    run: TrainingWorkersConfig = field(default_factory=TrainingWorkersConfig)
    rest: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """Arguments for the trainer."""


def train_options(arguments: Sequence[str]) -> TrainOptions:
    """Read the command line of `train`. A wrong one ends the process with status 2 and a message.

    Raises:
        SettingError: a setting of the trainer that `train` sets itself.
    """
    kind: Any = Annotated[TrainOptions, tyro.conf.configure(tyro.conf.FlagCreatePairsOff)]
    program = "python -m pipeline train"
    options, rest = tyro.cli(kind, prog=program, args=list(arguments), return_unknown_args=True)
    if refused := [argument for argument in rest if argument.partition("=")[0].replace("_", "-") in SET_HERE]:
        found, fix = "is set by this command itself", "set --run.workers and --run.gpus instead"
        raise SettingError("train", [Problem(place=argument, found=found, fix=fix) for argument in refused])
    return TrainOptions(run=options.run, rest=tuple(rest))


def worker_settings(run: TrainingWorkersConfig) -> RunConfig:
    """Return the settings of a group of workers that must all be there.

    Raises:
        SettingError: a value that is too small.
    """
    fewest = max(run.workers, 1)
    return RunConfig(workers=run.workers, min_workers=fewest, patience=run.patience, gpus=run.gpus, threads=run.threads)
