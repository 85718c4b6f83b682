"""The settings of what is read from a cache, and of how a run is carried out."""

from dataclasses import dataclass, field
from typing import Literal, final

LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]
Accelerator = Literal["auto", "cpu", "gpu"]
StrategyName = Literal["ddp", "fsdp"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What is read from the cache, how much at a time, and in which order."""

    teachers: tuple[str, ...] = ()
    """Teachers to learn from, by their names in the cache; none named: all that the cache holds."""
    batch_low: int = 1024
    """Views per step from the low partition. v2.5 section 2.2: 1024."""
    batch_high: int = 128
    """Views per step from the high partition. v2.5 section 2.2: 128."""
    proportions: dict[str, float] = field(default_factory=dict)
    """How often each view set is drawn, by name (`low-256 2 high-512 1`; unitless, compared within a partition). Sets
    not named are left out. None named: every cached set, as often as it has training views, which are the proportions
    of the recipe that made the cache. C-RADIOv4 does not publish its own."""
    shifts: bool = True
    """Whether windows move, as in v4 section 2.3; views are then cut with a margin. Without shifts they are cut without
    one, for a margin has moved the teachers' windows already."""
    window_shards: int = 8
    """Shards among which views are shuffled; the shards themselves are shuffled over the whole set. Not published."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSettings:
    """How a run is carried out. None of it changes what the student learns, and any of it may differ on resuming."""

    workers: int = 0
    """Processes that read ahead; 0 reads in the training process."""
    read_ahead: int = 4
    """Steps that each reading process prepares ahead."""
    read_cache: str = ""
    """Folder of this machine's disks in which views and features of a cache behind a network are kept once read; empty
    for none. Several runs may share it; each machine has its own."""
    read_cache_bytes: int = 0
    """How many bytes `read_cache` may take: what was longest not read gives way."""
    accelerator: Accelerator = "auto"
    """What to train on; `auto` takes a GPU where there is one."""
    devices: int = 1
    """Training processes on each machine, each with a GPU of its own where GPUs are trained on. Every step is shared
    among all of them."""
    nodes: int = 1
    """Machines. torchrun or Slurm starts the processes of several; see docs/training.md."""
    strategy: StrategyName = "ddp"
    """How several processes train together: `ddp` keeps the whole student on each; `fsdp` shards weights, gradients and
    optimiser over them, and has neither DAMP nor LAMB."""
    log_every: int = 10
    """Steps between two rows of the loss history."""
    evaluate_every: int = 0
    """Steps between two evaluations on held-out views; 0 evaluates only before the first step and after the last."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; the last step always leaves one."""
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")
    """Where the loss history goes: `history.csv` and TensorBoard's event files, both in the run's folder; Weights &
    Biases (`wandb`); MLflow (`mlflow`, at MLFLOW_TRACKING_URI). The latter two need their extras installed."""
