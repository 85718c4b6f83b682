"""A step that fits: backward passes per micro-batch, and recomputed blocks, with the gradients of a plain step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from own_processes import carry_out, losses
from step_memory import module_of, training_batches
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from storage_schemas.format.teacher import TeacherSpec
from trainer.data.loader import Batches
from trainer.data.source import Source, open_source
from trainer.learning.micro_batches import MicroBatch
from trainer.learning.module import Distillation
from trainer.run.checkpoint import steps_in_checkpoint
from trainer.run.fit import fit
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings
from trainer.settings.running import DataSettings
from trainer.settings.student import HeadSettings, VitSettings

Recipes = Callable[..., TrainRecipe]
EVERYTHING: dict[str, Any] = {
    "student": "radio_test_vit",
    "vit": VitSettings(position_grid=8, registers=2, global_blocks=2, windows=(2,)),
    "average": AverageSettings(decay=0.9, mesa_weight=0.5),
    "damp": 0.05,
}


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class CutAfter(Callback):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise PowerCutError


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache)


def gradients(module: Distillation) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in module.model.named_parameters() if weight.grad is not None}


def in_one_graph(module: Distillation, batch: Batches) -> Tensor:
    """The loss of a step, whose backward pass is one: the step as its equation has it."""
    torch.manual_seed(0)
    loss = torch.stack([module._loss(MicroBatch(views=part, share=1.0), {}) for part in batch]).sum()
    loss.backward()
    return loss.detach()


def stepped(module: Distillation, batch: Batches) -> Tensor:
    torch.manual_seed(0)
    loss = module.training_step(batch, 0)["loss"]
    loss.backward()
    module.optimizer_zero_grad(0, 0, torch.optim.SGD(module.model.parameters()))
    return loss.detach()


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes of the tensors that forward passes keep for backward passes."""

    def __init__(self) -> None:
        self.bytes = 0

        def pack(tensor: Tensor) -> Tensor:
            self.bytes += tensor.nbytes
            return tensor

        super().__init__(pack, lambda tensor: tensor)


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        largest = expected[name].abs().max()
        assert (gradient - expected[name]).abs().max() <= 1e-6 * largest + 1e-9, name


def test_a_backward_pass_for_each_partition_gives_the_gradients_of_one_for_the_step(
    source: Source, recipe_of: Recipes
) -> None:
    recipe = recipe_of(**EVERYTHING)
    batch = training_batches(recipe, source)
    assert [part.view_set.partition for part in batch] == ["low", "high"]
    plain, module = module_of(recipe, source), module_of(recipe, source)
    assert float(stepped(module, batch)) == pytest.approx(float(in_one_graph(plain, batch)), rel=1e-6)
    assert_alike(gradients(module), gradients(plain))
    stepped(module, batch)  # gradients of a step before are gone
    assert_alike(gradients(module), gradients(plain))


@pytest.mark.parametrize(
    ("running", "pieces"),
    [
        ({"accumulate": 3}, 3 + 2),
        pytest.param({"accumulate": 50}, 7 + 2, marks=pytest.mark.slow),
        ({"micro_batch_tokens": 20}, 4 + 2),
    ],
)
def test_micro_batches_give_the_loss_and_the_gradients_of_the_whole_batch(
    source: Source, recipe_of: Recipes, running: dict[str, Any], pieces: int
) -> None:
    data = DataSettings(batch_low=7, batch_high=2, window_shards=2, proportions={"low-48": 1, "high-64": 1})
    plain = module_of(recipe_of(**EVERYTHING, data=data), source)
    batch = training_batches(plain.recipe, source)
    common = plain.maps(torch.zeros(7, 3, 3, 4), batch[0], "canvas")[2].sum(dim=(1, 2))
    assert len(set(common.tolist())) > 1  # views have unequal numbers of common positions
    module = module_of(recipe_of(**EVERYTHING, data=data, running=running), source)
    seen: list[int] = []
    module.model.register_forward_hook(lambda _model, inputs, _output: seen.append(len(inputs[0])))
    assert float(stepped(module, batch)) == pytest.approx(float(in_one_graph(plain, batch)), rel=1e-6)
    assert len(seen) == pieces
    assert max(seen) - min(seen[:-2]) <= 1
    assert_alike(gradients(module), gradients(plain))
    torch.manual_seed(0)
    logged, expected = (each.training_step(batch, 0)["parts"] for each in (module, plain))
    assert logged.keys() == expected.keys()
    assert [float(logged[name]) for name in logged] == pytest.approx([float(expected[name]) for name in logged])


