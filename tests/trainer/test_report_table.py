"""The closing table as text, and numbers as people read them."""

import pytest

from trainer.report.closing_table import ClosingRow, StudentScore, closing_text
from trainer.report.numbers_as_text import bytes_text, count_text, number_text, signed_text


def row(teacher: str, *scores: StudentScore, **changes: object) -> ClosingRow:
    values: dict = {
        "random_weights": False,
        "views": 252,
        "bytes": 7_465_488,
        "mean_residual": 0.0667,
        "variance_residual": 0.00223,
        "dispersion": 0.715,
    }
    return ClosingRow(teacher=teacher, scores=scores, **{**values, **changes})


def test_the_table_has_a_line_for_every_teacher_and_student() -> None:
    first = StudentScore(student="vit", start=0.757, end=2.529, step=60, steps=60)
    second = StudentScore(student="resnet10t", start=0.675, end=None, step=None, steps=1000)
    table = closing_text(
        [
            row("dinov3", first, second),
            row("sam3", first, dispersion=None, variance_residual=-0.007, random_weights=True),
        ]
    )
    assert table.splitlines() == [
        "teacher  views    bytes  PHI-S mean  PHI-S var  dispersion  student    F start  F end    step",
        "                 stored         rms   mean − 1        rad²",
        "─" * 93,
        "dinov3     252  7.47 MB       0.067     +0.002       0.715  vit          0.757  2.529   60/60",
        "                                                            resnet10t    0.675      —  —/1000",
        "sam3       252  7.47 MB       0.067     −0.007           —  vit          0.757  2.529   60/60",
        "",
        "F: variance of the held-out features over the student's mean squared error; above 1, it beats their mean",
        "random weights: a demonstration (sam3)",
    ]


def test_without_students_the_table_has_dashes() -> None:
    lines = closing_text([row("dinov3")]).splitlines()
    assert lines[3].split() == ["dinov3", "252", "7.47", "MB", "0.067", "+0.002", "0.715", "—", "—", "—", "—"]
    assert not lines[-1].startswith("random")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (5_898_000, "5.90 MB"),
        (78_100_000_000_000, "78.1 TB"),
        (2_000_000_000_000_000, "2 PB"),
    ],
)
def test_bytes_are_read_to_three_digits(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_numbers_have_a_proper_minus_and_a_dash_for_none() -> None:
    assert (number_text(-0.5), number_text(None), number_text(1.005, 1)) == ("−0.500", "—", "1.0")
    assert (signed_text(0.04), signed_text(-0.04)) == ("+0.040", "−0.040")
    assert count_text(1234567) == "1\u202f234\u202f567"
