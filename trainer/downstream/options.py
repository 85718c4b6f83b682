"""The command line of `evaluate`: what is measured, on what, and the settings of each task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

import tyro

from trainer.downstream.dense_settings import (
    CorrespondenceSettings,
    DenseHeadSettings,
    DepthSettings,
    MergingSettings,
    NormalsSettings,
    SegmentationSettings,
)
from trainer.downstream.labels import PartRule

StoredFeatures = Literal["float16", "float32"]
"""How a student's tokens are stored."""
ViewChoice = Literal["scored", "heldout", "all"]
"""Which views of a cache are used."""
BACKBONE = "backbone"
"""The output of a student that is its own features."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KnnSettings:
    """Classification by nearest neighbours."""

    k: int = 20
    """Number of neighbours that vote."""
    temperature: float = 0.07
    """τ: a neighbour with cosine similarity s votes with weight exp(s / τ)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSettings:
    """Classification by logistic regression."""

    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    """Values of C, the inverse of the regularisation, of which the best on the validation part is taken."""
    validation_share: float = 0.2
    """Share of the training part that C is chosen on."""
    iterations: int = 1000
    """Most iterations of the solver."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSettings:
    """Retrieval."""

    ranks: tuple[int, ...] = (1, 5, 10)
    """The k of R@k."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """Measure what the features of a student or a teacher are good for, on the views of a cache.

    What is measured already is not measured again: to resume, repeat the same command.
    """

    cache: str = ""
    """The cache whose views are used: a folder, or a URI such as s3://bucket/prefix (CACHE)."""
    student: Path = Path()
    """Folder of a finished run: its student is evaluated."""
    teacher: str = ""
    """Name of a teacher in the cache: its features are evaluated."""
    tasks: tuple[str, ...] = ("knn", "linear")
    """What is measured: knn, linear, linear-mean, zero-shot, retrieval, image-text, …: see docs/evaluation.md."""
    sets: tuple[str, ...] = ()
    """View sets, such as `low-224 low-512`. None named: all of the cache."""
    views: ViewChoice = "scored"
    """`scored`: the held-out views of a cache that students are trained from, all views of a cache with evaluation
    views. `heldout`: held-out views. `all`: all views, also those that a student was trained on."""
    outputs: tuple[str, ...] = (BACKBONE,)
    """Outputs of the student: `backbone` for its own features, or the name of a teacher for those of its heads."""
    labels: str = ""
    """Labels: a CSV file with the columns key, label and, for given parts, split; or `folders`."""
    parts: PartRule = "given"
    """How images are divided into the part to learn from and the part to score on. `given`: as the labels name them.
    `hash`: by a hash of the key."""
    test_share: float = 0.2
    """Share of images in the test part, where a hash divides them."""
    classes: Path = Path()
    """Text vectors of the classes, for `zero-shot`: a `.safetensors` file."""
    captions: Path = Path()
    """Text vectors of captions, for `image-text`: a `.safetensors` file."""
    knn: KnnSettings = KnnSettings()
    linear: LinearSettings = LinearSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    depth: DepthSettings = field(default_factory=DepthSettings)
    normals: NormalsSettings = field(default_factory=NormalsSettings)
    dense: DenseHeadSettings = field(default_factory=DenseHeadSettings)
    correspondence: CorrespondenceSettings = field(default_factory=CorrespondenceSettings)
    merging: MergingSettings = field(default_factory=MergingSettings)
    to: Path = Path()
    """Folder for scores and features. By default the student's own, or `out/evaluation/<teacher>`."""
    batch: int = 16
    """Views that the student runs on at a time."""
    device: str = "cpu"
    """Where the student runs: cpu, or cuda."""
    window: int = 0
    """Side of the student's attention windows (tokens); 0 for global attention."""
    stored: StoredFeatures = "float16"
    """How the student's tokens are stored. Summaries and means are stored as float32."""
    json: bool = False
    """Print the scores as JSON instead of a table."""


def evaluate_options(arguments: Sequence[str]) -> EvaluateOptions:
    """Read the command line of `evaluate`. An invalid one ends the process with a message and status 2."""
    return tyro.cli(
        EvaluateOptions,
        prog="python -m trainer evaluate",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
