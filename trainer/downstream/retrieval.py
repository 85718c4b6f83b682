"""Retrieval by frozen features: images by an image of the same class, captions by an image, and images by a caption."""

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.features import EvaluationFeatures, require_summary
from trainer.downstream.labels import label_views, labels_identity
from trainer.downstream.measured import Measured
from trainer.downstream.options import EvaluateOptions
from trainer.downstream.similarity import similarities, unit_features
from trainer.downstream.text_vectors import class_vectors, read_text_vectors


def measure_retrieval(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Look for images of the same class among the test part.

    Each view of the test part is a query once. It is compared with the views of all other images of that part. Queries
    without another image of their class are left out, and counted.
    """
    summary = require_summary(features)
    labelled = label_views(features.keys, options.labels, options.parts, options.test_share)
    test = np.flatnonzero(labelled.is_test)
    units = unit_features(summary[test], features.origin)
    images = np.unique(np.array(features.keys)[test], return_inverse=True)[1]
    classes, found, alone = labelled.classes[test], [], 0
    for part, similar in similarities(units, units):
        for row, query in enumerate(range(part.start, part.stop)):
            others = images != images[query]
            relevant = (classes == classes[query])[others]
            if relevant.any():
                found.append(ranked_scores(similar[row][others], relevant, options.retrieval.ranks))
            else:
                alone += 1
    if not found:
        problem = Problem(place=options.labels, found="no image of the test part has another one of its class")
        raise SettingError("retrieval", [problem])
    counts: dict[str, int | float | str] = {"queries": len(found), "without_another": alone}
    return Measured(scores=_means(found), counts={**counts, "test_views": len(test), "classes": len(labelled.names)})


def retrieval_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `measure_retrieval` depends on beside the features.

    Raises:
        SettingError, MissingError: labels or ranks that cannot be used.
    """
    labels = labels_identity(options.labels, options.parts, options.test_share)
    return {**labels, "ranks": _ranks(options)}


def measure_image_text(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Look for the captions of an image, and for the image of a caption.

    Every view is a query for its captions, and every caption a query for the views of its image.
    """
    texts = read_text_vectors(options.captions)
    texts.require_space(features)
    views, captions = unit_features(require_summary(features), features.origin), class_vectors(texts)
    keys, of_caption = np.array(features.keys), np.array(texts.keys)
    _require_pairs(set(features.keys), set(texts.keys), str(options.captions))
    known = np.isin(of_caption, keys)
    to_text = _recalls(views, captions[known], keys, of_caption[known], options.retrieval.ranks)
    to_image = _recalls(captions[known], views, of_caption[known], keys, options.retrieval.ranks)
    scores = {f"text {name}": value for name, value in to_text.items()}
    scores |= {f"image {name}": value for name, value in to_image.items()}
    return Measured(scores=scores, counts={"views": len(keys), "captions": int(known.sum())})


def image_text_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `measure_image_text` depends on beside the features.

    Raises:
        SettingError, MissingError: captions or ranks that cannot be used.
    """
    texts = read_text_vectors(options.captions)
    if not texts.keys:
        found, fix = "names no image for its texts", "write captions with keys, one image key for each"
        raise SettingError("captions", [Problem(place=str(options.captions), found=found, fix=fix)])
    return {"captions": texts.sha256, "ranks": _ranks(options)}


def ranked_scores(
    similar: Float64[np.ndarray, " others"], relevant: Bool[np.ndarray, " others"], ranks: Sequence[int]
) -> dict[str, float]:
    """Return average precision and R@k of one query; both expected over random orders of equal similarities.

        AP = 1/|relevant| Σ_{relevant at rank n} (relevant up to n) / n
        R@k = 1 if one of the first k is relevant, else 0

    Among t equally similar entries of which r are relevant, behind i others of which h are relevant, place j (from 1)
    holds a relevant one with probability r/t, and then h + 1 + (j − 1)(r − 1)/(t − 1) are expected up to it. Source:
    McSherry and Najork 2008, "Computing information retrieval performance measures efficiently in the presence of tied
    scores". R@k counts as in metric learning: a query is right or wrong.

    Args:
        similar: similarity of each entry to the query.
        relevant: which entries should be found; at least one.
        ranks: the k of R@k.
    """
    scores = {f"R@{k}": _recall(similar, relevant, k) for k in ranks}
    values, group = np.unique(-similar, return_inverse=True)
    sizes, hits = np.bincount(group, minlength=len(values)), np.bincount(group, relevant, len(values))
    before, hits_before = np.cumsum(sizes) - sizes, np.cumsum(hits) - hits
    kinds = np.flatnonzero(hits)
    of_place = np.repeat(kinds, sizes[kinds])
    place = np.arange(len(of_place)) - np.repeat(np.cumsum(sizes[kinds]) - sizes[kinds], sizes[kinds]) + 1
    tied = np.maximum(sizes[of_place] - 1, 1)
    up_to = hits_before[of_place] + 1 + (place - 1) * (hits[of_place] - 1) / tied
    precision = hits[of_place] / sizes[of_place] * up_to / (before[of_place] + place)
    return {"mAP": float(precision.sum() / hits.sum()), **scores}


def _recall(similar: Float64[np.ndarray, " others"], relevant: Bool[np.ndarray, " others"], k: int) -> float:
    """Return the probability that one of the first k is relevant."""
    if k >= len(similar):
        return 1.0
    border = np.partition(similar, -k)[-k]
    if relevant[similar > border].any():
        return 1.0
    tied = relevant[similar == border]
    left, wrong = k - int((similar > border).sum()), int((~tied).sum())
    return 1.0 - comb(wrong, left) / comb(len(tied), left)


def _recalls(
    queries: Float64[np.ndarray, "queries channels"],
    others: Float64[np.ndarray, "others channels"],
    query_keys: np.ndarray,
    other_keys: np.ndarray,
    ranks: Sequence[int],
) -> dict[str, float]:
    found = []
    for part, similar in similarities(queries, others):
        for row, query in enumerate(range(part.start, part.stop)):
            relevant = other_keys == query_keys[query]
            found.append({f"R@{k}": _recall(similar[row], relevant, k) for k in ranks})
    return _means(found)


def _require_pairs(images: set[str], captioned: set[str], place: str) -> None:
    if missing := sorted(images - captioned):
        found = f"has no caption for {len(missing)} of {len(images)} images: {', '.join(missing[:3])}"
        raise SettingError("captions", [Problem(place=place, found=found, fix="captions are found by image key")])


def _ranks(options: EvaluateOptions) -> list[int]:
    ranks = list(options.retrieval.ranks)
    if not ranks or min(ranks) < 1:
        raise SettingError("retrieval", [Problem(place="--retrieval.ranks", found=f"{ranks} are not ranks from 1")])
    return ranks


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([scores[name] for scores in found])) for name in found[0]}
