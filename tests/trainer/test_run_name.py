"""Names of runs: the student, with the settings that differ from the recipe's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from storage_schemas.format.errors import SettingError
from trainer.options import train_options
from trainer.recipes import RECIPES
from trainer.run_name import LONGEST, choose_folder, default_name
from trainer.settings.learning import LossSettings


def named(*arguments: str) -> str:
    """Name of the folder that a command line gives."""
    return train_options(["--cache", "c", "--runs", "r", *arguments]).folder.name


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "vit_tiny_patch16_224"),
        (["--steps", "7", "--running.log-every", "3"], "vit_tiny_patch16_224"),
        (["--student", "resnet10t"], "resnet10t"),
        (["--optimiser.lr", "0.0005"], "vit_tiny_patch16_224-lr=0.0005"),
        (["--seed", "3", "--student", "tiny", "--precision", "bf16"], "tiny-precision=bf16-seed=3"),
        (["--optimiser.weight-decay", "1e-05"], "vit_tiny_patch16_224-weight_decay=1e-05"),
        (
            ["--data.proportions", "low-128", "2", "low-192", "1"],
            "vit_tiny_patch16_224-proportions.low-128=2.0-proportions.low-192=1.0",
        ),
        (["--student.weights", "timm"], "vit_tiny_patch16_224-weights=timm"),
        (["--name", "mine"], "mine"),
    ],
)
def test_a_name_is_the_student_and_what_differs_from_the_recipe(arguments: list[str], name: str) -> None:
    assert named(*arguments) == name


def test_settings_with_the_same_last_word_are_named_in_full() -> None:
    base = RECIPES["demo"]()
    # `seed` stands for any setting that shares its last word with another one
    base = replace(base, loss=LossSettings(teacher_weights={"seed": 1.0}))
    changed = replace(base, seed=5, loss=LossSettings(teacher_weights={"seed": 2.0}))
    assert default_name(changed, base) == "vit_tiny_patch16_224-loss.teacher_weights.seed=2.0-seed=5"


def test_a_value_that_no_folder_can_have_and_a_name_that_is_too_long_are_given_by_their_digests() -> None:
    base = RECIPES["demo"]()
    odd = default_name(replace(base, loss=LossSettings(teacher_weights={"a": 1e-300})), base)
    assert odd.endswith("-teacher_weights.a=1e-300")
    many = {f"teacher-{number}": 1.5 + number for number in range(20)}
    names = {
        default_name(replace(base, loss=LossSettings(teacher_weights=weights)), base)
        for weights in (many, {**many, "teacher-0": 7.0})
    }
    assert len(names) == 2
    for name in names:
        assert len(name) <= LONGEST
        assert name.startswith("vit_tiny_patch16_224-")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a b", "a\n", "é"])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    base = RECIPES["demo"]()
    with pytest.raises(SettingError, match="is no name of a run"):
        choose_folder(tmp_path, name, base, base)


def test_a_run_that_an_earlier_version_named_by_its_student_is_resumed_there(tmp_path: Path) -> None:
    base = RECIPES["demo"]()
    changed = replace(base, seed=5)
    old = tmp_path / base.student
    old.mkdir()
    (old / "run.json").write_text(json.dumps({"recipe": changed.identity(), "cache": {}}))
    assert choose_folder(tmp_path, "", changed, base) == old
    before = changed.identity()
    del before["damp_layers"], before["data"]["student_shifts"]  # type: ignore[attr-defined]
    (old / "run.json").write_text(json.dumps({"recipe": before, "cache": {}}))
    assert choose_folder(tmp_path, "", changed, base) == old
    assert choose_folder(tmp_path, "", replace(base, seed=6), base) == tmp_path / f"{base.student}-seed=6"
    (tmp_path / f"{base.student}-seed=5").mkdir()
    assert choose_folder(tmp_path, "", changed, base) == tmp_path / f"{base.student}-seed=5"


def test_a_run_whose_settings_are_to_change_must_be_named(tmp_path: Path) -> None:
    base = RECIPES["demo"]()
    changed = replace(base, seed=5, running=replace(base.running, accept_changes=True))
    with pytest.raises(SettingError, match="make train NAME=…"):
        choose_folder(tmp_path, "", changed, base)
    assert choose_folder(tmp_path, "mine", changed, base) == tmp_path / "mine"
    more = replace(base, steps=99, running=replace(base.running, accept_changes=True))
    (tmp_path / base.student).mkdir()
    assert choose_folder(tmp_path, "", more, base) == tmp_path / base.student
