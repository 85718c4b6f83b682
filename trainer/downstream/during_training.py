"""Tasks on held-out views while a student learns: nearest neighbours and a linear probe on its own summaries."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.classification import knn_accuracy, linear_probe
from trainer.downstream.labels import LabelledViews, PartRule, in_share, label_views, labels_identity
from trainer.downstream.options import KnnSettings, LinearSettings
from trainer.downstream.similarity import unit_features

TASKS = ("knn", "linear")
"""Names of the scores, each for every view set."""
TEST_SHARE = 0.5
"""Share of held-out images that are scored, where a hash divides them: there are few of them."""
KNN = KnnSettings()
LINEAR = LinearSettings(iterations=200)
"""Settings of the two tasks: those of `evaluate`, with fewer iterations of the solver."""


def label_heldout(keys: Mapping[str, Sequence[str]], source: str, rule: PartRule) -> dict[str, LabelledViews]:
    """Return the labels of held-out views, and refuse them where nothing could be measured.

    Args:
        keys: view set → key of the image of each held-out view.
        source: a CSV file, or `folders`.
        rule: how images are divided into a training part and a test part.

    Raises:
        SettingError, MissingError: labels that cannot be used; see `label_views`.
        SettingError: a view set has fewer training views than the k of the nearest neighbours.
    """
    labels_identity(source, rule, TEST_SHARE)
    labelled = {name: label_views(of_set, source, rule, TEST_SHARE) for name, of_set in keys.items()}
    few = {name: int((~views.is_test).sum()) for name, views in labelled.items()}
    problems = [
        Problem(place=name, found=f"{count} held-out views are in the training part; nearest neighbours need {KNN.k}")
        for name, count in few.items()
        if count < KNN.k
    ]
    if problems:
        fix = "cut views with a larger --views.heldout, or train without running.labels"
        raise SettingError("running.labels", [*problems, Problem(place="what to do", found=fix)])
    return labelled


def summary_scores(
    summaries: Float32[np.ndarray, "views channels"], labelled: LabelledViews, keys: Sequence[str]
) -> dict[str, float]:
    """Return the accuracies of nearest neighbours and of a linear probe.

    Args:
        summaries: of the held-out views of one set.
        labelled: their classes and parts.
        keys: keys of their images.

    Raises:
        ContractError: a summary holds NaN or infinity, or is zero.
        SettingError: C cannot be chosen; see `linear_probe`.
    """
    units, test = unit_features(summaries, "the student"), labelled.is_test
    classes = labelled.classes
    validation = np.array([in_share(key, LINEAR.validation_share, "validation part") for key in keys], dtype=bool)
    knn = knn_accuracy(units[~test], classes[~test], units[test], classes[test], KNN)
    probe = linear_probe(summaries, labelled, validation, LINEAR)
    return {"knn": knn, "linear": probe.scores["accuracy"]}
