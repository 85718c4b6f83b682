"""A run from end to end: it learns, goes on where it was cut off, is finished once, and refuses what is not its."""

import gc
import json
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, IdentityError, SettingError
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from trainer.data.source import open_source
from trainer.export import load
from trainer.run.fit import fit
from trainer.run.history import read_history
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import LossSettings, OptimiserSettings
from trainer.settings.running import DataSettings

Recipes = Callable[..., TrainRecipe]
STEPS = 10


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class CutAfter(Callback):
    """Ends the run after a step, before anything of that step is kept."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise PowerCutError


class Watch(Callback):
    """Notes what every step learnt from, and what a model could draw in it."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[float]]] = []

    def on_train_batch_start(self, trainer: Trainer, _: LightningModule, batch: Any, *__: Any) -> None:
        self.steps.append((trainer.global_step, [float(part.pixels.double().sum()) for part in batch]))

    def on_after_backward(self, *_: Any) -> None:
        self.steps[-1][1].append(float(torch.rand(1)))  # what dropout would draw


def run_with(recipe: TrainRecipe, cache: Cache, folder: Path, *callbacks: Callback) -> RunFolder:
    """Train as `train` does, with a look inside."""
    source, run = open_source(cache, recipe.data.teachers, recipe.data.proportions), RunFolder(path=folder)
    fit(TrainingRun(recipe=recipe, source=source, folder=run), lambda _: None, callbacks)
    return run


def losses(run: RunFolder) -> list[tuple[str, str]]:
    return [(row["step"], row["loss"]) for row in read_history(run.history) if row["loss"]]


@pytest.fixture(scope="session")
def undisturbed(
    full_cache: Cache, tmp_path_factory: pytest.TempPathFactory, recipe_of: Recipes
) -> tuple[RunFolder, list[tuple[int, list[float]]]]:
    """A run that nothing disturbed, and what its steps learnt from."""
    watch = Watch()
    return run_with(recipe_of(steps=STEPS), full_cache, tmp_path_factory.mktemp("run"), watch), watch.steps


