"""Retrieval scores are those of a few lines of numpy, also where similarities are equal."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from downstream_features import at_resolution, digits, features_of
from sklearn.metrics import average_precision_score
from test_downstream_classification import text_file

from storage_schemas.format.errors import IdentityError, SettingError
from trainer.downstream.options import EvaluateOptions, RetrievalSettings
from trainer.downstream.retrieval import ranked_scores
from trainer.downstream.tasks import TASKS

RANKS = (1, 3, 10)
FOLDERS = EvaluateOptions(labels="folders", retrieval=RetrievalSettings(ranks=RANKS))


def plain_scores(similar: np.ndarray, relevant: np.ndarray, order: np.ndarray) -> list[float]:
    """AP and R@k of one order, in numpy."""
    hits = relevant[order[np.argsort(-similar[order], kind="stable")]]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return [float(precision[hits].mean()), *(float(hits[:k].any()) for k in RANKS)]


def test_scores_with_ties_are_the_mean_over_all_orders() -> None:
    random = np.random.default_rng(0)
    for _ in range(12):
        similar, relevant = random.integers(0, 3, 6) / 2, random.random(6) < 0.5
        relevant[0] = True
        orders = [plain_scores(similar, relevant, np.array(order)) for order in permutations(range(6))]
        found = ranked_scores(similar, relevant, RANKS)
        assert list(found.values()) == pytest.approx(np.mean(orders, axis=0), abs=1e-9)


@pytest.mark.parametrize("side", [8, 4])
def test_retrieval_compares_each_view_with_those_of_other_images(side: int) -> None:
    images, classes, keys = digits()
    some = slice(0, 400)
    vectors, names = at_resolution(images[some], side), list(keys[some])
    twins = [place for place, key in enumerate(names) if key.startswith("val/")][:20]
    vectors = np.concatenate([vectors, vectors[twins] * 2])  # second views of the same images
    names, labels = [*names, *(names[place] for place in twins)], np.append(classes[some], classes[some][twins])
    test = np.array([name.startswith("val/") for name in names])
    measured = TASKS["retrieval"].measure(features_of(vectors, names), FOLDERS)
    units = vectors[test] / np.linalg.norm(vectors[test], axis=1, keepdims=True)
    cosines, shown, wanted = np.round(units @ units.T, 10), np.array(names)[test], labels[test]
    ours, sklearns = [], []
    for query in range(len(units)):
        others = shown != shown[query]
        relevant, similar = (wanted == wanted[query])[others], cosines[query][others]
        ours.append(plain_scores(similar, relevant, np.arange(others.sum())))
        sklearns.append(average_precision_score(relevant, similar))
    # twins tie; the plain scores break ties by order, which touches no rank where both are of the same class
    assert list(measured.scores.values()) == pytest.approx(np.mean(ours, axis=0), abs=1e-6)
    assert list(measured.scores) == ["mAP", "R@1", "R@3", "R@10"]
    assert measured.counts["queries"] == test.sum()
    assert abs(np.mean(sklearns) - measured.scores["mAP"]) < 0.01  # it gives all of a tie the precision of its end


def test_retrieval_of_the_label_is_perfect_and_of_noise_is_chance() -> None:
    _, classes, keys = digits()
    random = np.random.default_rng(0)
    perfect = TASKS["retrieval"].measure(features_of(np.eye(10)[classes], keys), FOLDERS).scores
    assert set(perfect.values()) == {1.0}
    noise = TASKS["retrieval"].measure(features_of(random.normal(size=(len(classes), 16)), keys), FOLDERS).scores
    assert 0.09 < noise["mAP"] < 0.13
    assert 0.05 < noise["R@1"] < 0.15


def test_a_class_with_one_image_has_no_query_and_classes_with_one_each_are_refused() -> None:
    keys = ["test/a/1", "test/a/2", "test/b/3", "train/a/4"]
    measured = TASKS["retrieval"].measure(features_of(np.eye(4), keys), FOLDERS)
    assert (measured.counts["queries"], measured.counts["without_another"]) == (2, 1)
    with pytest.raises(SettingError, match="no image of the test part has another one of its class"):
        TASKS["retrieval"].measure(features_of(np.eye(3), ["test/a/1", "test/b/3", "train/a/4"]), FOLDERS)


def captions(folder: Path, vectors: np.ndarray, keys: list[str]) -> EvaluateOptions:
    names = [f"caption {number}" for number in range(len(keys))]
    path = text_file(folder / f"{len(list(folder.iterdir()))}.safetensors", vectors, names, keys=keys)
    return replace(FOLDERS, captions=path)


def test_captions_are_found_by_images_and_images_by_captions(tmp_path: Path) -> None:
    random, count = np.random.default_rng(0), 60
    keys = [f"{number}.png" for number in range(count)]
    views = random.normal(size=(count, 8))
    of_caption = np.repeat(np.arange(count), 2)
    texts = views[of_caption] + random.normal(size=(2 * count, 8))
    options = captions(tmp_path, np.concatenate([texts, texts[:1]]), [*(keys[at] for at in of_caption), "other.png"])
    TASKS["image-text"].settings(options)
    measured = TASKS["image-text"].measure(features_of(views, keys, model="tower"), options)
    views = views.astype(np.float32) / np.linalg.norm(views, axis=1, keepdims=True)
    texts = texts.astype(np.float32) / np.linalg.norm(texts, axis=1, keepdims=True)
    ranked = np.argsort(-(views @ texts.T), axis=1)
    to_text = [np.mean([(of_caption[row[:k]] == at).any() for at, row in enumerate(ranked)]) for k in RANKS]
    ranked = np.argsort(-(texts @ views.T), axis=1)
    to_image = [np.mean([of_caption[at] in row[:k] for at, row in enumerate(ranked)]) for k in RANKS]
    assert list(measured.scores.values()) == pytest.approx([*to_text, *to_image], abs=1e-6)
    assert measured.counts == {"views": count, "captions": 2 * count}
    assert 0.2 < measured.scores["text R@1"] < 1


def test_equal_captions_are_chance_and_captions_that_are_the_image_are_perfect(tmp_path: Path) -> None:
    keys = [f"{number}.png" for number in range(40)]
    views = np.random.default_rng(0).normal(size=(40, 8))
    right = TASKS["image-text"].measure(features_of(views, keys, model="tower"), captions(tmp_path, views, keys))
    assert set(right.scores.values()) == {1.0}
    equal = TASKS["image-text"].measure(
        features_of(views, keys, model="tower"), captions(tmp_path, np.ones((40, 8)), keys)
    )
    assert list(equal.scores.values()) == pytest.approx([1 / 40, 3 / 40, 10 / 40] * 2)


def test_captions_that_miss_images_or_are_of_another_model_are_refused(tmp_path: Path) -> None:
    keys = ["1.png", "2.png"]
    features = features_of(np.eye(2), keys, model="tower")
    with pytest.raises(SettingError, match=r"has no caption for 1 of 2 images: 2\.png"):
        TASKS["image-text"].measure(features, captions(tmp_path, np.eye(2), ["1.png", "1.png"]))
    with pytest.raises(IdentityError, match="in the space of other"):
        TASKS["image-text"].measure(replace(features, model="other"), captions(tmp_path, np.eye(2), keys))
    with pytest.raises(SettingError, match="names no image for its texts"):
        TASKS["image-text"].settings(
            replace(FOLDERS, captions=text_file(tmp_path / "x.safetensors", np.eye(2), ["a", "b"]))
        )
    with pytest.raises(SettingError, match="are not ranks from 1"):
        TASKS["retrieval"].settings(replace(FOLDERS, retrieval=RetrievalSettings(ranks=(0,))))
