"""The whole story at small scale: trained teachers, a cache, a student, and what each is good for."""

from pathlib import Path

import pytest

from tests.benchmarks.story import RANDOM, STUDENT, TASKS, Sizes, best_teacher, overall, relative, table, teachers, tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

LEAST = {"knn": 0.8, "zero-shot": 0.8, "segmentation": 0.4, "correspondence": 0.45}
"""Task → how far the student comes at least, from random weights (0) to the best teacher (1). 0.8 was expected in all
tasks; docs/evaluation.md tells where so small a student falls short."""


def test_the_student_learns_from_each_teacher_and_is_better_overall_than_any(tmp_path: Path) -> None:
    scores = tell(tmp_path, seed=0, sizes=Sizes())
    shown = table(scores)
    assert set(scores) == {*teachers(), STUDENT, RANDOM}
    for task in TASKS:
        assert best_teacher(scores, task) - scores[RANDOM][task] > 0.2, f"{task}\n{shown}"
        assert relative(scores, STUDENT, task) > LEAST[task], f"{task}\n{shown}"
    assert overall(scores, STUDENT) > max(overall(scores, name) for name in teachers()) + 0.05, shown
