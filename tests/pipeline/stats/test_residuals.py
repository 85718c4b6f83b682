"""Sets that are far from zero mean and unit variance are named, with what to do; the table says what was measured."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.stats.facts import FidelityFacts, ResidualFacts, StatsFacts, residual_advice
from pipeline.stats.text import stats_lines
from storage_schemas.cache import Cache
from storage_schemas.format.stats import PAPER_DISPERSIONS, POOLED, TOLERANCE
from storage_schemas.objects.store import Store

Said = Callable[..., list[str]]


def residual_of(view_set: str, value: float, *, off: bool) -> ResidualFacts:
    return ResidualFacts(
        view_set=view_set,
        tokens=1234,
        mean=value,
        variance=-0.25,
        deviation=value / 2,
        residual=value,
        off=off,
        effective_rank=3.25,
    )


FIDELITIES = tuple(
    FidelityFacts(view_set=POOLED, encoding=encoding, stored=stored, fidelity=value, expected=stored, saturated=2e-6)
    for encoding, value, stored in (("float16", 2.5e7, True), ("float32", None, False), ("int8", 3012.3, False))
)


def stats_of(*residuals: ResidualFacts, advice: tuple[str, ...] = (), **more: Any) -> StatsFacts:
    plain = {
        "encoding": "float16",
        "heldout_dispersion": None,
        "over_all_views": False,
        "dispersion": None,
        "paper_model": None,
        "paper_dispersion": None,
        "fidelities": FIDELITIES,
    }
    return StatsFacts(
        current=True, unmeasured=0, views=5000, tolerance=0.2, residuals=residuals, advice=advice, **plain | more
    )


NEAR, FAR = residual_of("low-128", 0.1, off=False), residual_of("high-1152", 0.5, off=True)


def test_nothing_is_said_of_sets_within_the_tolerance() -> None:
    assert list(residual_advice([NEAR, residual_of(POOLED, 0.1, off=False)], TOLERANCE, "again")) == []


def test_a_set_that_is_off_is_named_with_its_variance_and_what_it_means_for_training() -> None:
    assert list(residual_advice([NEAR, FAR, residual_of(POOLED, 0.1, off=False)], TOLERANCE, "again")) == [
        "OFF by more than 0.2: high-1152 (0.5, variance 0.75)",
        "all sets together are not off: the features of this teacher vary more at some resolutions than at others, and "
        "one PHI-S map serves all. In training, a set of variance v weighs v times as much as one of variance 1; "
        "`--loss.balance view-set` divides the loss of each set by its variance. Nothing needs to be fitted or stored "
        "again; to accept these sets, raise --tolerance",
    ]


def test_all_together_off_calls_for_another_fit() -> None:
    assert list(residual_advice([NEAR, FAR, residual_of(POOLED, 0.3, off=True)], 0.2, "fit it again")) == [
        "OFF by more than 0.2: high-1152 (0.5, variance 0.75)",
        "all view sets together are off by 0.3, more than 0.2: PHI-S was fitted on too few views, or on different "
        "ones; fit it again",
    ]


def test_the_table_has_a_line_for_every_set_and_the_report_s_dispersions_beside_ours() -> None:
    seven = stats_of(
        NEAR,
        FAR,
        advice=("OFF",),
        dispersion=2.2,
        heldout_dispersion=2.15,
        paper_model="DINOv3-7B",
        paper_dispersion=PAPER_DISPERSIONS["DINOv3-7B"],
    )
    assert list(stats_lines({"dinov3": seven, "sam3": stats_of(NEAR)}, {"dinov3": 0.25, "sam3": 12.5})) == [
        "teacher  view set   tokens measured  rms of mean  variance − 1  rms of variance − 1  effective rank",
        "dinov3   low-128              1,234       0.1000       -0.2500               0.0500             3.2",
        "dinov3   high-1152            1,234       0.5000       -0.2500               0.2500             3.2",
        "sam3     low-128              1,234       0.1000       -0.2500               0.0500             3.2",
        "",
        "teacher  name in report     φ  views  dispersion  of held-out views  report's dispersion",
        "dinov3   DINOv3-7B       0.25  5,000  2.200 rad²         2.150 rad²           2.186 rad²",
        "sam3                     12.5  5,000  no summary",
        "         DINOv3-H+                                                            2.120 rad²",
        "         SigLIP2-g-384                                                        0.694 rad²",
        "",
        "teacher  view set  stored as  F of float16  F of float32  F of int8  beyond int8",
        "dinov3   all       float16        ~2.5e+07         exact      3,012        2e-06",
        "sam3     all       float16        ~2.5e+07         exact      3,012        2e-06",
        "fidelity F: variance over the mean squared error of the encoding; ~ is expected from rounding, else measured",
        "dinov3: OFF",
    ]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*arguments: str) -> list[str]:
        assert main(arguments) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_stats_and_inspect_say_the_same_of_a_teacher_as_the_arrays_do(small_run: Any, said: Said) -> None:
    where = ["--cache", str(small_run.cache)]
    facts = json.loads("\n".join(said("inspect", *where, "--json")))
    [stats] = [teacher["stats"] for teacher in facts["teachers"] if teacher["name"] == "dinov3"]
    measured = Cache(store=Store(uri=str(small_run.cache))).stats("dinov3")
    assert measured is not None
    [set_facts, *_, pooled] = stats["residuals"]
    channels = {view_set.name: channels for view_set, channels in measured.sets.items()}[set_facts["view_set"]]
    for shown, expected in ((set_facts, channels), (pooled, measured.pooled)):
        assert shown["mean"] == pytest.approx(np.sqrt((expected.mean**2).mean()))
        assert shown["deviation"] == pytest.approx(np.sqrt(((expected.variance - 1) ** 2).mean()))
        assert shown["residual"] == max(shown["mean"], shown["deviation"])
        shares = expected.spectrum[expected.spectrum > 0] / expected.spectrum.sum()
        assert shown["effective_rank"] == pytest.approx(np.prod(shares**-shares))
    lines = said("stats", *where, "--teacher", "dinov3")
    rows = [line.split() for line in lines if line.startswith("dinov3 ") and set_facts["view_set"] in line]
    numbers = [f"{set_facts['tokens']:,}", f"{set_facts['mean']:.4f}", f"{set_facts['variance']:+.4f}"]
    numbers += [f"{set_facts['deviation']:.4f}", f"{set_facts['effective_rank']:.1f}"]
    by_set_and_encoding = {(fidelity["view_set"], fidelity["encoding"]): fidelity for fidelity in stats["fidelities"]}
    of_int8 = by_set_and_encoding[POOLED, "int8"]
    assert rows[0] == ["dinov3", set_facts["view_set"], *numbers]
    assert rows[1][:3] == ["dinov3", set_facts["view_set"], "float16"]
    assert of_int8["fidelity"] == pytest.approx(measured.pooled.variance.mean() / measured.pooled.rounding.int8)
    assert (of_int8["stored"], of_int8["expected"]) == (False, False)
    inspected = [line.split() for line in said("inspect", *where) if set_facts["view_set"] in line.split()[:1]]
    assert numbers in [row[-5:] for row in inspected]
    assert any(f"{measured.dispersion:.3f} rad²" in line for line in lines)
    assert not any("quarter-mean" in line for line in lines), "one teacher was asked for"


def test_the_tolerance_is_a_setting_of_both(small_run: Any, said: Said) -> None:
    where = ["--cache", str(small_run.cache)]
    for command in (["stats", *where], ["inspect", *where]):
        assert not any("OFF" in line or " off " in line for line in said(*command))
        strict = said(*command, "--tolerance", "0.01")
        assert sum("OFF by more than 0.01: high-256 (" in line for line in strict) == 3
        fit = (
            "to fit it again delete features.zarr/teachers/dinov3, tables/heads/teachers/dinov3, "
            "tables/shards/teachers/dinov3 and tables/placements/dinov3, and run "
            f"`make extract RECIPE=demo CACHE={small_run.cache} TEACHER=dinov3` with "
            "more --calibration.views"
        )
        assert any(fit in line for line in strict)


@pytest.mark.parametrize("command", ["stats", "inspect"])
@pytest.mark.parametrize("value", ["-0.1", "nan"])
def test_a_tolerance_that_is_none_is_refused(
    command: str, value: str, small_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--cache", str(small_run.cache), "--tolerance", value]) == 2
    assert capsys.readouterr().err == (
        f"error: tolerance cannot be used:\n  --tolerance: {float(value)} is less than 0\n"
    )
