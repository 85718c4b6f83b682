"""Classification scores are those that other code computes, and chance where there is nothing to find."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from downstream_features import at_resolution, digits, features_of, interval
from scipy.optimize import minimize
from sklearn.neighbors import KNeighborsClassifier

from storage_schemas.format.errors import AbstractStillhouseError, ContractError, IdentityError, SettingError
from trainer.downstream.classification import knn_accuracy
from trainer.downstream.labels import in_share
from trainer.downstream.options import EvaluateOptions, KnnSettings, LinearSettings
from trainer.downstream.similarity import unit_features
from trainer.downstream.tasks import TASKS

FEW = LinearSettings(strengths=(1e-3, 0.1), iterations=60)
FOLDERS = EvaluateOptions(labels="folders", linear=FEW)


def accuracy(task: str, vectors: np.ndarray, keys: list[str], options: EvaluateOptions = FOLDERS) -> float:
    TASKS[task].settings(options)
    return TASKS[task].measure(features_of(vectors, keys), options).scores["accuracy"]


@pytest.mark.parametrize("side", [8, 4, 2])
def test_knn_is_scikit_learns_with_the_same_weights(side: int) -> None:
    images, classes, keys = digits()
    vectors = at_resolution(images, side).astype(np.float32).astype(np.float64)
    test = np.array([key.startswith("val/") for key in keys])
    independent = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    ).fit(vectors[~test], classes[~test])
    assert accuracy("knn", vectors, keys) == pytest.approx(independent.score(vectors[test], classes[test]), abs=1e-6)


def votes_over_all_orders(query: np.ndarray, bank: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Sum the votes of the three nearest neighbours over all orders of the bank."""
    cosines = [round(float(query @ other / np.linalg.norm(query) / np.linalg.norm(other)), 9) for other in bank]
    votes = np.zeros(3)
    for order in permutations(range(len(bank))):
        for place in sorted(order, key=lambda place: -cosines[place])[:3]:
            votes[classes[place]] += np.exp(cosines[place] / 0.5)
    return votes


SCATTERED = np.random.default_rng(1).integers(0, 2, (6, 3)) + np.array([0, 0, 1])
BEHIND = np.array([[9, 1, 0], [9, 1, 0], *[[9, 3, 0]] * 4])  # of the four that tie, one has a place


@pytest.mark.parametrize(("bank", "classes"), [(SCATTERED, [0, 0, 1, 1, 2, 2]), (BEHIND, [0, 0, 1, 1, 1, 1])])
def test_knn_with_ties_has_the_mean_votes_over_all_orders_of_the_bank(bank: np.ndarray, classes: list[int]) -> None:
    queries, right = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), []
    for query in queries:
        votes = votes_over_all_orders(query, bank, np.array(classes))
        best = np.flatnonzero(votes >= votes.max() * (1 - 1e-9))
        right.append([(wanted in best) / len(best) for wanted in range(3)])
    for wanted in range(3):
        of_query, settings = np.full(len(queries), wanted), KnnSettings(k=3, temperature=0.5)
        units = unit_features(queries * 1.0, "")
        found = knn_accuracy(unit_features(bank * 1.0, ""), np.array(classes), units, of_query, settings)
        assert found == pytest.approx(np.mean([row[wanted] for row in right]), abs=1e-6)


def test_the_order_of_the_images_does_not_change_knn() -> None:
    images, _, keys = digits()
    vectors, order = np.round(at_resolution(images, 2) / 4), np.random.default_rng(0).permutation(len(keys))
    vectors[:, 0] += 1  # none is zero; many are equal
    assert accuracy("knn", vectors, keys) == pytest.approx(
        accuracy("knn", vectors[order], [keys[place] for place in order]), abs=1e-12
    )


def scipy_probe(vectors: np.ndarray, classes: np.ndarray, strength: float) -> Any:
    """Fit multinomial logistic regression by scipy alone; return its predictions."""
    mean, width = vectors.mean(axis=0), vectors.std(axis=0)
    width = np.where(width > 0, width, 1)
    known = np.eye(classes.max() + 1)[classes]
    scaled = (vectors - mean) / width

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(known.shape[1], -1)
        scores = scaled @ weights[:, 1:].T + weights[:, 0]
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        slope = np.exp(logs) - known
        gradient = np.column_stack([slope.sum(axis=0), slope.T @ scaled + weights[:, 1:] / strength])
        return -(logs * known).sum() + (weights[:, 1:] ** 2).sum() / 2 / strength, gradient.ravel()

    start = np.zeros(known.shape[1] * (vectors.shape[1] + 1))
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x.reshape(known.shape[1], -1)
    return lambda others: ((others - mean) / width @ fitted[:, 1:].T + fitted[:, 0]).argmax(axis=1)


