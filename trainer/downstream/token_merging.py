"""Token merging: how much of a view's tokens is lost when similar ones are merged, and the merged tokens put back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.dense_settings import MergingSettings
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.measured import Measured

DECIMALS = 12
"""Decimals of a similarity that count."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MergedTokens:
    """The tokens of a view after merging."""

    tokens: Float32[np.ndarray, "kept channels"]
    """Those that are left, in the order of their places in the view."""
    stands_for: Int64[np.ndarray, "rows cols"]
    """Which of them stands for the token at each place."""

    def unmerged(self) -> Float32[np.ndarray, "rows cols channels"]:
        """Return a token for every place again: that which stands for it."""
        return self.tokens[self.stands_for]


def choose_targets(rows: int, cols: int, stride: int) -> Bool[np.ndarray, "rows cols"]:
    """Return which tokens are targets: the first one of every stride × stride tokens, also of those cut by the border.

    So every region of a view keeps a token of its own.
    """
    return ((np.arange(rows) % stride == 0)[:, None]) & (np.arange(cols) % stride == 0)


def merge_tokens(tokens: Float[np.ndarray, "rows cols channels"], merged: int, stride: int) -> MergedTokens:
    """Merge the tokens that are most similar to a target into it.

    All tokens that are no target are sources. Each source is compared with every target by cosine; the `merged` sources
    with the highest similarity are merged into their targets, and a target becomes the mean of itself and its sources.
    Of equal similarities the first counts, by place.

    Source: bipartite soft matching of ToMe (Bolya et al. 2023, arXiv:2210.09461) with the strided targets of ToMeSD
    (Bolya and Hoffman 2023, arXiv:2303.17604), once, on the values of the output tokens: v2.5 section 4.8.

    Args:
        tokens: tokens of a view.
        merged: number of sources to merge, r of the paper.
        stride: side of the regions with one target (tokens).

    Raises:
        SettingError: there are fewer sources.
    """
    rows, cols, channels = tokens.shape
    is_target, flat = choose_targets(rows, cols, stride).ravel(), tokens.reshape(-1, channels).astype(np.float64)
    targets, sources = np.flatnonzero(is_target), np.flatnonzero(~is_target)
    if merged > len(sources):
        fix = f"with a stride of {stride}, the ratio can be {len(sources) / len(flat):.4g} at most"
        found = f"cannot lose {merged} of {len(flat)} tokens: {len(targets)} are targets"
        raise SettingError("merging", [Problem(place=f"{rows} × {cols} tokens", found=found, fix=fix)])
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(lengths > 0, lengths, 1)
    # equal tokens have equal similarities; a matrix product may give them different last bits
    cosines = np.round(unit[sources] @ unit[targets].T, DECIMALS)
    nearest = cosines.argmax(axis=1)
    # a stable sort, so that of equal similarities the first counts
    chosen = np.argsort(-cosines.max(axis=1), kind="stable")[:merged]
    holder = np.arange(len(flat))
    holder[sources[chosen]] = targets[nearest[chosen]]
    kept, stands_for = np.unique(holder, return_inverse=True)
    sums = np.zeros((len(kept), channels))
    np.add.at(sums, stands_for, flat)
    means = sums / np.bincount(stands_for)[:, None]
    return MergedTokens(tokens=means.astype(np.float32), stands_for=stands_for.reshape(rows, cols))


def merged_count(ratio: float, tokens: int) -> int:
    """Return how many of a view's tokens are merged at a ratio."""
    return round(ratio * tokens)


def with_merged_tokens(features: EvaluationFeatures, ratio: float, stride: int) -> EvaluationFeatures:
    """Return features whose tokens are merged, and put back at the places of the tokens that they stand for.

    Args:
        features: features of a view set.
        ratio: share of the tokens of each view that are merged into others.
        stride: side of the regions with one target (tokens).
    """
    rows, cols, _ = features.shape
    merged = merged_count(ratio, rows * cols)

    def tokens(views: slice) -> Float32[np.ndarray, "views rows cols channels"]:
        return np.stack([merge_tokens(view, merged, stride).unmerged() for view in features.tokens(views)])

    return replace(features, tokens=tokens, digest=f"{features.digest}, merged {ratio} {stride}")


