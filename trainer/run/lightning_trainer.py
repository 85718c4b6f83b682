"""Lightning's Trainer for a run: hardware, processes, precision."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from storage_schemas.format.errors import Problem, SettingError
from trainer.run.checkpoint_file import CheckpointFile
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.running import RunningSettings

NO_FOLDER = ".lightning"
"""In a Slurm job, Lightning resumes from any `hpc_ckpt_….ckpt` in its folder. This folder is never made."""
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def make_trainer(recipe: TrainRecipe, run: RunFolder, callbacks: Sequence[Callback]) -> Trainer:
    """Return the Trainer of a run, without loggers: only the first process gets loggers.

    Raises:
        SettingError: the settings need more GPUs than there are.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    accelerator, strategy = find_accelerator(recipe.running), find_strategy(recipe.running)
    with slurm_errors():
        trainer = Trainer(
            default_root_dir=run.path / NO_FOLDER,
            plugins=[CheckpointFile()],
            accelerator=accelerator,
            devices=recipe.running.devices,
            num_nodes=recipe.running.nodes,
            strategy=strategy,
            precision=PRECISIONS[recipe.precision],  # type: ignore[arg-type]
            max_steps=recipe.steps,
            gradient_clip_val=recipe.optimiser.gradient_clip,
            logger=False,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1,  # ProgressLogging has its own cadence
        )
    # Lightning's handlers end a run with status 0, or write a checkpoint in the middle of a step and requeue the job
    trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
    return trainer


@contextmanager
def slurm_errors() -> Iterator[None]:
    """Turn what Lightning objects to in the variables of a Slurm job into one message.

    It objects to the tasks of a job that it would have to be started by, also where it was started without `srun`.

    Raises:
        SettingError: the job's tasks or nodes are not those of the run.
    """
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        if "SLURM" not in str(error):
            raise
        found = " ".join(str(error).split())
        if isinstance(error, KeyError):  # a shell of a job has only some of the variables
            found = f"{error.args[0]} is not set: srun did not start this process"
        fix = (
            "start the run with srun, with one task for each process of --running.devices on --running.nodes; or, in a "
            "shell of the job, unset SLURM_NTASKS"
        )
        raise SettingError("Slurm job", [Problem(place="SLURM_* variables", found=found, fix=fix)]) from error


def _nothing() -> None:
    """Leave signals to `trainer.stopping`."""


def find_accelerator(settings: RunningSettings) -> str:
    """Return the hardware to train on.

    Raises:
        SettingError: the settings need a GPU and there is none, or they need more GPUs than there are.
    """
    gpus = torch.cuda.device_count()
    if settings.accelerator == "gpu" and not gpus:
        found = "torch finds no GPU"
        fix = "install a build of torch that matches the driver, or use --running.accelerator cpu"
        raise SettingError("accelerator", [Problem(place="running.accelerator", found=found, fix=fix)])
    if settings.accelerator == "cpu" or not gpus:
        return "cpu"
    if settings.devices > gpus:
        found = f"{settings.devices} processes need a GPU each, but torch finds {gpus}"
        raise SettingError("accelerator", [Problem(place="running.devices", found=found)])
    return "gpu"


def find_strategy(settings: RunningSettings) -> Strategy | str:
    """Return how processes train together."""
    processes = settings.devices * settings.nodes
    if settings.strategy == "fsdp":
        # checkpoints hold whole weights, so that a run can resume with any number of processes and either strategy
        return ModelParallelStrategy(processes, tensor_parallel_size=1, save_distributed_checkpoint=False)
    if processes == 1:
        return "auto"
    # a head has no gradient in a step without features of its teacher
    return DDPStrategy(find_unused_parameters=True)
