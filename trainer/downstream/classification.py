"""Classification of images by frozen features: nearest neighbours, a linear probe, and zero-shot with text vectors."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.features import EvaluationFeatures, mean_tokens, require_summary
from trainer.downstream.labels import LabelledViews, in_share, label_views, labels_identity
from trainer.downstream.measured import Measured
from trainer.downstream.options import EvaluateOptions, KnnSettings, LinearSettings
from trainer.downstream.similarity import require_finite, share_of_best, similarities, unit_features
from trainer.downstream.text_vectors import TextVectors, class_vectors, read_text_vectors


def measure_knn(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Classify summaries by their nearest neighbours; see `knn_accuracy`."""
    summary, labelled = require_summary(features), _labelled(features, options)
    train, test = ~labelled.is_test, labelled.is_test
    accuracy = knn_accuracy(
        unit_features(summary[train], features.origin),
        labelled.classes[train],
        unit_features(summary[test], features.origin),
        labelled.classes[test],
        options.knn,
    )
    return Measured(scores={"accuracy": accuracy}, counts=_counts(labelled))


def knn_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `measure_knn` depends on beside the features.

    Raises:
        SettingError, MissingError: labels or settings that cannot be used.
    """
    knn = options.knn
    if knn.k < 1 or not knn.temperature > 0:
        found = f"k {knn.k} and temperature {knn.temperature}: expected at least 1, and more than 0"
        raise SettingError("knn", [Problem(place="--knn.k, --knn.temperature", found=found)])
    return {**_label_settings(options), "k": knn.k, "temperature": knn.temperature}


def knn_accuracy(
    bank: Float64[np.ndarray, "bank channels"],
    bank_classes: Int64[np.ndarray, " bank"],
    queries: Float64[np.ndarray, "queries channels"],
    query_classes: Int64[np.ndarray, " queries"],
    settings: KnnSettings,
) -> float:
    """Return the accuracy of a vote of nearest neighbours.

        votes(c) = Σ_{i among the k nearest, class c} exp(s_i / τ),   s_i the cosine similarity

    Source: the evaluation of DINO (Caron et al. 2021, arXiv:2104.14294; k = 20, τ = 0.07, after Wu et al. 2018,
    arXiv:1805.01978), which v4 figures 3 and 4 use.

    Ties do not depend on the order of the bank. Neighbours that are equally far share the places that are left, so each
    class has the votes that it is expected to have if places are drawn at random. Of n classes with the same votes,
    each counts 1/n.

    Args:
        bank: vectors of length 1 to look for neighbours in.
        bank_classes: their classes.
        queries: vectors of length 1 to classify.
        query_classes: their classes.
        settings: k and τ.

    Returns:
        Share of the queries whose class wins.

    Raises:
        SettingError: the bank has fewer than k vectors.
    """
    if len(bank) < settings.k:
        found, fix = f"the training part has {len(bank)} views, fewer than k = {settings.k}", "choose a smaller k"
        raise SettingError("knn", [Problem(place="--knn.k", found=found, fix=fix)])
    classes = 1 + max(int(bank_classes.max()), int(query_classes.max()))
    correct = np.empty(len(queries))
    for part, similar in similarities(queries, bank):
        votes = _votes(similar, bank_classes, classes, settings)
        correct[part] = share_of_best(votes, query_classes[part])
    return float(correct.mean())


def _votes(
    similar: Float64[np.ndarray, "queries bank"],
    bank_classes: Int64[np.ndarray, " bank"],
    classes: int,
    settings: KnnSettings,
) -> Float64[np.ndarray, "queries classes"]:
    border = np.partition(similar, -settings.k, axis=1)[:, -settings.k, None]
    nearer, at_border = similar > border, similar == border
    left = settings.k - nearer.sum(axis=1, keepdims=True)
    places = nearer + at_border * (left / at_border.sum(axis=1, keepdims=True))
    query, neighbour = np.nonzero(places)
    weights = places[query, neighbour] * np.exp(similar[query, neighbour] / settings.temperature)
    votes = np.zeros((len(similar), classes))
    np.add.at(votes, (query, bank_classes[neighbour]), weights)
    return votes


def measure_linear(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Classify summaries by logistic regression; see `linear_probe`."""
    return _linear(require_summary(features), features, options)