@pytest.mark.parametrize(("task", "side"), [pytest.param("linear", 4, marks=pytest.mark.slow), ("linear-mean", 2)])
def test_a_linear_probe_is_logistic_regression_with_the_strength_that_validates_best(task: str, side: int) -> None:
    images, classes, keys = digits()
    vectors, test = at_resolution(images, side), np.array([key.startswith("val/") for key in keys])
    strengths = (1e-4, 1e-2)
    options = replace(FOLDERS, linear=LinearSettings(strengths=strengths, iterations=300))
    measured = TASKS[task].measure(features_of(vectors, keys), options)
    held = np.array([in_share(key, 0.2, "validation part") for key in keys])
    assert 0.15 < held.mean() < 0.25
    fitted, chosen_on = ~test & ~held, ~test & held
    scores = {
        strength: (
            scipy_probe(vectors[fitted], classes[fitted], strength)(vectors[chosen_on]) == classes[chosen_on]
        ).mean()
        for strength in strengths
    }
    best = max(strengths, key=lambda strength: scores[strength])
    assert scores[strengths[0]] != scores[strengths[1]]
    assert measured.counts["C"] == best
    assert measured.counts["validation_accuracy"] == pytest.approx(scores[best], abs=1e-6)
    predicted = scipy_probe(vectors[~test], classes[~test], best)(vectors[test])
    assert measured.scores["accuracy"] == pytest.approx((predicted == classes[test]).mean(), abs=1e-6)


@pytest.mark.parametrize("task", ["knn", "linear", "linear-mean"])
def test_features_that_hold_the_label_are_perfect_and_noise_or_permuted_labels_are_chance(task: str) -> None:
    images, classes, keys = digits()
    random = np.random.default_rng(5)
    oracle = np.eye(10)[classes] + random.normal(scale=0.01, size=(len(classes), 10))
    assert accuracy(task, oracle, keys) == 1.0
    tests = sum(key.startswith("val/") for key in keys)
    low, high = interval(0.1, tests)
    assert low < accuracy(task, random.normal(size=(len(classes), 16)), keys) < high
    mixed = random.permutation(classes)
    others = [f"{key.split('/')[0]}/{name}/{row}" for row, (key, name) in enumerate(zip(keys, mixed, strict=True))]
    assert low < accuracy(task, at_resolution(images, 4), others) < high


def text_file(path: Path, vectors: np.ndarray, names: list[str], model: str = "tower", **more: Any) -> Path:
    about = {"model": model, "names": names, **more}
    safetensors.numpy.save_file({"vectors": vectors.astype(np.float32)}, path, {"stillhouse": json.dumps(about)})
    return path


def zero_shot(vectors: np.ndarray, keys: list[str], texts: Path, model: str | None = "tower") -> float:
    options = replace(FOLDERS, classes=texts)
    TASKS["zero-shot"].settings(options)
    return TASKS["zero-shot"].measure(features_of(vectors, keys, model=model), options).scores["accuracy"]


def test_zero_shot_takes_the_nearest_mean_of_templates(tmp_path: Path) -> None:
    images, classes, keys = digits()
    vectors, test = at_resolution(images, 8).astype(np.float32), np.array([key.startswith("val/") for key in keys])
    middle = np.stack([vectors[~test & (classes == name)].mean(axis=0) for name in range(10)])
    templates = np.stack([middle, 3 * middle + np.random.default_rng(0).normal(size=middle.shape)], axis=1)
    names = [str(name) for name in range(9, -1, -1)]  # in another order than the labels'
    texts = text_file(tmp_path / "texts.safetensors", templates[::-1].copy(), names)
    by_template = templates / np.linalg.norm(templates, axis=2, keepdims=True)
    towards = by_template.mean(axis=1) / np.linalg.norm(by_template.mean(axis=1), axis=1, keepdims=True)
    predicted = (vectors[test] @ towards.T).argmax(axis=1)
    assert zero_shot(vectors, keys, texts) == pytest.approx((predicted == classes[test]).mean(), abs=1e-6)
    assert 0.5 < zero_shot(vectors, keys, texts) < 1


