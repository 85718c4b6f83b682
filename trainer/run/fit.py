"""Fitting the student of a run: build it, train it with Lightning, export what the last checkpoint holds."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.phi_s import PhiS
from storage_schemas.objects.file_lock import locked
from storage_schemas.objects.publish import TEMPORARY
from trainer.data.datamodule import CachedViews
from trainer.data.source import Source
from trainer.export import export_student
from trainer.learning.module import Distillation, torch_seed
from trainer.objective.token_maps import TokenMaps
from trainer.run.checkpoint import read_checkpoint, require_checkpoint_of, steps_in_checkpoint
from trainer.run.checkpoint_writer import CheckpointWriter
from trainer.run.disk import disk_refusals
from trainer.run.heldout_evaluation import HeldoutEvaluation
from trainer.run.heldout_tasks import HeldoutTasks, LabelledRows, label_rows
from trainer.run.lightning_trainer import make_trainer, slurm_errors
from trainer.run.loggers import make_loggers, require_loggers
from trainer.run.metrics import has_stalled, start_metrics, teacher_facts
from trainer.run.processes import is_first
from trainer.run.progress_logging import ProgressLogging
from trainer.run.sessions import recorded_session
from trainer.run.stop_at_step_end import StopAtStepEnd
from trainer.run.training_run import TrainingRun
from trainer.run_folder import identity_with_changes, read_json, require_run, write_json
from trainer.settings.config import TrainRecipe
from trainer.stopping import Stopped, StopRequest
from trainer.student.model import DistilledModel, TeacherShape, summarised
from trainer.student.shape import StudentShape, measure_student
from trainer.student.student import Student
from trainer.weights.start import StartedStudent, start_from


def fit(
    run: TrainingRun,
    say: Callable[[str], None],
    callbacks: Sequence[Callback] = (),
    request: StopRequest | None = None,
) -> None:
    """Train from the last checkpoint, or from the start, and export the student.

    Args:
        run: the run. Its folder is empty, or holds this run.
        say: receives each line for the user.
        callbacks: further callbacks for Lightning.
        request: whether a signal has asked this process to stop; None for a run that no signal stops.

    Raises:
        SettingError: a view set, a student, an accelerator, a strategy or a logger that cannot be used.
        ContractError: the loss is infinite or NaN.
        BusyError: another process trains in the folder.
        StorageError: the disk is full, cannot be written, or fails. The last checkpoint stays.
        Stopped: a signal has stopped the run.
    """
    views = CachedViews(run.source, run.recipe)  # checks the view sets before anything large is built
    require_loggers(run.recipe)
    model, shape = build_model(run.recipe, run.source)
    say(f"train: {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M parameters with the heads")
    with locked(run.folder.lock, f"train {run.recipe.student}") if is_first() else nullcontext():
        require_run(run.folder, run.identity, run.accepted)  # another process may have written to the folder since
        if not run.folder.is_finished(run.recipe.steps):
            with disk_refusals(run.folder.path):
                _fit(run, views, model, shape, say, callbacks, request or StopRequest())


def _fit(
    run: TrainingRun,
    views: CachedViews,
    model: DistilledModel,
    shape: StudentShape,
    say: Callable[[str], None],
    callbacks: Sequence[Callback],
    request: StopRequest,
) -> None:
    labelled = label_rows(run.source, run.recipe)
    start = steps_in_checkpoint(run.folder.checkpoint)
    started = None
    if start:
        say(f"train: resuming after step {start} of {run.recipe.steps}")
    elif run.weights is not None:
        started = start_from(model, run.weights, _phi_s(run.source))
        for line in started.lines:
            say(f"train: weights: {line}")
    new = _new_parts(run, started)
    variances = {name: teacher.variances for name, teacher in run.source.teachers.items()}
    module = Distillation(
        run.recipe, model, TokenMaps(run.source, shape.tokens), _dispersions(run.source), new, variances
    )
    if start:
        require_checkpoint_of(run.folder.checkpoint, module)
    trainer = make_trainer(run.recipe, run.folder, [*_callbacks(run, views, labelled, request), *callbacks])
    if is_first():
        _start_records(run, start, _parameters(model), started)
        trainer.loggers = make_loggers(run, start)
    if not has_stalled(run.folder, run.recipe.patience):
        device = trainer.strategy.root_device.type
        with recorded_session(run.folder, start, device, lambda: trainer.global_step) if is_first() else nullcontext():
            _train(trainer, module, views, run, start)
            _require_not_stopped(request, trainer.global_step, run)
    if is_first():
        _export(run, shape)


def build_model(recipe: TrainRecipe, source: Source) -> tuple[DistilledModel, StudentShape]:
    """Build a student and its heads from the recipe's seed, and check that it supports every resolution of the run.

    Raises:
        SettingError: there is no such student, or it does not support one of the resolutions.
    """
    specs = {name: teacher.manifest.spec for name, teacher in source.teachers.items()}
    teachers = {name: TeacherShape(dim=spec.dim, summary_dim=spec.summary_dim) for name, spec in specs.items()}
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(recipe.seed, "weights"))
        student = Student(recipe.student, recipe.image_size, recipe.vit, summarised(teachers))
        shape = measure_student(student, [view_set.resolution for view_set in source.sets])
        return DistilledModel(student, shape, teachers, recipe.heads), shape


def _dispersions(source: Source) -> dict[str, float]:
    by_teacher = {name: teacher.stats.dispersion for name, teacher in source.teachers.items()}
    return {name: dispersion for name, dispersion in by_teacher.items() if dispersion is not None}


def _callbacks(
    run: TrainingRun, views: CachedViews, labelled: Mapping[str, LabelledRows], request: StopRequest
) -> list[Callback]:
    stop = StopAtStepEnd(request)
    evaluation = HeldoutEvaluation(run.folder, views, stop, scored=run.is_scored)
    tasks = HeldoutTasks(run.folder, views, stop, labelled)
    # the order is that of the calls: a checkpoint is written after the scores of its step
    return [
        stop,
        ProgressLogging(run.folder, views, evaluation),
        evaluation,
        tasks,
        CheckpointWriter(run.folder, run.recipe.running, run.recipe.steps),
    ]


def _parameters(model: DistilledModel) -> dict[str, int]:
    """Return how many parameters the backbone has, and the heads that learn with it."""
    total = sum(weight.numel() for weight in model.parameters())
    backbone = sum(weight.numel() for weight in model.student.parameters())
    return {"backbone": backbone, "heads": total - backbone}


def _new_parts(run: TrainingRun, started: StartedStudent | None) -> Sequence[str]:
    """Return the names of the parameters that the starting weights did not hold; a run that resumes has a record."""
    if run.weights is None or started is not None:
        return () if started is None else started.new
    stored = read_json(run.folder.identity) if run.folder.identity.exists() else {}
    if "start" not in stored:
        found, fix = "does not say what the starting weights gave", "restore it from a copy"
        raise MissingError("run", [Problem(place=str(run.folder.identity), found=found, fix=fix)])
    return list(stored["start"]["new"])


def _start_records(run: TrainingRun, start: int, parameters: Mapping[str, int], started: StartedStudent | None) -> None:
    for leftover in run.folder.path.glob(f"*{TEMPORARY}"):
        leftover.unlink()  # of a process that was killed while it wrote; no other one writes here now
    records = identity_with_changes(run.folder, run.identity, start)
    if started is not None and run.weights is not None:
        given = {"weights": run.weights.setting, "sha256": run.weights.sha256}
        records["start"] = {**given, "lines": started.lines, "new": started.new}
    write_json(run.folder.identity, records)
    about = {
        "recipe": run.recipe.name,
        "student": run.recipe.student,
        "parameters": parameters,
        "teachers": teacher_facts(run.source),
    }
    start_metrics(run.folder, about, start)


def _train(trainer: Trainer, module: Distillation, views: CachedViews, run: TrainingRun, start: int) -> None:
    with warnings.catch_warnings():
        # Lightning uses the old name of a torch class
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        # the moving average is in evaluation mode on purpose
        warnings.filterwarnings("ignore", message=".*in eval mode", category=UserWarning)
        try:
            with slurm_errors():
                trainer.fit(module, views, ckpt_path=run.folder.checkpoint if start else None, weights_only=True)
        except Stopped as stopped:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(stopped.number)  # processes that this one has started
            raise


def _require_not_stopped(request: StopRequest, step: int, run: TrainingRun) -> None:
    """Raise `Stopped` if a signal has ended the training, or has come since."""
    request.deferred = False
    if request.received:
        kept = "with a checkpoint" if run.folder.checkpoint.exists() else "before the first checkpoint"
        raise Stopped(request.received, f" after step {step} of {run.recipe.steps}, {kept}")


def _export(run: TrainingRun, shape: StudentShape) -> None:
    recipe = run.recipe
    about: dict[str, Any] = {
        "student": recipe.student,
        "image_size": recipe.image_size,
        "vit": asdict(recipe.vit),
        "heads": asdict(recipe.heads),
        **read_json(run.folder.identity),
        "teachers": teacher_facts(run.source),
        "scores": next(reversed(read_json(run.folder.metrics)["evaluations"]), None),
    }
    export_student(_finished_model(run), shape, _phi_s(run.source), about, run.folder)


def _phi_s(source: Source) -> dict[str, PhiS]:
    return {name: teacher.phi_s for name, teacher in source.teachers.items()}


def _finished_model(run: TrainingRun) -> DistilledModel:
    """Return the model of the last checkpoint: the moving average if there is one, else the student."""
    prefix = "model." if run.recipe.average.decay is None else "average."
    weights = read_checkpoint(run.folder.checkpoint)["state_dict"]
    model, _ = build_model(run.recipe, run.source)
    model.load_state_dict(
        {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    )
    return model
