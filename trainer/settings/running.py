"""The settings of reading a cache, and of running: processes, cadences, loggers."""

from dataclasses import dataclass, field
from typing import Literal, final

LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]
Accelerator = Literal["auto", "cpu", "gpu"]
StrategyName = Literal["ddp", "fsdp"]
SignalName = Literal["USR1", "USR2"]
LabelParts = Literal["hash", "given"]
StudentShifts = Literal["as-teachers", "uniform"]
OrderRule = Literal["permutation", "table"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What a run reads from the cache, how much in one step, and in which order."""

    teachers: tuple[str, ...] = ()
    """Teachers to learn from, by their names in the cache. None named: all teachers of the cache."""
    batch_low: int = 1024
    """Views per step from the low partition. v2.5 section 2.2: 1024."""
    batch_high: int = 128
    """Views per step from the high partition. v2.5 section 2.2: 128."""
    proportions: dict[str, float] = field(default_factory=dict)
    """How often each view set is drawn, by name, relative to the other sets of its partition: `low-256 2 high-512 1`.
    Sets that are not named are not used. None named: every set of the cache, in proportion to its number of training
    views; these are the proportions of the recipe that made the cache. Not published for C-RADIOv4."""
    shifts: bool = True
    """Whether the student's windows are shifted at random, as in v4 section 2.3. Shifts need views that were cut with a
    margin. Without shifts the views must have no margin, because a margin has already shifted the teachers' windows."""
    student_shifts: StudentShifts = "as-teachers"
    """Distribution of the shifts of the student's windows. `as-teachers`: that of the teachers' windows in this cache,
    as in C-RADIOv4 (NVlabs/RADIO#181). `uniform`: every offset in the margin is equally likely; runs that began before
    this setting existed keep it."""
    window_shards: int = 8
    """Number of shards whose views are shuffled together; the shards themselves are shuffled over the whole set. Not
    published."""
    order: OrderRule = "permutation"
    """How the order of views is drawn. `permutation`: by a keyed permutation, which takes the same time and memory for
    a set of any size. `table`: by shuffling a table of all views for every epoch; runs that began before this setting
    existed keep it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSettings:
    """How a run is executed: these settings do not change what the student learns, and may differ on resuming."""

    workers: int = 0
    """Reader processes for each training process. 0: the training process reads by itself."""
    read_ahead: int = 4
    """Steps that each reader process prepares in advance."""
    read_cache: str = ""
    """Folder on a disk of this machine that keeps what was read from a cache behind a network, for later epochs and
    runs. Several runs may share it. Empty: nothing is kept."""
    read_cache_bytes: int = 0
    """Largest size of `read_cache` (bytes). Beyond it, what was not read for the longest time is deleted."""
    accelerator: Accelerator = "auto"
    """Hardware to train on. `auto`: a GPU if there is one, else the CPU."""
    devices: int = 1
    """Training processes on each machine; on GPUs, each has a GPU of its own. Every step is shared among all of
    them."""
    nodes: int = 1
    """Number of machines. With several, torchrun or Slurm starts the processes; see docs/training.md."""
    strategy: StrategyName = "ddp"
    """How several processes train together. `ddp`: each holds the whole student. `fsdp`: weights, gradients and
    optimiser are sharded over the processes."""
    accumulate: int = 1
    """Gradient accumulation: micro-batches that each batch of a step is split into, one after another on each process.
    Activations need that much less memory, and the gradient is that of the whole batch. A step is one optimiser step.
    Students with batch norm are refused."""
    micro_batch_tokens: int = 0
    """Largest micro-batch (tokens of the student's patches on one process): a batch is split into more micro-batches
    than `accumulate` where its resolution needs that. 0: no limit. One view is never split."""
    checkpointing: bool = False
    """Activation checkpointing: the backward pass computes the activations inside each transformer block again, instead
    of keeping them. It saves most of their memory and costs up to a third more arithmetic. Students with batch norm are
    refused."""
    log_every: int = 10
    """Steps between two rows of the loss history."""
    evaluate_every: int = 0
    """Steps between two evaluations on held-out views. 0: evaluate only before the first step and after the last."""
    evaluate: bool = True
    """Whether to score the student on held-out views. False: the run has no scores, and needs no held-out views. Runs
    on a cache that was cut with --views.heldout 0 are never scored."""
    labels: str = ""
    """Labels of the images, to measure nearest neighbours and a linear probe on held-out views during training: a CSV
    file with the columns key, label and, for given parts, split; or `folders`. Empty: neither is measured."""
    label_parts: LabelParts = "hash"
    """How held-out images are divided into those that a classifier learns from and those that it is scored on. `hash`:
    in halves, by a hash of the key. `given`: as the labels name them."""
    tasks_every: int = 0
    """Steps between two measurements with `labels`. 0: measure only before the first step and after the last."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints. The last step always writes one."""
    keep: int = 1
    """Checkpoints to keep: `last.ckpt`, and those before it as `step-….ckpt`. To go back to one of them, give it the
    name `last.ckpt`, and repeat the command."""
    accept_changes: bool = False
    """Whether a run may resume with other settings `optimiser.…` than it began with, except `optimiser.kind`: after a
    divergence, with a lower learning rate; and whether it may go on with more `steps`, after its last one too. They
    hold from the last checkpoint on, and the change is written into `run.json` and the student's card."""
    stop_signals: tuple[SignalName, ...] = ("USR1", "USR2")
    """Signals that stop a run as SIGTERM and Ctrl-C do: at the end of a step, with a checkpoint. The exit status is 128
    plus the signal's number."""
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")
    """Where losses and scores are logged. `csv`: `history.csv` in the run's folder. `tensorboard`: event files in the
    run's folder. `wandb`: Weights & Biases. `mlflow`: MLflow at MLFLOW_TRACKING_URI. The last two need their extras:
    pip install 'stillhouse[wandb]'."""
