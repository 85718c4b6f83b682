"""Training on the cluster that extracts: Ray gives the places, and in each runs the trainer's own command.

The trainer knows nothing of Ray, nor the pipeline of the trainer but its command line; see decision 25."""

import os
import signal
import sys
from collections.abc import Sequence

from pipeline.training.options import TrainOptions, crew
from pipeline.training.process import TRAINER, Heard, Launch, TrainingProcess
from pipeline.workers.installation import code_sha256
from pipeline.workers.ray_gang import RayGang, ray_gang
from storage_schemas.format.errors import Problem, SettingError

REFUSED = 2
"""Status of a trainer that has said in one message why it does not go on."""
AGAIN = "run the same command again: it goes on after the last checkpoint"


def train_on_ray(options: TrainOptions) -> None:
    """Train a student in as many places as asked for, and pass on what the first of its processes says.

    Raises:
        SettingError: no Ray, too few places, or a process that ended before its time.
    """
    with ray_gang(TrainingProcess, crew(options.run)) as gang:
        gang.ask(TrainingProcess.start, _launches(gang, options))
        _listen(gang)


def _launches(gang: RayGang[TrainingProcess], options: TrainOptions) -> list[Launch]:
    """Return what each process is started with: one to a machine, as far as the trainer knows, with a GPU or without.

    Every process sees the GPUs of its own place alone, so places may lie on nodes as they come.
    """
    world = len(gang.addresses)
    [port] = gang.ask(TrainingProcess.free_port, [None])
    accelerator = "gpu" if options.run.gpus else "cpu"
    placed = f"--running.devices 1 --running.nodes {world} --running.accelerator {accelerator}".split()
    shared = {
        "MASTER_ADDR": gang.addresses[0],
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "GROUP_WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "TORCHELASTIC_RUN_ID": "ray",  # by which Lightning knows that the processes are there already
        "OMP_NUM_THREADS": str(options.run.threads),
    }
    return [
        Launch(
            arguments=("train", *options.rest, *placed),
            environment={**shared, "RANK": str(rank), "GROUP_RANK": str(rank)},
            folder=os.getcwd(),
            code=code_sha256(TRAINER),
        )
        for rank in range(world)
    ]


def _listen(gang: RayGang[TrainingProcess]) -> None:
    """Pass on what the first process says, until all have ended.

    It is passed on one look later: what a process says because another was lost is not worth reading.
    """
    held: Heard | None = None
    while True:
        heard = gang.ask(TrainingProcess.listen, [None] * len(gang.addresses))
        if any(one.status for one in heard):
            raise _ended(gang, heard, held)
        if held is not None:
            _say(held)
        held = heard[0]
        if all(one.status is not None for one in heard):
            return _say(held)


def _say(heard: Heard) -> None:
    for stream, text in heard.said:
        print(text, end="", flush=True, file=sys.stderr if stream == "err" else sys.stdout)


def _ended(gang: RayGang[TrainingProcess], heard: Sequence[Heard], held: Heard | None) -> SettingError:
    """Return why the run ends: by the process that was killed, else by one that refused, else by the first."""
    rank, one = min(enumerate(heard), key=lambda pair: _weight(pair[1].status))
    assert one.status
    said = "".join(text for stream, text in (*(held.said if held and rank == 0 else ()), *one.said) if stream == "err")
    place = f"process {rank + 1} of {len(heard)} on {gang.addresses[rank]}"
    if one.status == REFUSED:
        return SettingError("training", [Problem(place=place, found=said[said.rfind("error: ") :].strip())])
    if one.status < 0:
        found = f"was ended by {signal.Signals(-one.status).name}"
    else:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        found = f"ended with status {one.status}: {last[:500]}"
    return SettingError("training", [Problem(place=place, found=found, fix=AGAIN)])


def _weight(status: int | None) -> int:
    return 3 if not status else 0 if status < 0 else 1 if status == REFUSED else 2