@pytest.mark.parametrize(
    ("student", "precision"),
    [
        ("radio_test_vit", torch.bfloat16),
        ("test_vit2", torch.float32),
        pytest.param("radio_test_vit", torch.float32, marks=pytest.mark.slow),
        pytest.param("test_vit2", torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_recomputed_blocks_give_the_same_gradients_bit_for_bit(
    source: Source, recipe_of: Recipes, student: str, precision: torch.dtype
) -> None:
    settings = {**EVERYTHING, "student": student, "heads": HeadSettings(width=32, transformer_blocks=1)}
    settings |= {"damp_layers": "all-linear"}
    if student == "test_vit2":
        del settings["vit"]
    found = []
    for checkpointing in (False, True):
        module = module_of(recipe_of(**settings, running={"checkpointing": checkpointing}), source)
        assert module.average is not None
        for block in module.model.modules():
            if isinstance(block, Block):
                block.drop_path1 = DropPath(0.5)
                block.attn.proj_drop = nn.Dropout(0.3)
        with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
            kept = Kept()
            with kept:
                loss = stepped(module, training_batches(module.recipe, source))
        found.append((loss, gradients(module), kept.bytes))
    (plain_loss, plain, plain_bytes), (loss, recomputed, fewer) = found
    assert float(loss) == float(plain_loss)
    assert recomputed.keys() == plain.keys()
    for name, gradient in recomputed.items():
        assert torch.equal(gradient, plain[name]), name
    assert fewer < 0.6 * plain_bytes


@pytest.mark.parametrize(
    ("student", "running", "message"),
    [
        ("test_resnet", {"accumulate": 2}, "batch norm .* normalised by itself"),
        ("test_resnet", {"micro_batch_tokens": 9}, "batch norm .* normalised by itself"),
        ("test_resnet", {"checkpointing": True}, "batch norm .* updates its statistics twice"),
        ("twins_svt_small", {"checkpointing": True}, "timm has no activation checkpointing for twins_svt_small"),
    ],
)
def test_students_that_would_learn_something_else_or_cannot_recompute_are_refused(
    source: Source, recipe_of: Recipes, student: str, running: dict[str, Any], message: str
) -> None:
    recipe = recipe_of(student=student, running=running, data=DataSettings(proportions={"high-64": 1}))
    chosen = {view_set: found for view_set, found in source.sets.items() if view_set.name == "high-64"}
    with pytest.raises(SettingError, match=message):
        module_of(recipe, replace(source, sets=chosen))


@pytest.mark.slow
def test_a_run_of_micro_batches_and_recomputed_blocks_resumes_to_the_byte_and_learns_what_a_plain_one_does(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    plain = recipe_of(steps=3, **EVERYTHING)
    fitting = recipe_of(steps=3, running={"accumulate": 2, "checkpointing": True, "checkpoint_every": 1}, **EVERYTHING)
    assert fitting.identity() == plain.identity()
    uri = full_cache.store.uri
    runs = [train(recipe, uri, tmp_path / name, lambda _: None) for name, recipe in (("a", plain), ("b", fitting))]
    run = RunFolder(path=tmp_path / "c")
    with pytest.raises(PowerCutError):
        fit(TrainingRun(recipe=fitting, source=open_source(full_cache), folder=run), lambda _: None, [CutAfter(2)])
    assert steps_in_checkpoint(run.checkpoint) == 2
    resumed = train(fitting, uri, run.path, lambda _: None)
    assert resumed.weights.read_bytes() == runs[1].weights.read_bytes()
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-5)
    assert len(losses(runs[1])) == 3


@pytest.mark.slow
def test_processes_average_the_gradients_of_heads_that_the_last_micro_batch_does_not_use(
    cache_maker: Any, specs: dict[str, TeacherSpec], tmp_path: Path, recipe_of: Recipes
) -> None:
    maker = cache_maker(tmp_path / "cache").views()
    for name, teacher in specs.items():
        maker.teacher(teacher, lambda view_set, _shard, name=name: name != "any" or view_set.partition == "low")
    for teacher in specs.values():
        maker.stats(teacher)
    alone = train(recipe_of(steps=4, **EVERYTHING), maker.cache.store.uri, tmp_path / "alone", lambda _: None)
    together = carry_out(
        recipe_of(steps=4, running={"devices": 2, "accumulate": 2}, **EVERYTHING), maker.cache, tmp_path / "together"
    )
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)
    weights = [trainer.load(run.path).state_dict() for run in (alone, together)]
    heads = [name for name in weights[0] if name.startswith("model.heads.any")]
    assert heads
    for name in heads:
        assert weights[1][name].numpy() == pytest.approx(weights[0][name].numpy(), abs=2e-5), name
