"""Dense tasks as `evaluate` runs them: each with its part of the options, and what its scores depend on."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from storage_schemas.format.errors import Problem, SettingError
from trainer.downstream.correspondence import measure_correspondence, require_keypoints
from trainer.downstream.dense_head import require_possible
from trainer.downstream.dense_views import ImageParts
from trainer.downstream.depth import measure_depth, measure_normals
from trainer.downstream.depth_maps import require_depth, require_normals
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.masks import listed_files, require_masks
from trainer.downstream.measured import Measured
from trainer.downstream.options import EvaluateOptions
from trainer.downstream.segmentation import measure_segmentation
from trainer.downstream.token_merging import measure_merging, require_merging


def segment(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Score linear segmentation; see `measure_segmentation`."""
    return measure_segmentation(features, options.segmentation, options.dense, _parts(options), options.device)


def segmentation_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `segment` depends on beside the features.

    Raises:
        SettingError, MissingError: settings or folders that cannot be used.
    """
    require_masks(options.segmentation)
    lists = {path.name: _file_digest(path) for path in listed_files(options.segmentation).values()}
    settings = asdict(options.segmentation) | {"masks": _folder_digest(options.segmentation.masks), "lists": lists}
    return {**settings, **_head_settings(options)}


def estimate_depth(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Score a head for depth; see `measure_depth`."""
    return measure_depth(features, options.depth, options.dense, _parts(options), options.device)


def depth_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `estimate_depth` depends on beside the features.

    Raises:
        SettingError, MissingError: settings or folders that cannot be used.
    """
    require_depth(options.depth)
    return {**asdict(options.depth), "maps": _folder_digest(options.depth.maps), **_head_settings(options)}


def estimate_normals(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Score a head for surface normals; see `measure_normals`."""
    return measure_normals(features, options.normals, options.dense, _parts(options), options.device)


def normals_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `estimate_normals` depends on beside the features.

    Raises:
        SettingError, MissingError: settings or folders that cannot be used.
    """
    require_normals(options.normals)
    return {**asdict(options.normals), "maps": _folder_digest(options.normals.maps), **_head_settings(options)}


def correspond(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Score the correspondence of keypoints; see `measure_correspondence`."""
    return measure_correspondence(features, options.correspondence)


def correspondence_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `correspond` depends on beside the features.

    Raises:
        SettingError, MissingError: settings or keypoints that cannot be used.
    """
    require_keypoints(options.correspondence)
    return asdict(options.correspondence) | {"pairs": _file_digest(options.correspondence.pairs)}


def merge(features: EvaluationFeatures, options: EvaluateOptions) -> Measured:
    """Score merged tokens; see `measure_merging`."""
    return measure_merging(features, options.merging, lambda merged, task: DENSE[task][0](merged, options))


def merging_settings(options: EvaluateOptions) -> Mapping[str, Any]:
    """Return what `merge` depends on beside the features.

    Raises:
        SettingError, MissingError: settings of merging, or of its tasks, that cannot be used.
    """
    require_merging(options.merging)
    if unknown := [task for task in options.merging.tasks if task not in DENSE]:
        found, fix = "is no task on tokens", f"there are {', '.join(DENSE)}"
        raise SettingError("merging", [Problem(place=task, found=found, fix=fix) for task in unknown])
    return asdict(options.merging) | {"tasks": {task: DENSE[task][1](options) for task in options.merging.tasks}}


DENSE: Mapping[
    str,
    tuple[
        Callable[[EvaluationFeatures, EvaluateOptions], Measured],
        Callable[[EvaluateOptions], Mapping[str, Any]],
    ],
] = {
    "segmentation": (segment, segmentation_settings),
    "depth": (estimate_depth, depth_settings),
    "normals": (estimate_normals, normals_settings),
    "correspondence": (correspond, correspondence_settings),
}
"""Task on tokens → what measures it, and what returns its settings."""


def _parts(options: EvaluateOptions) -> ImageParts:
    return ImageParts(rule=options.parts, test_share=options.test_share)


def _head_settings(options: EvaluateOptions) -> dict[str, Any]:
    require_possible(options.dense)
    parts = asdict(_parts(options)) if options.parts == "hash" else {"rule": options.parts}
    return {"head": asdict(options.dense), "parts": parts}


def _file_digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _folder_digest(folder: Path) -> str:
    """Return a digest of the names, sizes and times of a folder's files; to read gigabytes would take minutes."""
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        facts = path.stat()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
