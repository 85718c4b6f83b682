"""An exported student says in raw teacher units what it learnt in PHI-S units, and only if it is whole."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, SettingError
from storage_schemas.format.phi_s import PhiS, to_raw
from trainer.data.source import Source, open_source
from trainer.export import export_student
from trainer.run.fit import build_model
from trainer.run_folder import RunFolder, read_json, write_json
from trainer.settings.config import TrainRecipe
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel
from trainer.student.shape import StudentShape

HEADS = HeadSettings(width=32, inner_blocks=1, transformer_blocks=1)
STUDENTS = {"test_vit": VitSettings(), "radio_test_vit": VitSettings(position_grid=8, windows=(2,), global_blocks=3)}


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache)


@pytest.fixture(scope="module", params=STUDENTS)
def built(
    source: Source, recipe_of: Callable[..., TrainRecipe], request: pytest.FixtureRequest
) -> tuple[DistilledModel, StudentShape]:
    """A model whose every weight is away from where it starts."""
    recipe = recipe_of(student=request.param, vit=STUDENTS[request.param], heads=HEADS)
    model, shape = build_model(recipe, source)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval(), shape


def exported(source: Source, built: tuple[DistilledModel, StudentShape], folder: Path) -> RunFolder:
    run = RunFolder(path=folder)
    teachers = {
        name: {"channels": teacher.manifest.spec.dim, "summary_channels": teacher.manifest.spec.summary_dim}
        for name, teacher in source.teachers.items()
    }
    name = built[0].student.name
    about = {"student": name, "image_size": None, "vit": asdict(STUDENTS[name]), "heads": asdict(HEADS)}
    export_student(*built, maps(source), {**about, "teachers": teachers}, run)
    return run


def maps(source: Source) -> dict[str, PhiS]:
    return {name: teacher.phi_s for name, teacher in source.teachers.items()}


def test_what_comes_back_is_the_student_with_heads_in_raw_teacher_units(
    source: Source, built: tuple[DistilledModel, StudentShape], tmp_path: Path
) -> None:
    model, _ = built
    exported(source, built, tmp_path)
    pixels = torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        student = trainer.load(tmp_path)
        said, learnt = student(pixels), model(pixels, source.teachers)
    assert not student.training
    assert torch.equal(said.student.spatial, learnt.student.spatial)
    for name, phi_s in maps(source).items():
        raw = to_raw(phi_s, learnt.spatial[name].numpy())
        # a few roundings of a sum as long as the head is wide
        assert_allclose(said.spatial[name].numpy(), raw, atol=32 * np.finfo(np.float32).eps * np.abs(raw).max())
    assert list(said.summary) == ["any", "fixed"]
    assert all(torch.equal(said.summary[name], learnt.summary[name]) for name in said.summary)


def test_exporting_leaves_the_model_as_it_is(
    source: Source, built: tuple[DistilledModel, StudentShape], tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in built[0].state_dict().items()}
    exported(source, built, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in built[0].state_dict().items())


def test_the_same_student_is_exported_to_the_same_bytes(
    source: Source, built: tuple[DistilledModel, StudentShape], tmp_path: Path
) -> None:
    first, other = (exported(source, built, tmp_path / name) for name in "ab")
    assert first.weights.read_bytes() == other.weights.read_bytes()
    assert read_json(first.card) == read_json(other.card)


def test_a_weight_that_is_no_number_is_not_exported(
    source: Source, built: tuple[DistilledModel, StudentShape], tmp_path: Path
) -> None:
    weight = built[0].heads["any_summary"].first.bias  # type: ignore[union-attr]
    before = weight.detach().clone()  # type: ignore[operator]
    with torch.no_grad():
        weight[3] = float("inf")  # type: ignore[operator, index]
    try:
        with pytest.raises(ContractError) as refusal:
            exported(source, built, tmp_path)
    finally:
        weight.data = before  # type: ignore[union-attr]
    assert str(refusal.value) == (
        "export breaks the storage contract:\n  heads.any_summary.first.bias: holds NaN or infinity"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as refusal:
        trainer.load(tmp_path)
    assert str(refusal.value) == (
        f"student is missing:\n  {tmp_path}: holds no student.json "
        "(finish the run: repeat its `make train` command, and it resumes)"
    )


def test_weights_that_are_not_the_cards_are_refused(
    source: Source, built: tuple[DistilledModel, StudentShape], tmp_path: Path
) -> None:
    run = exported(source, built, tmp_path)
    body = bytearray(run.weights.read_bytes())
    body[-1] ^= 1
    run.weights.write_bytes(body)
    with pytest.raises(CorruptionError) as refusal:
        trainer.load(tmp_path)
    assert str(refusal.value) == f"student is damaged:\n  {run.weights}: is not the file that its card names"


def test_a_card_of_another_version_is_refused(
    source: Source, built: tuple[DistilledModel, StudentShape], tmp_path: Path
) -> None:
    run = exported(source, built, tmp_path)
    write_json(run.card, {**read_json(run.card), "version": 3})
    with pytest.raises(ContractError) as refusal:
        trainer.load(tmp_path)
    assert str(refusal.value) == (
        f"student card breaks the storage contract:\n  {run.card}: has version 3, but this Stillhouse reads version 2"
    )


SOUND = torch.linspace(0, 1, 2 * 3 * 32 * 48).reshape(2, 3, 32, 48)
BAD = {
    "uint8": ((SOUND * 255).to(torch.uint8), "the type is torch.uint8 (give values in [0, 1]: pixels / 255 "),
    "int64": ((SOUND * 255).long(), "the type is torch.int64 (give values in [0, 1]: pixels / 255 "),
    "float64": (SOUND.double(), "the type is torch.float64, that of the weights is torch.float32 (use pixels.to(…))"),
    "0 to 255": (SOUND * 255, "the values go from 0 to 255 (give RGB in [0, 1] without NaN"),
    "normalised": ((SOUND - 0.45) / 0.22, "the values go from -2.05 to 2.5 (give RGB in [0, 1] without NaN"),
    "-1 to 1": (SOUND * 2 - 1, "the values go from -1 to 1 (give RGB in [0, 1] without NaN"),
    "infinite": (torch.where(SOUND == 1, torch.inf, SOUND), "the values go from 0 to inf "),
    "NaN": (torch.where(SOUND == 1, torch.nan, SOUND), "the values go from nan to nan "),
    "odd sides": (SOUND[:, :, :, :47], "32 × 47 px: the sides are not multiples of 16, the side of a token (resize, "),
    "no sides": (SOUND[:, :, :0], "0 × 48 px: the sides are not multiples of 16"),
    "no batch": (SOUND[0], "the shape is (3, 32, 48) (give [batch, 3, height, width])"),
    "channels last": (SOUND.permute(0, 2, 3, 1), "the shape is (2, 32, 48, 3) (give [batch, 3, height, width])"),
}


@pytest.mark.parametrize("kind", BAD)
def test_pixels_that_a_student_would_misread_are_refused(
    tmp_path: Path, source: Source, built: tuple[DistilledModel, StudentShape], kind: str
) -> None:
    pixels, said = BAD[kind]
    student = trainer.load(exported(source, built, tmp_path).path)
    with pytest.raises(SettingError) as refusal:
        student(pixels)
    [problem] = refusal.value.problems
    assert str(problem).startswith(f"{student.student.name}: {said}")


def test_sound_pixels_are_taken_whatever_their_number_and_with_the_overshoot_of_resampling(
    tmp_path: Path, source: Source, built: tuple[DistilledModel, StudentShape]
) -> None:
    student = trainer.load(exported(source, built, tmp_path).path)
    edge = (torch.arange(24) // 12).float().expand(1, 3, 24, 24)
    resized = torch.nn.functional.interpolate(edge, (48, 48), mode="bicubic")
    assert resized.min() < -0.05
    for pixels in (SOUND, torch.zeros(1, 3, 16, 16), resized):
        with torch.no_grad():
            assert student(pixels).spatial["any"].shape[0] == len(pixels)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        student(SOUND.bfloat16())
