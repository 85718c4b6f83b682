"""Command lines: a recipe's fields, overridden by name; help that costs nothing."""

import resource
import subprocess
import sys

import pytest

from pipeline.__main__ import COMMANDS, main
from pipeline.command_line import COMMAND_HELP, usage
from pipeline.config import TeacherChoice
from pipeline.features.options import extract_options
from pipeline.recipes import RECIPES, recipe_of
from pipeline.recipes.choice import choose
from pipeline.stats.options import stats_options
from pipeline.views.options import views_options
from storage_schemas.command_line import option_value
from storage_schemas.format.errors import MissingError, SettingError


def test_fields_of_a_recipe_are_overridden_by_name() -> None:
    options, recipe = views_options(["--cache", "c", "--data", "d", "--views.low", "128", "256", "--views.flip", "0"])
    assert (options.cache, options.data) == ("c", "d")
    assert (recipe.views.low, recipe.views.flip) == ((128, 256), 0.0)
    untouched = recipe_of("demo")
    assert (recipe.name, recipe.teachers, recipe.views.high) == ("demo", untouched.teachers, untouched.views.high)


def test_the_recipe_that_is_named_gives_the_defaults() -> None:
    _, recipe = views_options(["--cache", "c", "--recipe=c_radio_v4"])
    assert recipe == recipe_of("c_radio_v4")


def test_the_teacher_that_is_named_gives_the_defaults_of_its_choice() -> None:
    options, recipe = extract_options(
        ["--cache", "c", "--teacher", "sam3", "--choice.batch", "2", "--calibration.views", "50", "--run.workers", "3"]
    )
    demo = recipe_of("demo").teacher("sam3")
    assert options.choice == TeacherChoice(
        name="sam3", source=demo.source, weights=demo.weights, precision=demo.precision, batch=2
    )
    assert (recipe.calibration.views, options.run.workers, options.run.executor) == (50, 3, "ray")


def test_a_class_of_the_users_own_is_a_teacher_by_the_name_it_declares() -> None:
    choice = choose(recipe_of("demo"), "teachers.quarter_mean:QuarterMeanCanvas")
    assert choice == TeacherChoice(
        name="quarter-mean-canvas",
        source="teachers.quarter_mean:QuarterMeanCanvas",
        weights="own",
    )


def test_no_teacher_is_not_the_first_one() -> None:
    with pytest.raises(MissingError, match=r"dinov3, siglip2, sam3, timm:<model\.tag>, or module:Class"):
        choose(recipe_of("demo"), "")


def test_stats_take_every_teacher_when_none_is_named() -> None:
    assert stats_options(["--cache", "c"]).teacher == ""


@pytest.mark.parametrize(
    "read", [lambda: views_options([]), lambda: extract_options(["--teacher", "sam3"]), lambda: stats_options([])]
)
def test_a_cache_must_be_named(read) -> None:
    with pytest.raises(SettingError) as caught:
        read()
    assert str(caught.value) == "CACHE cannot be used:\n  --cache: is not given (make … CACHE=…)"


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--recipe", "small"], "small"),
        (["--recipe=small"], "small"),
        (["--recipe", "small", "--recipe=c_radio_v4"], "c_radio_v4"),
        (["--cache", "c"], "demo"),
        (["--recipe"], "demo"),
    ],
)
def test_what_is_named_last_counts(arguments: list[str], value: str) -> None:
    assert option_value(arguments, "recipe", "demo") == value


def test_usage_names_every_command() -> None:
    assert COMMAND_HELP.keys() == COMMANDS.keys()
    shown = usage(RECIPES)
    assert all(f"  {name:<12} " in shown for name in COMMANDS)
    assert shown.endswith("Recipes: demo, small, radio_v2_5, c_radio_v4, evaluation.")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_loads_neither_torch_nor_ray(command: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", command, "--help"], capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert f"python -m pipeline {command}" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pipeline.command_line" in imported
    assert not imported & {"torch", "ray", "timm", "transformers", "PIL"}
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_help_gives_the_meaning_of_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        extract_options(["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert ended.value.code == 0
    assert "Inputs (images, or mosaics) in one forward pass." in shown
    assert "--choice.batch" in shown


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("timm:vit_small_patch16_224.augreg_in1k", "vit_small_patch16_224-augreg_in1k"),
        ("dinov3-b", "dinov3-b"),
        ("", ""),
    ],
)
def test_a_script_is_told_the_name_that_a_teacher_has_in_a_cache(
    given: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["teachers", "--in-cache", *(["--name", given] if given else [])]) == 0
    assert capsys.readouterr().out == f"{named}\n"
