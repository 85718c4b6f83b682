"""Settings of the pipeline, checked when they are built.

A recipe is a function that returns a `Recipe`; see `pipeline/recipes`. The line under each setting
is its help text on the command line.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, final, get_args

from storage_schemas.format.encodings import INT8_REACH, INT8_STEP, Encoding, step_of_fidelity
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.latents import MOST_FIDELITY
from storage_schemas.format.shard_format import LEVELS, Compression
from storage_schemas.format.teacher import Precision, SizeRule, SummaryKind
from storage_schemas.format.views import Partition, ShiftDistribution, Shifts

Placing = Literal["drawn", "centre", "windows"]
"""How views are placed in images."""
ImageRules = Literal["strict", "lenient", "0.1"]
"""Rules by which images are found and decoded."""
NEW_LEVEL = 1
"""The zstd level of new features, where none is chosen."""
PCA_FIDELITY = 100.0
"""The fidelity at which `pca8` stores features, where none is chosen."""
QUANTIZED: Mapping[str, tuple[Encoding, ...]] = MappingProxyType({"step": ("int8",), "fidelity": ("int8", "pca8")})
"""Settings of encodings → the encodings that they have an effect on."""
LEAST_FIDELITY = 2
"""The smallest fidelity of an encoding that may be asked for."""
OLD_RULES: ImageRules = "0.1"
"""The rules of caches that record none."""
UNRECORDED: Mapping[str, Any] = MappingProxyType(
    {
        "rules": OLD_RULES,
        "keys": "names",
        "members": "",
        "image_column": "",
        "key_column": "",
        "placing": "drawn",
        "order": "views",
    }
)
"""Settings that the first caches do not record → what they stand for there. At this value they are left out of the
identity, so that those caches keep theirs."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsConfig:
    """Which views are cut from the images. Every field is part of the cache's identity."""

    seed: int = 0
    """Seed of everything random: crops, flips, resolutions, shifts, mosaic cells, the split."""
    low: tuple[int, ...] = (128, 192, 224, 256, 384, 432)
    """Resolutions (pixels) of the low partition; v4 section 2.2. An empty list leaves the partition out."""
    low_proportions: tuple[float, ...] = ()
    """Relative weight of each resolution in `low`; all equal when empty. Not published for v4."""
    high: tuple[int, ...] = (512, 768, 1024, 1152)
    """Resolutions (pixels) of the high partition; v4 section 2.2. An empty list leaves the partition out."""
    high_proportions: tuple[float, ...] = ()
    """Relative weight of each resolution in `high`; all equal when empty. Not published for v4."""
    high_share: float = 128 / (1024 + 128)
    """Share of all views that go to the high partition. v2.5 trains on 1024 low and 128 high images per step."""
    draws: int = 1
    """Views cut from each image."""
    patch: int = 16
    """Side of a student patch (pixels). Windows move by whole patches, and every resolution is a multiple of it."""
    margin: int = 2
    """Patches by which the canvas is larger than the window, so that windows can shift. 2 leaves room for one patch to
    each side of the middle, 4 for two. C-RADIOv4 names no bound (NVlabs/RADIO#181); it rarely shifts by more than 1."""
    shifts: ShiftDistribution = "uniform"
    """Distribution of window offsets in the margin: `uniform`, or `rounded-normal`: a normal distribution about the
    middle, rounded to whole patches and clipped. C-RADIOv4: `rounded-normal` of 0.5 patches, for the student and the
    teachers alike (NVlabs/RADIO#181). The teachers' offsets are drawn from it once. The student's are drawn from it in
    training, unless a run says otherwise (`data.student_shifts`)."""
    shift_sd: float = 0.5
    """Standard deviation of `rounded-normal` before rounding (patches). C-RADIOv4: 0.5 (NVlabs/RADIO#181): along each
    axis two thirds of the offsets stay in the middle."""
    crop: Literal["random", "centre"] = "random"
    """Which part of an image becomes a canvas: `random` for a random box within `area` and `aspect`, `centre` for the
    largest centred square."""
    area: tuple[float, float] = (0.25, 1.0)
    """Smallest and largest area of a random box, as a share of the image's area. Not published for v4."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest ratio of width to height of a random box, which is resized to a square canvas. Not published
    for v4."""
    flip: float = 0.5
    """Share of views that are mirrored left to right. Teachers see the mirrored pixels, so training must not flip
    again."""
    heldout: float = 0.05
    """Share of images held out for evaluation, chosen by a hash of their key."""
    tokens_per_shard: int = 32768
    """Student tokens in a shard: it sets how many rows a shard has at each resolution. 32,768 tokens are 256 MB of
    DINOv3-7B features in float16."""
    canvas_tokens: int = 72
    """Tokens along one side of a canvas teacher's input, 72 for SAM3. The rows of a shard are then a multiple of k², so
    that mosaics of k × k views fill it. 0 if no canvas teacher will ever use this cache."""
    duplicates: Literal["keep", "drop"] = "keep"
    """What to do with images that have the same bytes: `keep` reports them; `drop` keeps only the first by key, and
    reads every image once more to find them."""
    min_side: int = 64
    """Images whose shorter side is below this (pixels) are rejected."""
    max_aspect: float = 20.0
    """Images whose longer side is more than this many times the shorter side are rejected."""
    max_pixels: int = 178_956_970
    """Images with more pixels than this are rejected without decoding: they may be decompression bombs."""
    rules: ImageRules = "strict"
    """Rules by which images are found and decoded; see docs/images.md. `strict` rejects a JPEG whose compressed data is
    spoilt, `lenient` takes it as libjpeg fills it in. `0.1` stands for the rules of that version: caches that were made
    with it keep them."""
    keys: Literal["names", "archive", "numbers"] = "names"
    """Key of an image in a tar or a Parquet file: `names` for the name that it has there, `archive` for the path of the
    archive below DATA and that name, `numbers` for that path and the number of the image in the archive."""
    members: str = ""
    """Which images of a tar are taken, by the pattern of their names: `'*.jpg'`, `'*.{jpg,png}'`. All when empty; a tar
    in which a sample has several is then refused."""
    image_column: str = ""
    """Column of a Parquet file, or of a list in CSV, that holds the images; found by its name when empty."""
    key_column: str = ""
    """Column of a Parquet file, or of a list in CSV, that holds the keys; found by its name when empty."""
    placing: Placing = "drawn"
    """`drawn`: each view has one resolution and one crop, both drawn. `centre` and `windows` are for evaluation: every
    image is cut at every resolution, nothing is drawn, and `crop`, `area`, `aspect` and `high_share` have no effect.
    `centre` cuts the square in the middle, `windows` cuts `draws` squares side by side. See docs/evaluation.md."""
    order: Literal["images", "views"] = "images"
    """Order of the views in a set. `images`: the draws of an image lie in a few shards that are cut together, each in
    another shard, so an image is decoded once for all of them. `views`: all views are shuffled, so an image is decoded
    once for each draw; caches that were made before there was a choice keep this order."""

    def __post_init__(self) -> None:
        _refuse("views settings", _views_problems(self))

    @property
    def teacher_shifts(self) -> Shifts:
        """Distribution of the teachers' window offsets, which is also the student's unless a run says otherwise."""
        return Shifts(distribution=self.shifts, sd=self.shift_sd)

    def proportions(self, partition: Partition) -> dict[int, float]:
        """Return resolution (pixels) → relative weight for a partition."""
        resolutions = getattr(self, partition)
        return dict(
            zip(resolutions, getattr(self, f"{partition}_proportions") or (1.0,) * len(resolutions), strict=True)
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherChoice:
    """One teacher of a recipe: its model, its weights, and how its features are stored."""

    name: str
    """Short name: `TEACHER=` for make, `teachers/<name>` in the cache."""
    source: str
    """A name in `teachers.catalogue`; `timm:<model.tag>` for any model of timm that gives a map;
    `hf:<repository or folder>` for a vision model of transformers; or `module:Class` for a class of your own. See
    docs/teachers.md and docs/adding_a_teacher.md."""
    weights: str = "hub"
    """`hub`, a local file or folder, or `random:<seed>` for demonstrations. A class of your own brings its weights
    (`own`), or takes a path."""
    summary: SummaryKind = "own"
    """For a model of timm or transformers: its summary. `own` for the model's own pooling, `class-token`, `mean` for
    the mean of the map's tokens, or `none`."""
    size_rule: SizeRule | None = None
    """For a model of timm or transformers: which sizes it gets. None for the model's own rule; `fixed` for its own size
    only; `canvas` to lay several small views out on one input of its own size, which needs `summary none`; `any` for a
    vision transformer of timm of fixed size, whose table of positions is then interpolated for each other size."""
    precision: Precision | None = None
    """Arithmetic of the forward pass. None takes the catalogue's choice: bfloat16 weights for the 7B model, float32
    weights under bfloat16 autocast for the others; `fp32` for a source outside the catalogue."""
    layers: tuple[int, ...] = ()
    """Blocks, counted from 0, whose maps are cached too, besides the last block's; each becomes a teacher of its own,
    `<name>-block<n>`. One forward pass computes all of them."""
    tiles: int = 1
    """For a fixed teacher in the high partition: it sees a window as `tiles` × `tiles` native inputs, and so gives
    `tiles` times as many tokens along each side. 3 for SigLIP2 at 384 px beside a student at 1152 px."""
    upsampler: str = "tiles"
    """How the tokens of a tiled window are made: `tiles` takes those of each tile; `bilinear` interpolates those of the
    whole window; `module:Class` is a trained upsampler (AnyUp, JAFAR, FeatSharp) that uses the window, its tokens and
    those of its tiles. No effect where `tiles` is 1."""
    upsampler_weights: str = ""
    """A file or folder with the weights of a trained upsampler, for a class whose constructor takes `weights`."""
    encoding: Encoding = "float16"
    """Stored type of spatial features (PHI-S units). `int8` needs half the bytes of `float16`. It holds numbers up to
    127 steps. `pca8` stores latents along the principal axes, in an eighth of the bytes. docs/storage.md says which to
    choose."""
    step: float | None = None
    """Step of `int8` (PHI-S units, standard deviations of a channel), at least 8/127 = 0.063, which is also the step
    where neither it nor `fidelity` is given."""
    fidelity: float | None = None
    """The fidelity at which features are stored, variance over mean squared error. With `int8`, in place of `step`,
    which is then √(12 / fidelity): 0.35 for 100. With `pca8`, 100 where it is not given."""
    compression: Compression = "none"
    """Compression of spatial features."""
    compression_level: int | None = None
    """Level of zstd, 1 to 19. None takes the level of the features that the cache holds of this teacher, and 1 where it
    holds none: on features, 1 is smaller than 3 as well as faster."""
    batch: int = 16
    """Inputs (images, or mosaics) in one forward pass. Part of the cache's identity, because GPU kernels may round
    differently at another batch size."""

    def __post_init__(self) -> None:
        problems = [*_too_small(self, batch=1, tiles=1), *_storage_problems(self)]
        _refuse(f"choice of teacher {self.name!r}", problems)

    @property
    def storage(self) -> FeatureStorage:
        """How its features are stored, in a cache that holds none of them yet, but for the latents of `pca8`."""
        return FeatureStorage(
            encoding=self.encoding,
            compression=self.compression,
            step=(chosen_step(self.step, self.fidelity) if self.encoding == "int8" else None) or INT8_STEP,
            level=self.compression_level or NEW_LEVEL,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """The sample on which PHI-S is fitted. Once fitted, PHI-S never changes."""

    views: int = 1000
    """Fewest training views, over all view sets; all of them where there are fewer."""
    tokens_per_channel: int = 20
    """Fewest tokens per channel: the covariance must be well determined."""

    def __post_init__(self) -> None:
        _refuse("calibration settings", _too_small(self, views=1, tokens_per_channel=1))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """How a stage runs. Only `device`, `compiled` and `threads` can change how stored numbers are rounded."""

    executor: Literal["ray", "local"] = "ray"
    """`ray`: worker processes on this machine, or on the cluster at RAY_ADDRESS. `local`: all work in this process;
    views are cut on all of its cores."""
    workers: int = 0
    """Most worker processes on Ray; 0 for as many as fit on the cluster's CPUs (or GPUs, where `gpus` is set). There
    are never more workers than tasks. An autoscaling cluster needs a number: it adds nodes for workers that wait."""
    min_workers: int = 1
    """Fewest worker processes on Ray: with fewer, the run waits, and in the end aborts. Above that, workers and nodes
    may come and go."""
    patience: float = 300.0
    """Seconds to wait for `min_workers` workers before aborting, at the start and after workers are lost. What is
    committed is kept."""
    gpus: float = 0.0
    """GPUs of each worker of `extract`; with 0.5, two workers share one GPU. Other stages use none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where teachers run: `auto` uses a GPU where there is one."""
    compiled: bool = False
    """Whether teachers run through `torch.compile`, with a program for each size of input. No effect on a CPU."""
    threads: int = 1
    """CPU threads of each worker. Used with `executor=local` too, so that both executors write the same bytes, but for
    cutting views, which gives the same bytes with any number."""
    max_rejected: float | None = None
    """Largest share of views that may be rejected because their images are unusable. As soon as it is certain to be
    exceeded, the stage stops and names these images. What is committed is kept. The cache keeps the share: it need be
    given once. 0.01 where it was never given."""
    accept_change: str = ""
    """Lets `extract` add to features although its code or its libraries have changed since: the digest that the refusal
    names. You then declare that both compute the same features. The cache records both."""
    report: str = ""
    """Where to write the figures of each stage for programs (`run.json`): a file, or any URI that fsspec can open;
    nowhere when empty."""

    def __post_init__(self) -> None:
        least = _too_small(self, workers=0, min_workers=1, patience=0, gpus=0, threads=1)
        problems = [*least, *_not_shares(self, "max_rejected")]
        if 0 < self.workers < self.min_workers:
            found = f"{self.min_workers} is more than --run.workers, {self.workers}"
            problems.append(Problem(place="min_workers", found=found))
        _refuse("run settings", problems)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings that decide what is in a cache."""

    name: str
    """The recipe's name; the cache records it."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Which views are cut."""
    teachers: tuple[TeacherChoice, ...] = ()
    """Which teachers see them."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    """What PHI-S is fitted on."""

    def teacher(self, name: str) -> TeacherChoice:
        """Return the teacher with that short name.

        Raises:
            SettingError: the recipe has no such teacher.
        """
        for choice in self.teachers:
            if choice.name == name:
                return choice
        names = ", ".join(choice.name for choice in self.teachers) or "none"
        found, fix = (
            f"recipe {self.name} has no teacher {name!r}",
            f"it has {names}; or give timm:<model.tag> or module:Class",
        )
        raise SettingError("TEACHER", [Problem(place=name, found=found, fix=fix)])


def chosen_step(step: float | None, fidelity: float | None) -> float | None:
    """Return the step that a user chose by one of two settings; None where both are None."""
    return step if fidelity is None else step_of_fidelity(fidelity)


def step_problems(encoding: str, step: float | None, fidelity: float | None) -> Iterator[Problem]:
    """Yield what is wrong with the choice of a step.

    Args:
        encoding: that it is for.
        step: the step that was asked for, or None.
        fidelity: the fidelity that was asked for, or None.
    """
    given = {name: value for name, value in (("step", step), ("fidelity", fidelity)) if value is not None}
    if len(given) > 1:
        yield Problem(place="step, fidelity", found="both choose the step", fix="give only one of them")
        return
    for name, value in given.items():
        if encoding not in QUANTIZED[name]:
            fix = f"give it with {' or '.join(QUANTIZED[name])}"
            yield Problem(place=name, found=f"has no effect on {encoding}", fix=fix)
        elif not 0 < value < math.inf:
            yield Problem(place=name, found=f"{value} is not a positive number")
        elif encoding == "int8" and (chosen_step(step, fidelity) or 0) < INT8_STEP:
            most = 12 / INT8_STEP**2
            found = f"{value:g} is too fine: int8 would saturate numbers within {INT8_REACH:g} standard deviations"
            fix = f"give a step of at least {INT8_STEP:.3g}, a fidelity of at most {most:,.0f}; or float16"
            yield Problem(place=name, found=found, fix=fix)
        elif encoding == "pca8" and value > MOST_FIDELITY:
            found = f"{value:g} is more than {MOST_FIDELITY:g}, the most that latents of a byte have"
            yield Problem(place=name, found=found, fix="use int8 or float16")
        elif name == "fidelity" and value < LEAST_FIDELITY:
            yield Problem(place=name, found=f"{value} is less than {LEAST_FIDELITY}: hardly anything would be stored")


def level_problems(compression: str, level: int | None) -> Iterator[Problem]:
    """Yield what is wrong with the choice of a level of compression."""
    if level is None:
        return
    if compression != "zstd":
        yield Problem(place="compression_level", found="has no effect without compression", fix="give zstd too")
    elif level not in LEVELS:
        yield Problem(place="compression_level", found=f"{level} is not from {LEVELS[0]} to {LEVELS[-1]}")


def views_settings(config: ViewsConfig) -> dict[str, Any]:
    """Return the settings as JSON values, for the identity. Those of `UNRECORDED` are left out at their old values."""
    values = asdict(config)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in UNRECORDED or value != UNRECORDED[name]
    }


def _refuse(subject: str, problems: Iterable[Problem]) -> None:
    if found := list(problems):
        raise SettingError(subject, found)


def _too_small(config: object, **least: float) -> Iterator[Problem]:
    for name, smallest in least.items():
        value = getattr(config, name)
        if not value >= smallest:
            yield Problem(place=name, found=f"{value} is less than {smallest}")


def _storage_problems(choice: TeacherChoice) -> Iterator[Problem]:
    yield from step_problems(choice.encoding, choice.step, choice.fidelity)
    yield from level_problems(choice.compression, choice.compression_level)


def _not_shares(config: object, *names: str) -> Iterator[Problem]:
    for name in names:
        if not 0 <= (getattr(config, name) or 0) <= 1:
            yield Problem(place=name, found=f"{getattr(config, name)} is not between 0 and 1")


def _views_problems(config: ViewsConfig) -> Iterator[Problem]:
    for partition in get_args(Partition):
        yield from _partition_problems(partition, getattr(config, partition), config)
    if not config.low and not config.high:
        yield Problem(place="low, high", found="both are empty: name at least one resolution")
    yield from _too_small(
        config, draws=1, patch=1, margin=0, tokens_per_shard=1, canvas_tokens=0, min_side=1, max_pixels=1, max_aspect=1
    )
    yield from _not_shares(config, "high_share", "flip", "heldout")
    if not 0 < config.shift_sd < math.inf:
        yield Problem(place="shift_sd", found=f"{config.shift_sd} is not a positive number of patches")
    for name, limit in (("area", 1.0), ("aspect", 100.0)):
        smallest, largest = getattr(config, name)
        if not 0 < smallest <= largest <= limit:
            yield Problem(place=name, found=f"({smallest}, {largest}) is not a range within (0, {limit:g}]")
    if config.placing != "drawn":
        yield from _evaluation_problems(config)


def _evaluation_problems(config: ViewsConfig) -> Iterator[Problem]:
    """Yield the settings that would change what evaluation views show, or leave images out."""
    wanted: dict[str, Any] = {"margin": 0, "flip": 0, "heldout": 0, "low_proportions": (), "high_proportions": ()}
    for name, value in (wanted | ({"draws": 1} if config.placing == "centre" else {})).items():
        if getattr(config, name) != value:
            found = f"is {getattr(config, name)}, and placing {config.placing!r} needs {value}"
            yield Problem(place=name, found=found, fix="use the recipe `evaluation`, which has the right settings")
    if config.placing == "windows" and config.max_aspect > config.draws:
        found = f"{config.draws} windows do not cover an image whose long side is {config.max_aspect:g} short sides"
        fix = "give --views.draws and --views.max-aspect the same number: wider images are then rejected by name"
        yield Problem(place="draws, max_aspect", found=found, fix=fix)


def _partition_problems(partition: Partition, resolutions: tuple[int, ...], config: ViewsConfig) -> Iterator[Problem]:
    proportions = getattr(config, f"{partition}_proportions")
    if proportions and len(proportions) != len(resolutions):
        found = f"has {len(proportions)} numbers for {len(resolutions)} resolutions"
        yield Problem(place=f"{partition}_proportions", found=found)
    if not all(0 < proportion < math.inf for proportion in proportions):
        yield Problem(place=f"{partition}_proportions", found=f"{proportions} are not all positive and finite")
    if len(set(resolutions)) < len(resolutions):
        yield Problem(place=partition, found=f"{resolutions} contains a resolution twice")
    for resolution in resolutions:
        if resolution < config.patch or resolution % max(config.patch, 1):
            found = f"{resolution} px is not a multiple of the patch, {config.patch} px"
            yield Problem(place=partition, found=found)
