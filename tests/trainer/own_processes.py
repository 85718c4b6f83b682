"""Runs carried out as users carry them out: by programs of their own, in as many processes as the recipe says."""

import pickle
import subprocess
import sys
from pathlib import Path

from storage_schemas.cache import Cache
from trainer.data.source import open_source
from trainer.run.history import read_history
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe

PROGRAM = """
import os, pickle, sys
import torch
torch.set_num_threads(1)
from lightning.pytorch.callbacks import Callback
from trainer.run.fit import fit
from trainer.run.training_run import TrainingRun

class Vanish(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == stop:
            os._exit(0)

if __name__ == "__main__":  # processes that read import this again
    recipe, source, run, stop = pickle.load(open(sys.argv[1], "rb"))
    fit(TrainingRun(recipe=recipe, source=source, folder=run), lambda _: None, [Vanish()])
"""
"""One run, by as many processes as its recipe says, that vanish after a step; Lightning starts the others."""


def carry_out(recipe: TrainRecipe, cache: Cache, folder: Path, stop: int = -1) -> RunFolder:
    """Run a program of its own, as torchrun or a user would."""
    run, program, values = RunFolder(path=folder / "run"), folder / "program.py", folder / "values"
    folder.mkdir(exist_ok=True)
    program.write_text(PROGRAM)
    values.write_bytes(pickle.dumps((recipe, open_source(cache), run, stop)))
    with (folder / "said").open("w") as said:  # a file, for what vanishes may leave readers that hold a pipe open
        done = subprocess.run([sys.executable, program, values], stdout=said, stderr=said, check=False, timeout=600)
    assert done.returncode == 0, (folder / "said").read_text()
    return run


def losses(run: RunFolder) -> list[float]:
    """Return the loss of every step of the history."""
    return [float(row["loss"]) for row in read_history(run.history) if row["loss"]]
