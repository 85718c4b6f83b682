"""Token merging: the matching of the paper, its error, and tasks on merged tokens."""

import re

import numpy as np
import pytest
from downstream.drawn_scenes import noise, views_of

from storage_schemas.format.errors import AbstractStillhouseError
from trainer.downstream.dense_settings import MergingSettings
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.measured import Measured
from trainer.downstream.token_merging import (
    choose_targets,
    measure_merging,
    merge_tokens,
    reconstruction_error,
    require_merging,
    with_merged_tokens,
)

SIZES = {"a.jpg": (48, 96), "b.jpg": (48, 48)}


def merged_simply(tokens: np.ndarray, merged: int, stride: int) -> np.ndarray:
    """Return the tokens after merging and putting back, one pair of tokens after the other."""
    rows, cols, _ = tokens.shape
    places = [(i, j) for i in range(rows) for j in range(cols)]
    targets = [(i, j) for i, j in places if i % stride == 0 and j % stride == 0]
    best = []
    for source in (place for place in places if place not in targets):
        a = tokens[source]
        cosines = [a @ tokens[t] / np.linalg.norm(a) / np.linalg.norm(tokens[t]) for t in targets]
        best.append((-max(cosines), len(best), source, targets[cosines.index(max(cosines))]))
    groups = {target: [target] for target in targets}
    for _, _, source, target in sorted(best)[:merged]:
        groups[target].append(source)
    back = tokens.copy()
    for members in groups.values():
        for member in members:
            back[member] = np.mean([tokens[other] for other in members], axis=0)
    return back


@pytest.mark.parametrize(
    ("rows", "cols", "stride", "merged"), [(4, 6, 2, 9), (5, 7, 3, 29), (5, 7, 3, 0), (6, 6, 6, 35)]
)
def test_tokens_are_merged_as_the_paper_draws_it(rows: int, cols: int, stride: int, merged: int) -> None:
    tokens = np.random.default_rng(0).integers(-2, 3, (rows, cols, 3)) + np.array([0, 0, 9.0])  # with many ties
    found = merge_tokens(tokens, merged, stride)
    assert len(found.tokens) == rows * cols - merged
    np.testing.assert_allclose(found.unmerged(), merged_simply(tokens, merged, stride), rtol=0, atol=1e-6)
    assert (np.diff(found.stands_for[choose_targets(rows, cols, stride)]) > 0).all()  # in the order of their places


def test_every_region_keeps_a_token() -> None:
    assert choose_targets(5, 4, 3).astype(int).tolist() == [[1, 0, 0, 1], [0] * 4, [0] * 4, [1, 0, 0, 1], [0] * 4]


def test_the_error_is_0_for_equal_tokens_and_1_for_the_mean_alone() -> None:
    def halves(_key: str, x: np.ndarray, _y: np.ndarray) -> np.ndarray:
        return np.stack([x < 24, x >= 24], axis=-1) * 5.0

    two = views_of({"b.jpg": (48, 48)}, halves)
    assert reconstruction_error(two, 8 / 9, 3) == pytest.approx(0, abs=1e-12)
    one = views_of({"b.jpg": (48, 48)}, noise(6))
    assert reconstruction_error(one, 35 / 36, 6) == pytest.approx(1, abs=1e-6)


def test_the_error_equals_an_independent_computation_and_rises_with_the_ratio() -> None:
    features = views_of(SIZES, lambda *at: noise(5, 2)(*at) + 100)
    tokens = features.tokens(slice(None)).astype(np.float64)
    errors = []
    for ratio in (0.25, 0.5, 0.75):
        back = np.stack([merged_simply(view, round(36 * ratio), 3) for view in tokens])
        expected = np.sum((back - tokens) ** 2) / np.sum((tokens - tokens.mean(axis=(0, 1, 2))) ** 2)
        errors.append(reconstruction_error(features, ratio, 3))
        assert errors[-1] == pytest.approx(expected, abs=1e-6)
        np.testing.assert_allclose(with_merged_tokens(features, ratio, 3).tokens(slice(1, 3)), back[1:], atol=1e-4)
    assert 0 < errors[0] < errors[1] < errors[2] < 1


def test_other_tasks_are_measured_on_merged_tokens() -> None:
    features = views_of(SIZES, noise(5))

    def other(given: EvaluationFeatures, task: str) -> Measured:
        tokens = given.tokens(slice(0, 1))[0].reshape(-1, 5)
        return Measured(scores={"kinds": len(np.unique(tokens, axis=0)) + 0.5 * (task == "depth"), "b": 0}, counts={})

    settings = MergingSettings(ratios=(0.25, 0.75), stride=3, tasks=("depth", "normals"))
    measured = measure_merging(features, settings, other)
    assert {name: score for name, score in measured.scores.items() if "@" in name and "error" not in name} == {
        "depth_kinds@0": 36.5,
        "depth_kinds@0.25": 27.5,
        "depth_kinds@0.75": 9.5,
        "normals_kinds@0": 36,
        "normals_kinds@0.25": 27,
        "normals_kinds@0.75": 9,
    }
    assert measured.counts == {"tokens": 36, "views": 3, "tokens@0.25": 27, "tokens@0.75": 9}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MergingSettings(ratios=()), "ratios: no ratio is given"),
        (MergingSettings(ratios=(1.0,)), "1.0 is not between 0 and 1"),
        (MergingSettings(ratios=(0.9,), stride=3), "0.9 is more than 0.8889, which a stride of 3 allows"),
        (MergingSettings(stride=1, ratios=(0.5,)), "stride: 1 is less than 2"),
    ],
)
def test_settings_are_refused_before_any_feature_is_computed(settings: MergingSettings, message: str) -> None:
    with pytest.raises(AbstractStillhouseError, match=re.escape(message)):
        require_merging(settings)


def test_a_ratio_that_a_grid_does_not_allow_and_tokens_without_variance_are_refused() -> None:
    with pytest.raises(AbstractStillhouseError, match=r"5 × 7 tokens: cannot lose 30 of 35 tokens: 6 are targets"):
        merge_tokens(np.ones((5, 7, 2)), 30, 3)
    with pytest.raises(AbstractStillhouseError, match="drawn: all tokens are the same"):
        reconstruction_error(views_of(SIZES, lambda _key, x, _y: np.ones((*x.shape, 2))), 0.5, 3)