def test_zero_shot_of_the_label_is_perfect_and_of_noise_or_equal_texts_is_chance(tmp_path: Path) -> None:
    _, classes, keys = digits()
    names, tests = [str(name) for name in range(10)], np.array([key.startswith("val/") for key in keys])
    texts, random = text_file(tmp_path / "a.safetensors", np.eye(10), names), np.random.default_rng(0)
    assert zero_shot(np.eye(10)[classes] * 3, keys, texts) == 1.0
    low, high = interval(0.1, int(tests.sum()))
    assert low < zero_shot(random.normal(size=(len(classes), 10)), keys, texts) < high
    equal = text_file(tmp_path / "b.safetensors", np.ones((10, 10)), names)
    assert zero_shot(np.eye(10)[classes], keys, equal) == pytest.approx(0.1)


def test_text_vectors_of_another_model_or_width_or_without_a_class_are_refused(tmp_path: Path) -> None:
    _, classes, keys = digits()
    names, vectors = [str(name) for name in range(10)], np.eye(10)[classes]
    good = text_file(tmp_path / "good.safetensors", np.eye(10), names)
    for model, said in (
        ("eyes", "is of the text tower of tower, and the features of test are in the space of eyes"),
        (None, "are a student's own"),
    ):
        with pytest.raises(IdentityError, match=said):
            zero_shot(vectors, keys, good, model)
    wide = text_file(tmp_path / "wide.safetensors", np.eye(10, 12), names)
    with pytest.raises(IdentityError, match="has 12 channels, a summary of test has 10"):
        zero_shot(vectors, keys, wide)
    few = text_file(tmp_path / "few.safetensors", np.eye(9, 10), names[:9])
    with pytest.raises(SettingError, match="has no text vector of 1 classes"):
        zero_shot(vectors, keys, few)
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors")
    for path, said in (
        (tmp_path / "noise.safetensors", "is not a file of text vectors"),
        (text_file(tmp_path / "x.safetensors", np.eye(3), names), "has 10 names for 3 vectors"),
        (text_file(tmp_path / "y.safetensors", np.eye(2), ["a", "a"]), "names classes twice: a"),
        (tmp_path / "absent", "there is no such file"),
        (Path(), "is not given"),
    ):
        with pytest.raises(AbstractStillhouseError, match=said):
            zero_shot(vectors, keys, path)


@pytest.mark.parametrize("task", ["knn", "linear", "linear-mean"])
def test_features_that_are_not_numbers_are_refused(task: str) -> None:
    images, _, keys = digits()
    vectors = at_resolution(images, 2)
    vectors[7, 1] = np.nan
    with pytest.raises(ContractError, match=r"1 of .* vectors hold NaN or infinity"):
        accuracy(task, vectors, keys)


def test_a_vector_without_direction_and_too_small_a_bank_are_refused() -> None:
    keys = ["train/a/1", "train/b/2", "val/a/3"]
    with pytest.raises(SettingError, match="the training part has 2 views, fewer than k = 20"):
        accuracy("knn", np.eye(3), keys)
    with pytest.raises(ContractError, match="1 of 2 vectors are zero and have no direction: 1"):
        accuracy("knn", np.diag([1.0, 0.0, 1.0]), keys)
    with pytest.raises(SettingError, match="C is fitted on 1 views of 1 classes, and chosen on 1"):
        accuracy("linear", np.eye(3), keys)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"knn": KnnSettings(k=0)}, "k 0 and temperature 0.07"),
        ({"knn": KnnSettings(temperature=float("nan"))}, "temperature nan"),
        ({"linear": LinearSettings(strengths=(0.0,))}, "are not positive numbers"),
        ({"linear": LinearSettings(validation_share=1.0)}, "1.0 is not a share"),
        ({"labels": ""}, "--labels: is not given"),
        ({"test_share": 0.0}, "--test-share: 0.0 is not a share"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changed: dict[str, Any], said: str) -> None:
    task = "linear" if "linear" in changed else "knn"
    with pytest.raises(SettingError, match=said):
        TASKS[task].settings(replace(FOLDERS, **changed))
