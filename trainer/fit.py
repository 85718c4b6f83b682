"""Carrying a run out: build the student, hand it to Lightning, export what comes back."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from storage_schemas.errors import Problem, SettingError
from storage_schemas.identity import Identity
from trainer.callbacks import Examiner, Journal, Keeper
from trainer.config import RunningSettings, TrainRecipe
from trainer.course import make_course
from trainer.datamodule import CachedViews
from trainer.export import export_student
from trainer.history import HistoryLogger
from trainer.metrics import start_metrics, teacher_facts
from trainer.model import DistilledModel, TeacherShape, summarised
from trainer.module import Distillation, torch_seed
from trainer.objective import TokenMaps
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.source import Source
from trainer.student import Student
from trainer.student_shape import StudentShape, measure_student

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


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
        SettingError: a student or an accelerator that cannot be used.
        ContractError: a loss that is no number.
    """
    make_course(source, recipe)  # refuses view sets that fill no batch before anything is built
    model, shape = build_model(recipe, source)
    say(f"train: {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M parameters with the heads")
    write_json(run.identity, identity)
    start = _steps_behind(run)
    if start:
        say(f"train: going on after step {start} of {recipe.steps}")
    teachers = teacher_facts(source)
    start_metrics(run, {"recipe": recipe.name, "student": recipe.student, "teachers": teachers}, start)
    dispersions = {name: one["dispersion"] for name, one in teachers.items() if one["dispersion"] is not None}
    module = Distillation(recipe, model, TokenMaps(source, shape), dispersions)
    datamodule = CachedViews(source, recipe)
    keeper = Keeper(run, recipe.running.checkpoint_every, recipe.steps)
    own = [Journal(run, datamodule), Examiner(run, datamodule), keeper]  # scored first: a checkpoint has its scores
    trainer = _lightning(recipe, run, _loggers(recipe, source, run, start), [*own, *callbacks])
    with warnings.catch_warnings():
        # Lightning's own affair: it asks for a torch class by its old name
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        # the moving average, which never trains
        warnings.filterwarnings("ignore", message=".*in eval mode", category=UserWarning)
        trainer.fit(module, datamodule, ckpt_path=run.checkpoint if start else None, weights_only=True)
    about = {**_about(recipe), **identity, "teachers": teachers, "scores": read_json(run.metrics)["evaluations"][-1]}
    export_student(module.finished, shape, {name: one.phi_s for name, one in source.teachers.items()}, about, run)


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


def _lightning(recipe: TrainRecipe, run: RunFolder, loggers: list[Logger], callbacks: list[Callback]) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return Trainer(
        default_root_dir=run.path,
        accelerator=_accelerator(recipe.running),
        devices=1,
        precision=PRECISIONS[recipe.precision],  # type: ignore[arg-type]
        max_steps=recipe.steps,
        gradient_clip_val=recipe.optimiser.gradient_clip,
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,  # the journal minds its own cadence
    )


def _accelerator(settings: RunningSettings) -> str:
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        found, fix = "torch sees no GPU", "install a torch that fits the driver, or take --running.accelerator cpu"
        raise SettingError("accelerator", [Problem(place="running.accelerator", found=found, fix=fix)])
    return "gpu" if settings.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _loggers(recipe: TrainRecipe, source: Source, run: RunFolder, start: int) -> list[Logger]:
    kinds: dict[str, Callable[[], Logger]] = {
        "csv": lambda: HistoryLogger(run.history, _columns(recipe, source), start),
        "tensorboard": lambda: TensorBoardLogger(
            save_dir=run.path, name=run.tensorboard.name, version="", purge_step=start + 1 if start else None
        ),
    }
    return [kinds[name]() for name in recipe.running.loggers]


def _columns(recipe: TrainRecipe, source: Source) -> list[str]:
    """Every value that the history may hold, without the step."""
    parts = {
        f"{view_set.partition}/{name}/{kind}"
        for view_set, one in source.sets.items()
        for name, seen in one.features.items()
        for kind in ("spatial", *(["summary"] if seen.has_summary else []))
    }
    if recipe.average.mesa_weight:
        parts |= {f"{view_set.partition}/mesa" for view_set in source.sets}
    scores = [f"fidelity/{name}" for name in source.teachers]
    return ["loss", "lr", "views_per_second", "wait_share", *sorted(parts), *scores]


def _steps_behind(run: RunFolder) -> int:
    if not run.checkpoint.exists():
        return 0
    return int(torch.load(run.checkpoint, map_location="cpu", mmap=True, weights_only=True)["global_step"])


def _about(recipe: TrainRecipe) -> dict[str, Any]:
    return {
        "student": recipe.student,
        "image_size": recipe.image_size,
        "vit": asdict(recipe.vit),
        "heads": asdict(recipe.heads),
    }
