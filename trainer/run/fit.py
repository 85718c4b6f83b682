"""Carrying a run out: build the student, hand it to Lightning, export what the last checkpoint holds."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.format.identity import Identity
from trainer.data.datamodule import CachedViews
from trainer.data.schedule import make_course
from trainer.data.source import Source
from trainer.export import export_student
from trainer.learning.module import Distillation, torch_seed
from trainer.objective.objective import TokenMaps
from trainer.run.callbacks import Journal, Keeper
from trainer.run.checkpoint import read_checkpoint
from trainer.run.examiner import Examiner
from trainer.run.lightning_trainer import make_trainer
from trainer.run.loggers import make_loggers, require_loggers
from trainer.run.metrics import has_stalled, start_metrics, teacher_facts
from trainer.run.processes import is_first
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.config import TrainRecipe
from trainer.student.model import DistilledModel, TeacherShape, summarised
from trainer.student.shape import StudentShape, measure_student
from trainer.student.student import Student


def fit(
    recipe: TrainRecipe,
    source: Source,
    run: RunFolder,
    identity: Identity,
    say: Callable[[str], None],
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train from the last checkpoint, or from the start, and export the student.

    Args:
        recipe: the run.
        source: the cache, checked.
        run: the run's folder: empty, or this run's.
        identity: all that the trained weights depend on.
        say: takes each line for the user.
        callbacks: more of Lightning's.

    Raises:
        SettingError: a student, an accelerator, a strategy or a logger that cannot be used.
        ContractError: a loss that is no number.
    """
    make_course(source, recipe)  # refuses view sets that fill no batch before anything is built
    require_loggers(recipe)
    model, shape = build_model(recipe, source)
    say(f"train: {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M parameters with the heads")
    teachers, start = teacher_facts(source), _steps_behind(run)
    if start:
        say(f"train: going on after step {start} of {recipe.steps}")
    dispersions = {name: one["dispersion"] for name, one in teachers.items() if one["dispersion"] is not None}
    module = Distillation(recipe, model, TokenMaps(source, shape), dispersions)
    datamodule = CachedViews(source, recipe)
    trainer = _trainer(recipe, datamodule, run, callbacks)
    if is_first():
        write_json(run.identity, identity)
        start_metrics(run, {"recipe": recipe.name, "student": recipe.student, "teachers": teachers}, start)
        trainer.loggers = make_loggers(recipe, source, run, identity, start)
    if not has_stalled(run, recipe.patience):
        _learn(trainer, module, datamodule, run, start)
    if is_first():
        scores = read_json(run.metrics)["evaluations"][-1]
        about = {**_about(recipe), **identity, "teachers": teachers, "scores": scores}
        maps = {name: one.phi_s for name, one in source.teachers.items()}
        export_student(finished_model(recipe, source, run), shape, maps, about, run)


def build_model(recipe: TrainRecipe, source: Source) -> tuple[DistilledModel, StudentShape]:
    """Build a student and its heads from the recipe's seed, after a look at every resolution of the run.

    Raises:
        SettingError: there is no such student, or it cannot take one of the resolutions.
    """
    teachers = {
        name: TeacherShape(dim=one.manifest.spec.dim, summary_dim=one.manifest.spec.summary_dim)
        for name, one in source.teachers.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(recipe.seed, "weights"))
        student = Student(recipe.student, recipe.image_size, recipe.vit, summarised(teachers))
        shape = measure_student(student, [view_set.resolution for view_set in source.sets])
        return DistilledModel(student, shape, teachers, recipe.heads), shape


def finished_model(recipe: TrainRecipe, source: Source, run: RunFolder) -> DistilledModel:
    """Return what the last checkpoint holds: the moving average where there is one, else the student."""
    prefix = "model." if recipe.average.decay is None else "average."
    state = read_checkpoint(run.checkpoint)["state_dict"]
    model, _ = build_model(recipe, source)
    model.load_state_dict({name.removeprefix(prefix): one for name, one in state.items() if name.startswith(prefix)})
    return model


def _trainer(recipe: TrainRecipe, datamodule: CachedViews, run: RunFolder, callbacks: Sequence[Callback]) -> Trainer:
    examiner = Examiner(run, datamodule)
    keeper = Keeper(run, recipe.running.checkpoint_every, recipe.steps)
    # scored before it is kept: a checkpoint has its scores
    return make_trainer(recipe, run, [Journal(run, datamodule, examiner), examiner, keeper, *callbacks])


def _learn(trainer: Trainer, module: Distillation, datamodule: CachedViews, run: RunFolder, start: int) -> None:
    with warnings.catch_warnings():
        # Lightning's own affair: it asks for a torch class by its old name
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        # the moving average, which never trains
        warnings.filterwarnings("ignore", message=".*in eval mode", category=UserWarning)
        trainer.fit(module, datamodule, ckpt_path=run.checkpoint if start else None, weights_only=True)


def _steps_behind(run: RunFolder) -> int:
    if not run.checkpoint.exists():
        return 0
    return int(read_checkpoint(run.checkpoint)["global_step"])


def _about(recipe: TrainRecipe) -> dict[str, Any]:
    return {
        "student": recipe.student,
        "image_size": recipe.image_size,
        "vit": asdict(recipe.vit),
        "heads": asdict(recipe.heads),
    }
