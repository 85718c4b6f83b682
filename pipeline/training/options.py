"""The command line of `train`: where under Ray a student trains. The rest of it is the trainer's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, final

import tyro

from pipeline.config import RunConfig
from storage_schemas.format.errors import Problem, SettingError

OURS = ("--running.devices", "--running.nodes", "--running.accelerator")
"""Settings of the trainer that follow from where it trains."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlacesConfig:
    """The places of a training run."""

    workers: int = 0
    """Training processes; 0 for as many as the cluster's GPUs (or CPUs, where `gpus` is 0) have room for. All of them
    start together, and the run ends with the first that is lost."""
    threads: int = 1
    """CPUs of each: one for training, and one for each of `--running.workers`."""
    gpus: float = 0.0
    """GPUs of each: 1 to train on GPUs, 0 to train on CPUs."""
    patience: float = 300.0
    """How long all of them are waited for (seconds); a cluster that adds nodes on demand adds them meanwhile."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Train a student on the cluster of RAY_ADDRESS, or on a Ray of this machine. Everything but these settings is as
    `python -m trainer train --help` has it. The same command again goes on where a run stopped."""

    run: PlacesConfig = field(default_factory=PlacesConfig)
    rest: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """What the trainer is told."""


def train_options(arguments: Sequence[str]) -> TrainOptions:
    """Read the command line of `train`. A wrong one ends the process with status 2 and says why.

    Raises:
        SettingError: a setting of the trainer that follows from the places.
    """
    kind: Any = Annotated[TrainOptions, tyro.conf.configure(tyro.conf.FlagCreatePairsOff)]
    program = "python -m pipeline train"
    options, rest = tyro.cli(kind, prog=program, args=list(arguments), return_unknown_args=True)
    if taken := [one for one in rest if one.partition("=")[0].replace("_", "-") in OURS]:
        found, fix = "follows from the places of the run", "set --run.workers and --run.gpus instead"
        raise SettingError("train", [Problem(place=one, found=found, fix=fix) for one in taken])
    return TrainOptions(run=options.run, rest=tuple(rest))


def crew(run: PlacesConfig) -> RunConfig:
    """Return the same as the settings of workers that must all be there.

    Raises:
        SettingError: less than there can be.
    """
    fewest = max(run.workers, 1)
    return RunConfig(workers=run.workers, min_workers=fewest, patience=run.patience, gpus=run.gpus, threads=run.threads)