def measure_linear_mean(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Classify mean tokens by logistic regression; see `linear_probe`."""
    return _linear(mean_tokens(features), features, options)


def _linear(
    vectors: Float[np.ndarray, "views channels"], features: EvaluationFeatures, options: EvaluateOptions
) -> Measured:
    labelled = _labelled(features, options)
    validation = np.array(
        [in_share(key, options.linear.validation_share, "validation part") for key in features.keys], dtype=bool
    )
    require_finite(vectors, features.origin)
    return linear_probe(vectors, labelled, validation, options.linear)


def linear_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what the linear probes depend on beside the features.

    Raises:
        SettingError, MissingError: labels or settings that cannot be used.
    """
    linear = options.linear
    if not linear.strengths or not all(0 < strength < float("inf") for strength in linear.strengths):
        found = f"{linear.strengths} are not positive numbers"
        raise SettingError("linear", [Problem(place="--linear.strengths", found=found)])
    if not 0 < linear.validation_share < 1:
        found = f"{linear.validation_share} is not a share between 0 and 1"
        raise SettingError("linear", [Problem(place="--linear.validation-share", found=found)])
    chosen = {"strengths": list(linear.strengths), "validation_share": linear.validation_share}
    return {**_label_settings(options), **chosen, "iterations": linear.iterations}


def linear_probe(
    vectors: Float[np.ndarray, "views channels"],
    labelled: LabelledViews,
    validation: Bool[np.ndarray, " views"],
    settings: LinearSettings,
) -> Measured:
    """Return the accuracy of multinomial logistic regression on standardised features.

    It is scikit-learn's `LogisticRegression` (minimises Σ log-loss + |W|² / 2C). Each C is fitted on the training part
    without its validation views, and scored on these. The best, of equals the smallest, is fitted on the whole
    training part, and that fit is scored on the test part. Means and deviations are those of the views that are fitted.

    Args:
        vectors: features of all views.
        labelled: their classes and parts.
        validation: which views C is chosen on; only those of the training part count.
        settings: the values of C, and the most iterations.

    Raises:
        SettingError: the training part, or what C is fitted or chosen on, is empty or has one class only.
    """
    train, classes = ~labelled.is_test, labelled.classes
    fitted, chosen_on = train & ~validation, train & validation
    _require_classes(classes[fitted], classes[chosen_on])
    found = {
        strength: float(
            _fit(vectors[fitted], classes[fitted], strength, settings).score(vectors[chosen_on], classes[chosen_on])
        )
        for strength in sorted(settings.strengths)
    }
    best = max(found, key=lambda strength: (found[strength], -strength))
    model = _fit(vectors[train], classes[train], best, settings)
    reached = int(np.max(model[-1].n_iter_))
    accuracy = float(model.score(vectors[labelled.is_test], classes[labelled.is_test]))
    about = {"C": best, "validation_accuracy": found[best], "iterations": reached}
    return Measured(scores={"accuracy": accuracy}, counts={**_counts(labelled), **about})


def _fit(
    vectors: Float[np.ndarray, "views channels"],
    classes: Int64[np.ndarray, " views"],
    strength: float,
    settings: LinearSettings,
) -> Pipeline:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=settings.iterations))
    with warnings.catch_warnings():
        # the number of iterations is among the counts of the result
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(vectors.astype(np.float64), classes)


def _require_classes(fitted: Int64[np.ndarray, " fitted"], chosen_on: Int64[np.ndarray, " chosen_on"]) -> None:
    if len(chosen_on) and len(np.unique(fitted)) > 1:
        return
    found = f"C is fitted on {len(fitted)} views of {len(np.unique(fitted))} classes, and chosen on {len(chosen_on)}"
    fix = "use more labelled images in the training part, or another --linear.validation-share"
    raise SettingError("linear", [Problem(place="training part", found=found, fix=fix)])


def measure_zero_shot(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Classify summaries by the text vectors of the classes; see `zero_shot_accuracy`."""
    summary, labelled = require_summary(features), _labelled(features, options)
    texts = read_text_vectors(options.classes)
    texts.require_space(features)
    rows = _rows_of_classes(texts, labelled)
    queries = unit_features(summary[labelled.is_test], features.origin)
    accuracy = zero_shot_accuracy(queries, rows[labelled.classes[labelled.is_test]], class_vectors(texts))
    return Measured(scores={"accuracy": accuracy}, counts={**_counts(labelled), "texts": len(texts.names)})


def zero_shot_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `measure_zero_shot` depends on beside the features.

    Raises:
        SettingError, MissingError: labels or text vectors that cannot be used.
    """
    return {**_label_settings(options), "classes": read_text_vectors(options.classes).sha256}


def zero_shot_accuracy(
    queries: Float64[np.ndarray, "queries channels"],
    query_classes: Int64[np.ndarray, " queries"],
    texts: Float64[np.ndarray, "classes channels"],
) -> float:
    """Return the share of the queries whose nearest text vector, by cosine, is that of their class.

    Where n text vectors are equally near and one is that of the class, the query counts 1/n.

    Args:
        queries: summaries of length 1, in the space of the text tower.
        query_classes: row of `texts` for each.
        texts: one vector of length 1 for each class.
    """
    correct = np.empty(len(queries))
    for part, similar in similarities(queries, texts):
        correct[part] = share_of_best(similar, query_classes[part])
    return float(correct.mean())


def _rows_of_classes(texts: TextVectors, labelled: LabelledViews) -> Int64[np.ndarray, " classes"]:
    """Return for each class the row of its text vector."""
    places = {name: row for row, name in enumerate(texts.names)}
    if missing := [name for name in labelled.names if name not in places]:
        found, fix = f"has no text vector of {len(missing)} classes", "make text vectors with the names of the labels"
        place = f"{texts.path}: {', '.join(missing[:3])}"
        raise SettingError("text vectors", [Problem(place=place, found=found, fix=fix)])
    return np.array([places[name] for name in labelled.names], dtype=np.int64)


def _labelled(features: EvaluationFeatures, options: EvaluateOptions) -> LabelledViews:
    return label_views(features.keys, options.labels, options.parts, options.test_share)


def _label_settings(options: EvaluateOptions) -> dict[str, Any]:
    return labels_identity(options.labels, options.parts, options.test_share)


def _counts(labelled: LabelledViews) -> dict[str, int | float | str]:
    test = int(labelled.is_test.sum())
    return {"train_views": len(labelled.classes) - test, "test_views": test, "classes": len(labelled.names)}
