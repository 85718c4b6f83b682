"""Training on a Ray cluster: Ray starts a group of workers, and each of them runs the trainer's own command.

The trainer knows nothing of Ray, and the pipeline knows nothing of the trainer but its command line; see decision 25.
"""

import os
import signal
import sys
from collections.abc import Sequence

from pipeline.training.options import TrainOptions, worker_settings
from pipeline.training.process import TRAINER, Launch, Output, TrainingProcess
from pipeline.workers.installation import code_sha256
from pipeline.workers.ray_group import WorkerGroup, ray_group
from storage_schemas.format.errors import Problem, SettingError

REFUSED = 2
"""Exit status of a trainer that has printed one message on why it cannot go on."""
STOPPED = 128
"""Exit status of a trainer that a signal has stopped, without the signal's number."""
AGAIN = "run the same command again: it resumes after the last checkpoint"


def train_on_ray(options: TrainOptions) -> None:
    """Train a student with a group of workers, and print what the process of rank 0 prints.

    When this command is interrupted, it stops the processes, and waits until they have written a checkpoint.

    Raises:
        SettingError: no Ray answers, there are too few workers, or a process failed or was stopped.
        KeyboardInterrupt: this command was interrupted.
    """
    with ray_group(TrainingProcess, worker_settings(options.run)) as group:
        group.run(TrainingProcess.start, _launches(group, options))
        try:
            _print_until_end(group)
        except KeyboardInterrupt:
            _stop(group)
            raise


def _launches(group: WorkerGroup[TrainingProcess], options: TrainOptions) -> list[Launch]:
    """Return how to start each process. The trainer takes each of them for a node with one device.

    A process sees only the GPUs of its own worker, so several workers may be on one machine.
    """
    world = len(group.addresses)
    [port] = group.run(TrainingProcess.free_port, [None])
    accelerator = "gpu" if options.run.gpus else "cpu"
    layout = f"--running.devices 1 --running.nodes {world} --running.accelerator {accelerator}".split()
    shared = {
        "MASTER_ADDR": group.addresses[0],
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "GROUP_WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "TORCHELASTIC_RUN_ID": "ray",  # it tells Lightning not to start processes of its own
        "OMP_NUM_THREADS": str(options.run.threads),
    }
    return [
        Launch(
            arguments=("train", *options.rest, *layout),
            environment={**shared, "RANK": str(rank), "GROUP_RANK": str(rank)},
            folder=os.getcwd(),
            code=code_sha256(TRAINER),
        )
        for rank in range(world)
    ]


def _print_until_end(group: WorkerGroup[TrainingProcess]) -> None:
    """Print the output of rank 0 until all processes have ended.

    Each output is printed one round later. When another process was lost, rank 0's last words about it are dropped:
    the error that is raised names the cause.
    """
    held: Output | None = None
    while True:
        outputs = group.run(TrainingProcess.read_output, [None] * len(group.addresses))
        if any(output.status and not _is_stopped(output.status) for output in outputs):
            raise _failure(group, outputs, held)
        if held is not None:
            _print(held)
        held = outputs[0]
        if all(output.status is not None for output in outputs):
            _print(held)
            if any(output.status for output in outputs):
                raise _failure(group, outputs, None)
            return


def _stop(group: WorkerGroup[TrainingProcess]) -> None:
    """Stop all processes, and print what rank 0 prints until all have ended."""
    everyone = [None] * len(group.addresses)
    group.run(TrainingProcess.stop, everyone)
    while True:
        outputs = group.run(TrainingProcess.read_output, everyone)
        _print(outputs[0])
        if all(output.status is not None for output in outputs):
            return


def _print(output: Output) -> None:
    for stream, text in output.texts:
        print(text, end="", flush=True, file=sys.stderr if stream == "err" else sys.stdout)


def _failure(group: WorkerGroup[TrainingProcess], outputs: Sequence[Output], held: Output | None) -> SettingError:
    """Return the error that names the cause.

    That is a process that was killed, else one that refused, else the first that failed.
    """
    rank, output = min(enumerate(outputs), key=lambda pair: _precedence(pair[1].status))
    assert output.status
    texts = (*(held.texts if held and rank == 0 else ()), *output.texts)
    errors = "".join(text for stream, text in texts if stream == "err")
    place = f"process {rank + 1} of {len(outputs)} on {group.addresses[rank]}"
    if output.status == REFUSED:
        return SettingError("training", [Problem(place=place, found=errors[errors.rfind("error: ") :].strip())])
    if _is_stopped(output.status):
        found = f"was stopped by {signal.Signals(output.status - STOPPED).name}"
    elif output.status < 0:
        found = f"was ended by {signal.Signals(-output.status).name}"
    else:
        last = (errors.strip().splitlines() or ["it printed no error"])[-1]
        found = f"ended with status {output.status}: {last[:500]}"
    return SettingError("training", [Problem(place=place, found=found, fix=AGAIN)])


def _is_stopped(status: int) -> bool:
    """Return whether a signal has stopped a trainer. The others then stop after the same step, by themselves."""
    return status - STOPPED in set(signal.Signals)


def _precedence(status: int | None) -> int:
    return 3 if not status else 0 if status < 0 else 1 if status == REFUSED else 2
