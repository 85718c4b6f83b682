"""Latency: cases by turns, median, memory of tensors, and the command from end to end."""

import json
from pathlib import Path

import pytest
import torch

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.__main__ import main
from trainer.downstream.latency import Case, PeakMemory, measure_latency, time_by_turns
from trainer.downstream.latency_options import LatencyOptions, latency_options


def test_cases_run_by_turns_and_the_median_counts() -> None:
    now, order = 0.0, []
    takes = {"a": iter([9.0, 1.0, 5.0, 2.0]), "b": iter([9.0, 3.0, 3.0, 4.0])}

    def run(name: str) -> None:
        nonlocal now
        order.append(name)
        now += next(takes[name])

    cases = {Case(model=name, resolution=1, window=0): (lambda name=name: run(name)) for name in takes}
    times = time_by_turns(cases, rounds=3, warm_up=1, clock=lambda: now)
    assert order == ["a", "b"] * 4
    assert {case.model: time for case, time in times.items()} == {"a": 2.0, "b": 3.0}


def test_the_peak_is_the_highest_sum_of_tensors_that_live_at_one_time() -> None:
    given, megabyte = torch.zeros(250_000), 1_000_000
    with torch.inference_mode(), PeakMemory() as memory:
        first = given + 1
        second = first * 2
        del first
        third = second.reshape(500, 500) + 1  # the view is no memory
        given.add_(1)  # nor is what was there before
        del second
        assert third.sum() > 0
    assert megabyte * 2 <= memory.peak < megabyte * 2.01


def test_the_command_measures_every_model_resolution_and_window(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "latency.json"
    arguments = (
        "--models radio_test_vit timm:test_resnet --resolutions 64 96 100 --windows 0 2 3 --rounds 1 --warm-up 1"
    )
    assert main(["latency", *arguments.split(), "--batch", "2", "--to", str(file)]) == 0
    found = json.loads(file.read_text())
    cases = {tuple(entry["case"].values()): entry for entry in found["measurements"]}
    assert list(cases) == [
        *(("radio_test_vit", side, window) for side in (64, 96, 100) for window in (0, 2, 3)),
        *(("timm:test_resnet", side, 0) for side in (64, 96, 100)),
    ]
    reasons = {case: entry["reason"] for case, entry in cases.items() if entry["reason"]}
    assert reasons.pop(("radio_test_vit", 64, 3)) == "4 × 4 tokens cannot be divided into windows of 3 × 3 tokens"
    assert {case[1] for case in reasons} == {100}
    for entry in cases.values():
        if not entry["reason"]:
            assert entry["images_per_second"] == pytest.approx(2000 / entry["milliseconds"])
            assert entry["weight_bytes"] > 100_000
    small, large = (cases["radio_test_vit", side, 0]["activation_bytes"] for side in (64, 96))
    assert 1.5 * small < large < 6 * small
    assert found["batch"] == 2
    assert "radio_test_vit        64       2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--models: is not given"),
        ("--models a --resolutions 0", "--resolutions: must be at least 1"),
        ("--models a --warm-up 0", "--warm-up: must be at least 1"),
        ("--models a a", "--models: names something twice"),
    ],
)
def test_command_lines_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(AbstractStillhouseError, match=message):
        latency_options(arguments.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("no_such_model",)}, "no_such_model: is not a timm model"),
        ({"device": "cuda"}, "--device cuda: torch finds no GPU"),
        ({"device": "toaster"}, "--device toaster: is no device of torch"),
        ({"resolutions": (100,)}, "test_resnet at 100 px: 100 is not a multiple of 32 px"),
    ],
)
def test_what_cannot_run_is_refused(changes: dict[str, object], message: str) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    options = LatencyOptions(**{"models": ("test_resnet",), "resolutions": (64,), **changes})
    with pytest.raises(AbstractStillhouseError, match=message):
        measure_latency(options, lambda _: None)