def test_fidelity_rises_and_ends_above_one_for_every_teacher(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    run = run_with(recipe_of(steps=25, optimiser=OptimiserSettings(lr=3e-3, warmup=3)), full_cache, tmp_path)
    first, last = read_json(run.metrics)["evaluations"]
    assert (first["step"], last["step"]) == (0, 25)
    for name in ("any", "canvas", "fixed"):
        before, after = (evaluation["teachers"][name]["fidelity"] for evaluation in (first, last))
        assert before < 1 < after


@pytest.mark.parametrize("cut", [0, 5, 8])
def test_a_run_that_was_cut_off_goes_on_with_the_very_next_batch_and_ends_in_the_same_weights(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, undisturbed: Any, cut: int
) -> None:
    whole, steps = undisturbed
    recipe, before, after = recipe_of(steps=STEPS), Watch(), Watch()
    with pytest.raises(PowerCutError):
        run_with(recipe, full_cache, tmp_path, before, CutAfter(cut))
    run = run_with(recipe, full_cache, tmp_path, after)
    kept = cut // 4 * 4  # a checkpoint every four steps
    assert before.steps[:cut] == steps[:cut]
    assert after.steps == steps[kept:]
    assert run.weights.read_bytes() == whole.weights.read_bytes()
    assert losses(run) == losses(whole)
    assert read_json(run.metrics)["evaluations"] == read_json(whole.metrics)["evaluations"]


def test_a_checkpoint_is_never_ahead_of_the_scores_of_its_step(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    class Auditor(Callback):
        def __init__(self) -> None:
            self.scored: list[list[int]] = []

        def on_save_checkpoint(self, *_: Any) -> None:
            self.scored.append(
                [evaluation["step"] for evaluation in read_json(tmp_path / "metrics.json")["evaluations"]]
            )

    auditor = Auditor()
    run_with(recipe_of(steps=6, running={"checkpoint_every": 2, "evaluate_every": 2}), full_cache, tmp_path, auditor)
    assert auditor.scored == [[0, 2], [0, 2, 4], [0, 2, 4, 6]]


KILLED = """
import os, pickle, signal, sys
import torch
torch.set_num_threads({threads})
from lightning.pytorch.callbacks import Callback
from trainer.run.fit import fit
from trainer.run.training_run import TrainingRun

class Kill(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)

recipe, source, run = pickle.load(open({values!r}, "rb"))
fit(TrainingRun(recipe=recipe, source=source, folder=run), print, [Kill()])
"""


def test_a_process_that_was_killed_leaves_a_run_that_goes_on_to_the_same_weights(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, undisturbed: Any
) -> None:
    recipe, run, values = recipe_of(steps=STEPS), RunFolder(path=tmp_path / "run"), tmp_path / "values"
    values.write_bytes(pickle.dumps((recipe, open_source(full_cache), run)))
    program = KILLED.format(threads=torch.get_num_threads(), values=str(values))
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    said: list[str] = []
    train(recipe, full_cache.store.uri, run.path, said.append)
    assert f"train: resuming after step 4 of {STEPS}" in said
    assert run.weights.read_bytes() == undisturbed[0].weights.read_bytes()


def test_a_finished_run_computes_nothing_and_says_so(full_cache: Cache, tmp_path: Path, recipe_of: Recipes) -> None:
    recipe, said = recipe_of(steps=2), list[str]()
    run = train(recipe, full_cache.store.uri, tmp_path / "run", said.append)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    train(recipe_of(steps=2, running={"log_every": 2}), full_cache.store.uri, tmp_path / "run", said.append)
    assert said[-1] == f"train: {tmp_path / 'run'} is finished, nothing to do (2 steps)"
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_run_says_what_it_learns_from_and_that_random_teachers_know_nothing(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    said: list[str] = []
    train(recipe_of(steps=1), full_cache.store.uri, tmp_path / "run", said.append)
    assert said[:5] == [
        "train: student test_vit, 1 steps",
        "train: high-64: 7 train, 2 heldout views; teachers any, canvas, fixed",
        "train: low-32: 8 train, 2 heldout views; teachers any, canvas, fixed",
        "train: low-48: 11 train, 3 heldout views; teachers any, canvas, fixed",
        "train: RANDOM WEIGHTS: any, canvas, fixed were never trained; this is a demonstration",
    ]


def test_the_progress_bar_shows_the_loss_the_speed_the_wait_and_every_teachers_fidelity(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(recipe_of(steps=1), full_cache.store.uri, tmp_path / "run", lambda _: None)
    last = capsys.readouterr().err.split("\r")[-1]
    shown = dict(part.strip("], \n").split("=") for part in last.split(", ") if "=" in part)
    assert list(shown) == ["loss", "views/s", "waiting", "any", "canvas", "fixed"]
    [(_, loss)] = losses(run)
    assert shown["loss"] == f"{float(loss):.3f}"
    [untrained, _] = read_json(run.metrics)["evaluations"]
    for name, score in untrained["teachers"].items():
        assert shown[name] == f"{score['fidelity']:.2f}"


def test_a_card_says_of_what_recipe_cache_and_teachers_a_student_is_and_how_good(
    full_cache: Cache, recipe_of: Recipes, undisturbed: Any
) -> None:
    run, _ = undisturbed
    card = read_json(run.card)
    assert card["recipe"] == json.loads(json.dumps(recipe_of(steps=STEPS).identity()))
    assert card["cache"] == json.loads(json.dumps(open_source(full_cache).identity))
    for name in ("any", "canvas", "fixed"):
        said = card["teachers"][name]
        assert (said["model"], said["licence"]) == (f"{name} of the tests", f"{name}'s own")
    assert card["scores"] == read_json(run.metrics)["evaluations"][-1]


@pytest.mark.parametrize("largest", [None, 0.05])
def test_the_norm_of_the_whole_gradient_is_at_most_what_the_recipe_says(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, largest: float | None
) -> None:
    class Measure(Callback):
        def __init__(self) -> None:
            self.norms: list[float] = []

        def on_train_batch_end(self, _: Trainer, module: LightningModule, *__: Any) -> None:
            gradients = [weight.grad.flatten() for weight in module.parameters() if weight.grad is not None]
            self.norms.append(float(torch.cat(gradients).norm()))

    measure = Measure()
    settings = OptimiserSettings(lr=2e-3, gradient_clip=largest)
    run_with(recipe_of(steps=2, optimiser=settings), full_cache, tmp_path, measure)
    assert [norm == pytest.approx(0.05, rel=1e-4) for norm in measure.norms] == [largest is not None] * 2


@pytest.mark.slow
def test_memory_does_not_grow_while_a_student_learns(full_cache: Cache, tmp_path: Path, recipe_of: Recipes) -> None:
    class Measure(Callback):
        def __init__(self) -> None:
            self.bytes: dict[int, int] = {}

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step in (200, 600):
                gc.collect()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                self.bytes[trainer.global_step] = pages * resource.getpagesize()

    measure = Measure()
    running = {"checkpoint_every": 100, "evaluate_every": 100, "log_every": 10}
    run_with(recipe_of(steps=601, running=running), full_cache, tmp_path, measure)  # some two hundred epochs
    assert measure.bytes[600] - measure.bytes[200] < 8 * 2**20


def test_a_run_of_other_settings_is_refused_with_both_values_and_nothing_is_touched(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    with pytest.raises(PowerCutError):
        run_with(recipe_of(steps=8), full_cache, tmp_path, CutAfter(5))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(IdentityError) as refusal:
        train(recipe_of(steps=9, seed=1), full_cache.store.uri, tmp_path)
    assert [str(problem) for problem in refusal.value.problems[:-1]] == [
        "recipe.seed: the run there has 0, this run has 1",
        "recipe.steps: the run there has 8, this run has 9",
    ]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_student_that_cannot_be_used_leaves_no_run_behind(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    with pytest.raises(SettingError):
        train(recipe_of(student="vit_tinny"), full_cache.store.uri, tmp_path / "run", lambda _: None)
    assert not (tmp_path / "run").exists()


def test_a_weight_for_a_teacher_that_does_not_teach_is_refused(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(loss=LossSettings(teacher_weights={"any": 2.0, "dinov3": 1.0}))
    with pytest.raises(SettingError) as refusal:
        train(recipe, full_cache.store.uri, tmp_path, lambda _: None)
    assert str(refusal.value) == (
        "loss.teacher_weights cannot be used:\n"
        "  dinov3: is not a teacher of this run (the teachers are any, canvas, fixed)"
    )


@pytest.mark.parametrize(("log_every", "noticed"), [(1, 7), (100, 8)])
def test_a_loss_that_is_no_number_stops_the_run_before_a_checkpoint(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, log_every: int, noticed: int
) -> None:
    class Spoil(Callback):
        def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
            if trainer.global_step == 6:
                torch.nn.init.constant_(module.model.heads["any_spatial"].adaptor.last.bias, float("nan"))

    with pytest.raises(ContractError) as refusal:
        run_with(recipe_of(steps=12, running={"log_every": log_every}), full_cache, tmp_path, Spoil())
    assert str(refusal.value) == (
        f"training breaks the storage contract:\n  step {noticed}: the loss is nan "
        "(lower optimiser.lr, increase optimiser.warmup, or set optimiser.gradient_clip, and resume from the last "
        "checkpoint with --running.accept-changes True)"
    )
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4


def test_a_teacher_that_saw_one_set_teaches_there_and_a_convnet_learns_too(
    tmp_path: Path, recipe_of: Recipes, cache_maker: Any, specs: dict[str, TeacherSpec]
) -> None:
    maker = cache_maker(tmp_path / "cache", {"low-64": 6, "low-96": 6}).views()
    maker.teacher(specs["any"]).stats(specs["any"])
    low_96 = ViewSet(partition="low", resolution=96)
    maker.teacher(specs["canvas"], lambda view_set, _: view_set == low_96).stats(specs["canvas"])
    recipe = recipe_of(student="test_convnext", steps=3)
    run = train(recipe, maker.store.uri, tmp_path / "run", lambda _: None)
    [*_, last] = read_json(run.metrics)["evaluations"]
    assert {name: list(score["sets"]) for name, score in last["teachers"].items()} == {
        "any": ["low-64", "low-96"],
        "canvas": ["low-96"],
    }
    output = load(run.path)(torch.rand(1, 3, 64, 96))
    assert output.spatial["any"].shape == (1, 2, 3, 8)


def test_a_run_may_leave_sets_and_teachers_out(full_cache: Cache, tmp_path: Path, recipe_of: Recipes) -> None:
    data = DataSettings(teachers=("canvas",), proportions={"low-48": 1.0}, batch_low=4, window_shards=2)
    run = train(recipe_of(steps=1, data=data), full_cache.store.uri, tmp_path / "run", lambda _: None)
    [*_, last] = read_json(run.metrics)["evaluations"]
    assert {name: list(score["sets"]) for name, score in last["teachers"].items()} == {"canvas": ["low-48"]}


def test_tensorboard_holds_the_losses_where_it_is_asked_for(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = recipe_of(steps=2, running={"loggers": ("csv", "tensorboard")})
    run = train(recipe, full_cache.store.uri, tmp_path / "run", lambda _: None)
    events = EventAccumulator(str(run.tensorboard)).Reload()
    kept = [(str(event.step), pytest.approx(event.value)) for event in events.Scalars("loss")]
    assert [(step, float(loss)) for step, loss in losses(run)] == kept


def test_metrics_hold_the_facts_of_each_teacher(full_cache: Cache, undisturbed: Any) -> None:
    facts = read_json(undisturbed[0].metrics)["teachers"]
    stats = full_cache.stats("any")
    assert stats is not None
    assert facts["any"]["dispersion"] == stats.dispersion
    assert facts["any"]["variance_residual"] == stats.pooled.variance_residual
    assert (facts["any"]["rows"], facts["canvas"]["dispersion"]) == (33, None)
    stored = [
        Path(full_cache.store.uri, "features.zarr", "teachers", "any", name) for name in ("low-32", "low-48", "high-64")
    ]
    assert facts["any"]["bytes"] == sum(
        path.stat().st_size
        for folder in stored
        for path in folder.rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )
