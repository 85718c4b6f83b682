"""All settings of a training run, with meaning and unit. A recipe is a function that returns a `TrainRecipe`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, final

import tyro

from storage_schemas.format.errors import Problem, SettingError
from trainer.settings.learning import AverageSettings, DampedLayers, LossSettings, OptimiserSettings, StageSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings, VitSettings, student_problems
from trainer.settings.unrecorded import unrecorded

Precision = Literal["fp32", "bf16"]
LATER_SETTINGS: Mapping[str, Any] = {
    "vit.spare_class_tokens": 0,
    "optimiser.layer_decay": None,
    "optimiser.new_lr": None,
}
"""Setting that version 0.1.0 did not have → its value that changes nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """One training run."""

    name: Annotated[str, tyro.conf.Suppress]
    """Name of the recipe."""
    student: str
    """Backbone of the student. `tiny`, `small`, `base`, `large`, `so400m` and `huge` are
    vision transformers with RADIO's additions. The name of a timm model gives that model as timm builds it. `radio_`
    before the name of a timm vision transformer gives that model with RADIO's additions."""
    student_weights: Annotated[str, tyro.conf.arg(name="student.weights")] = ""
    """Weights that the student starts from. Empty: random weights. `timm`: those that timm publishes for the student's
    model. A tag of that model, or another timm model with its tag: `vit_small_patch16_224.augreg_in21k`. A file or
    folder: weights of timm or of C-RADIO (NVlabs' or transformers' names). The folder of a finished run: its student,
    with the heads of the teachers that both runs have. A resumed run does not load them again."""
    image_size: int | None = None
    """Image side (pixels) that the backbone's position table is made for; None: timm's default. For windows of another
    size the table is resampled. Students with RADIO's additions do not take this setting: they have a position grid."""
    steps: int
    """Optimiser steps of the whole run."""
    patience: int = 0
    """Early stopping: the run stops, and exports its student, after this many evaluations (every
    `running.evaluate_every` steps) without a better mean log fidelity. 0: never stop early."""
    seed: int = 0
    """Seed of the student's initial weights, of the order of views and of the student's windows."""
    precision: Precision = "fp32"
    """Precision of the forward and backward pass. `bf16` is autocast: weights and losses stay in float32."""
    vit: VitSettings = field(default_factory=VitSettings)
    heads: HeadSettings = field(default_factory=HeadSettings)
    stages: tuple[StageSettings, ...] = ()
    """Stages of the run. Their steps must add up to `steps`. None named: the run is one stage."""
    damp: float = 0.0
    """DAMP (v4 section 2.4): σ of the multiplicative noise on weights in training. 0: no noise. Not published for
    C-RADIOv4; the authors of DAMP use 0.1 for ViT-S and ResNet-50."""
    damp_layers: DampedLayers = "backbone"
    """Layers whose weights get the noise of DAMP. `backbone`: every linear layer of the backbone and its patch
    embedding, but not the heads, as in NVlabs/RADIO. `all-linear`: every linear layer of backbone and heads, but not
    the patch embedding; runs that began before this setting existed keep it."""
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    average: AverageSettings = field(default_factory=AverageSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    running: RunningSettings = field(default_factory=RunningSettings)

    def __post_init__(self) -> None:
        if problems := [
            *student_problems(self.vit, self.heads),
            *_counts_too_small(self),
            *_numbers_out_of_range(self),
            *_conflicts(self),
        ]:
            raise SettingError("train recipe", problems)

    def identity(self) -> dict[str, Any]:
        """Return every setting that the trained weights depend on, as JSON-ready values.

        Settings that version 0.1.0 did not have are left out where they change nothing, so that its runs can resume.
        """
        values = asdict(self)
        del values["running"], values["student_weights"]  # they are known by their digest, not by their path
        for place, unused in LATER_SETTINGS.items():
            *groups, name = place.split(".")
            group = values
            for inner in groups:
                group = group[inner]
            if group[name] == unused:
                del group[name]
        return values


def under_rules_of(stored: Mapping[str, Any], recipe: TrainRecipe) -> TrainRecipe:
    """Return a recipe with the old values of the settings that a stored recipe does not record.

    Args:
        stored: the recipe in the identity of a run.
        recipe: the recipe that the user names.
    """
    for name, value in unrecorded(stored).items():
        part, _, setting = name.rpartition(".")
        changes: dict[str, Any] = {setting: value}
        recipe = replace(recipe, **({part: replace(getattr(recipe, part), **changes)} if part else changes))
    return recipe


def _counts_too_small(recipe: TrainRecipe) -> Iterator[Problem]:
    least = {
        "steps": (recipe.steps, 1),
        "patience": (recipe.patience, 0),
        "data.batch_low": (recipe.data.batch_low, 1),
        "data.batch_high": (recipe.data.batch_high, 1),
        "data.window_shards": (recipe.data.window_shards, 1),
        "optimiser.warmup": (recipe.optimiser.warmup, 0),
        "optimiser.frozen_trunk": (recipe.optimiser.frozen_trunk, 0),
        "average.mesa_start": (recipe.average.mesa_start, 0),
        **{f"stages.{place}.steps": (stage.steps, 1) for place, stage in enumerate(recipe.stages)},
        "running.devices": (recipe.running.devices, 1),
        "running.nodes": (recipe.running.nodes, 1),
        "running.workers": (recipe.running.workers, 0),
        "running.read_ahead": (recipe.running.read_ahead, 1),
        "running.read_cache_bytes": (recipe.running.read_cache_bytes, 1 if recipe.running.read_cache else 0),
        "running.accumulate": (recipe.running.accumulate, 1),
        "running.micro_batch_tokens": (recipe.running.micro_batch_tokens, 0),
        "running.log_every": (recipe.running.log_every, 1),
        "running.evaluate_every": (recipe.running.evaluate_every, 0),
        "running.tasks_every": (recipe.running.tasks_every, 0),
        "running.checkpoint_every": (recipe.running.checkpoint_every, 1),
        "running.keep": (recipe.running.keep, 1),
    }
    for place, (value, bound) in least.items():
        if value < bound:
            yield Problem(place=place, found=f"{value} is less than {bound}")


def _numbers_out_of_range(recipe: TrainRecipe) -> Iterator[Problem]:
    loss, optimiser = recipe.loss, recipe.optimiser
    numbers = {
        "loss.spatial_weight": loss.spatial_weight,
        "loss.summary_weight": loss.summary_weight,
        "loss.low_weight": loss.low_weight,
        "loss.high_weight": loss.high_weight,
        "optimiser.weight_decay": optimiser.weight_decay,
        "average.mesa_weight": recipe.average.mesa_weight,
        "damp": recipe.damp,
        **{f"loss.teacher_weights.{name}": weight for name, weight in loss.teacher_weights.items()},
    }
    positive = {
        "optimiser.lr": optimiser.lr,
        **{f"data.proportions.{name}": weight for name, weight in recipe.data.proportions.items()},
        **{
            f"stages.{place}.proportions.{name}": weight
            for place, stage in enumerate(recipe.stages)
            for name, weight in stage.proportions.items()
        },
        **({} if optimiser.gradient_clip is None else {"optimiser.gradient_clip": optimiser.gradient_clip}),
        **({} if optimiser.new_lr is None else {"optimiser.new_lr": optimiser.new_lr}),
    }
    infinity = float("inf")
    for place, value in numbers.items():
        if not 0 <= value < infinity:
            yield Problem(place=place, found=f"{value} is not a finite number of at least 0")
    for place, value in positive.items():
        if not 0 < value < infinity:
            yield Problem(place=place, found=f"{value} is not a positive number")
    shares = {"optimiser.beta1": optimiser.beta1, "optimiser.beta2": optimiser.beta2}
    if recipe.average.decay is not None:
        shares["average.decay"] = recipe.average.decay
    for place, value in shares.items():
        if not 0 <= value < 1:
            yield Problem(place=place, found=f"{value} is not in [0, 1)")


def _conflicts(recipe: TrainRecipe) -> Iterator[Problem]:
    if recipe.optimiser.layer_decay is not None and not 0 < recipe.optimiser.layer_decay <= 1:
        yield Problem(place="optimiser.layer_decay", found=f"{recipe.optimiser.layer_decay} is not in (0, 1]")
    if recipe.optimiser.new_lr is not None and not recipe.student_weights:
        found, fix = "without starting weights every part is new", "set optimiser.lr, or student.weights"
        yield Problem(place="optimiser.new_lr", found=found, fix=fix)
    if recipe.average.mesa_weight and recipe.average.decay is None:
        found = "MESA compares the student with its moving average, but this run keeps no moving average"
        yield Problem(place="average.mesa_weight", found=found, fix="set average.decay")
    if recipe.loss.balance == "view-set" and recipe.loss.spatial != "mse":
        found = f"{recipe.loss.spatial} is not a squared error, so it is not divided by a variance"
        yield Problem(place="loss.balance", found=found, fix="set loss.balance to teacher")
    if recipe.patience and not recipe.running.evaluate_every:
        found = "early stopping needs evaluations between the first and the last step"
        yield Problem(place="patience", found=found, fix="set running.evaluate_every")
    if recipe.patience and not recipe.running.evaluate:
        found = "early stopping needs the scores of evaluations"
        yield Problem(place="patience", found=found, fix="set running.evaluate to True, or patience to 0")
    processes = recipe.running.devices * recipe.running.nodes
    for place, views in {"data.batch_low": recipe.data.batch_low, "data.batch_high": recipe.data.batch_high}.items():
        if processes > 1 and views % processes:
            found = f"{views} views cannot be divided equally among {processes} training processes"
            yield Problem(place=place, found=found)
    steps_of_stages = sum(stage.steps for stage in recipe.stages)
    if recipe.stages and steps_of_stages != recipe.steps:
        found = f"the stages have {steps_of_stages} steps together, the run has {recipe.steps}"
        fix = f"set steps to {steps_of_stages}, or change the steps of a stage with --stages.0.steps"
        yield Problem(place="stages", found=found, fix=fix)