def reconstruction_error(features: EvaluationFeatures, ratio: float, stride: int) -> float:
    """Return the error of merged tokens that are put back, over the variance of the tokens.

        Σ |x − x̂|² / Σ |x − μ|²

    μ is the mean of all tokens of the view set. 0: nothing is lost; 1: as much as if every token were the mean.

    Args:
        features: features of a view set.
        ratio: share of the tokens of each view that are merged into others.
        stride: side of the regions with one target (tokens).

    Raises:
        SettingError: all tokens are the same, or the ratio is too high.
    """
    rows, cols, channels = features.shape
    merged = merged_count(ratio, rows * cols)
    lost, squares, total = 0.0, 0.0, np.zeros(channels)
    shift = np.zeros(channels)
    for view in range(len(features)):
        tokens = features.tokens(slice(view, view + 1))[0].astype(np.float64)
        if view == 0:
            shift = tokens.mean(axis=(0, 1))  # near the mean, so that the variance is not a difference of large numbers
        lost += float(np.square(merge_tokens(tokens, merged, stride).unmerged() - tokens).sum())
        squares += float(np.square(tokens - shift).sum())
        total += (tokens - shift).sum(axis=(0, 1))
    count = len(features) * rows * cols
    variance = squares - float(total @ total) / count
    if not variance > 0:
        raise SettingError("merging", [Problem(place=features.origin, found="all tokens are the same")])
    return lost / variance


def measure_merging(
    features: EvaluationFeatures,
    settings: MergingSettings,
    others: Callable[[EvaluationFeatures, str], Measured],
) -> Measured:
    """Return the reconstruction error at every ratio, and the first score of other tasks on merged tokens.

    A head of such a task is trained on merged tokens too. At ratio 0 the tokens are those that the model gave.

    Args:
        features: features of a view set.
        settings: ratios, stride and tasks.
        others: measures a task on some features.
    """
    rows, cols, _ = features.shape
    scores: dict[str, float] = {}
    counts: dict[str, int | float | str] = {"tokens": rows * cols, "views": len(features)}
    for ratio in settings.ratios:
        scores[f"error@{ratio:g}"] = reconstruction_error(features, ratio, settings.stride)
        counts[f"tokens@{ratio:g}"] = rows * cols - merged_count(ratio, rows * cols)
    for task in settings.tasks:
        for ratio in (0.0, *settings.ratios):
            merged = with_merged_tokens(features, ratio, settings.stride) if ratio else features
            name, score = next(iter(others(merged, task).scores.items()))
            scores[f"{task}_{name}@{ratio:g}"] = score
    return Measured(scores=scores, counts=counts)


def require_merging(settings: MergingSettings) -> None:
    """Refuse settings that are not possible, before any feature is computed.

    Raises:
        SettingError: no ratio, one outside (0, 1), one that the stride does not allow, or a stride below 2.
    """
    problems = []
    if settings.stride < 2:
        problems.append(Problem(place="stride", found=f"{settings.stride} is less than 2: every token is a target"))
    if not settings.ratios:
        problems.append(Problem(place="ratios", found="no ratio is given"))
    most = 1 - 1 / max(settings.stride, 2) ** 2
    for ratio in settings.ratios:
        if not 0 < ratio < 1:
            problems.append(Problem(place="ratios", found=f"{ratio} is not between 0 and 1"))
        elif ratio > most:
            found = f"{ratio} is more than {most:.4g}, which a stride of {settings.stride} allows"
            problems.append(Problem(place="ratios", found=found, fix="choose a larger stride"))
    if problems:
        raise SettingError("merging", problems)
