"""What the sealed documents of a cache may hold; `docs/format.md` says what each value means."""

from typing import get_args

from storage_schemas.format.encodings import Encoding
from storage_schemas.format.schema import (
    ANY_OBJECT,
    Choice,
    Flag,
    ListOf,
    Number,
    ObjectOf,
    OrNull,
    Text,
    Whole,
    fields,
    open_fields,
)
from storage_schemas.format.shard_format import LEVELS, Compression
from storage_schemas.format.teacher import Precision, Resample, SizeRule

MOST_SIDE = 2**14
"""Side of a canvas, a window or a teacher's input (pixels), and tokens along a side."""
MOST_CHANNELS = 2**16
"""Channels of a token or a summary."""
MOST_SHARDS = 2**22
"""Shards of a view set: at 64 MB each they are 281 TB."""
MOST_ROWS_PER_SHARD = 2**20
"""Row slots of a shard."""
MOST_VIEWS = 2**42
"""Views of a generation, and images."""
SET_NAMES = "(low|high)-[1-9][0-9]{0,5}"
"""Form of the name of a view set."""
DIGEST = Text(most=64, pattern="[0-9a-f]{64}")
_SIDE = Whole(least=1, most=MOST_SIDE)
_IMAGES = fields({"count": Whole(least=0, most=MOST_VIEWS), "keys_sha256": DIGEST})

ROOT = open_fields({"format": Whole(least=0, most=10**6), "recipe": Text(most=200)})
VIEW_SET = fields(
    {
        "views": ListOf(kind=Whole(least=0, most=MOST_VIEWS), fewest=1, most=10_000),
        "rows_per_shard": Whole(least=1, most=MOST_ROWS_PER_SHARD),
        "resolution": _SIDE,
        "patch": _SIDE,
        "margin": Whole(least=0, most=MOST_SIDE),
    }
)
GENERATION = fields({"views": ANY_OBJECT, "images": _IMAGES})
VIEWS = fields(
    {
        "identity": open_fields(
            {"recipe": Text(most=200), "views": ANY_OBJECT, "images": _IMAGES},
            export=fields(
                {
                    "source": DIGEST,
                    "sets": ObjectOf(kind=Whole(least=1, most=MOST_ROWS_PER_SHARD), names=SET_NAMES),
                }
            ),
        ),
        "sets": ObjectOf(kind=VIEW_SET, names=SET_NAMES, fewest=1, most=1000),
        "extensions": ListOf(kind=GENERATION, most=10_000),
    },
    passed_over=ObjectOf(kind=Whole(least=1, most=MOST_VIEWS), names="[ -~]{1,200}", most=100),
)
SPEC = fields(
    {
        "name": Text(most=200, pattern="[A-Za-z0-9_-]+"),
        "model": Text(),
        "dim": Whole(least=1, most=MOST_CHANNELS),
        "summary_dim": OrNull(kind=Whole(least=1, most=MOST_CHANNELS)),
        "patch": _SIDE,
        "size_rule": Choice(names=get_args(SizeRule)),
        "native": _SIDE,
        "mean": ListOf(kind=Number(), fewest=3, most=3),
        "std": ListOf(kind=Number(), fewest=3, most=3),
        "resample": Choice(names=get_args(Resample)),
        "licence": Text(),
        "layer": OrNull(kind=Whole(least=0, most=10_000)),
        "tiles": Whole(least=1, most=64),
        "upsampler": OrNull(kind=Text()),
        "random_weights": Flag(),
    }
)
_FIDELITY = Number(least=1.0, most=1e9)
LATENTS = fields({"sha256": DIGEST, "fidelity": _FIDELITY})
FEATURES_IDENTITY = open_fields(
    {
        "views": DIGEST,
        "teacher": SPEC,
        "weights_sha256": Text(),
        "precision": Choice(names=get_args(Precision)),
        "batch": Whole(least=1, most=2**20),
        "encoding": Choice(names=get_args(Encoding)),
        "compression": Choice(names=get_args(Compression)),
        "phi_s_sha256": DIGEST,
    },
    step=Number(least=1e-6, most=1e6),
    latents=fields({"sha256": DIGEST, "kept": Whole(least=1, most=MOST_CHANNELS), "fidelity": _FIDELITY}),
    compression_level=Whole(least=LEVELS[0], most=LEVELS[-1]),
    source=ANY_OBJECT,
)
TEACHER = open_fields(
    {"spec": SPEC, "identity": FEATURES_IDENTITY, "tokens": ObjectOf(kind=_SIDE, names=SET_NAMES, most=1000)}
)
PHI_S = open_fields({"sha256": DIGEST}, identity=ANY_OBJECT, tokens=Whole(least=1, most=2**60))
_COUNT = Whole(least=0, most=2**60)
_RUN = ListOf(kind=Whole(least=0, most=MOST_SHARDS), fewest=2, most=2)
STATS = open_fields(
    {
        "identity": Text(most=200),
        "views": _COUNT,
        "tokens": _COUNT,
        "sets": ObjectOf(kind=_COUNT, names=SET_NAMES, most=1000),
        "shards": ObjectOf(kind=ListOf(kind=_RUN), names=SET_NAMES, most=1000),
        "summarised": Flag(),
        "arrays": ObjectOf(kind=DIGEST, names=f"({SET_NAMES}/)?[a-z_]+"),
    },
    training_views=_COUNT,
)
