"""The models that come with Stillhouse: what each is, what it accepts, its licence, and where its weights are had.

Nothing here imports torch: the table is read by `--help` and by planning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

from storage_schemas.teacher import Precision, TeacherSpec

Family = Literal["dinov3", "siglip2", "sam3"]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_DINOV3_LICENCE = "DINOv3 License"
_SIGLIP2_LICENCE = "Apache-2.0"
_SAM3_LICENCE = "SAM License"
_NO_LICENCE = "none: seeded noise, no weights exist"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One model: its spec, and what is needed to build it and to say where it comes from."""

    spec: TeacherSpec
    """The teacher under its catalogue name; a recipe may rename it."""
    family: Family
    """The module of this package that builds it: `teachers/<family>.py`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the library is told beside the model's name. Tiny models differ from real ones here alone."""
    blocks: int
    """Transformer blocks: `layers` may name 0 to blocks − 1."""
    prefix_tokens: int
    """Tokens before the map's (class token and registers)."""
    parameters: int
    """Parameters of the network as it is built here."""
    precision: Precision = "bf16-autocast"
    """Precision unless a recipe says otherwise."""
    hub: str | None = None
    """Repository on the Hugging Face hub that `weights=hub` reads, or None for a model without weights."""
    gated: bool = False
    """Whether that repository asks for the licence to be accepted before it can be read."""
    also: str = ""
    """Where else the weights are had, in layouts that `WEIGHTS=` accepts."""
    published: str = ""
    """How its authors' and libraries' own preprocessing resizes an image to `native`; for information."""


def _dinov3(
    name: str, arch: str, dim: int, blocks: int, parameters: int, meta_name: str, **changes: Any
) -> CatalogueEntry:
    options = changes.pop("options", {})
    hub = f"timm/{arch.removesuffix('_qkvb')}.lvd1689m" if not options else None
    spec = TeacherSpec(
        name=name,
        model=arch,
        dim=dim,
        summary_dim=dim,
        patch=16,
        size_rule="any",
        native=256,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        licence=_DINOV3_LICENCE if hub else _NO_LICENCE,
    )
    entry: dict[str, Any] = {"spec": spec, "family": "dinov3", "options": options, "blocks": blocks, "hub": hub}
    entry |= {"prefix_tokens": 5, "parameters": parameters, "published": "256 × 256, bilinear with antialias, squashed"}
    if hub:
        entry["also"] = f"facebook/dinov3-{meta_name}-pretrain-lvd1689m (gated), or the .pth from Meta's download page"
    return CatalogueEntry(**entry | changes)


def _siglip2(
    name: str, arch: str, dim: int, blocks: int, parameters: int, google_name: str, **changes: Any
) -> CatalogueEntry:
    naflex = arch.startswith("naflexvit")
    options = changes.pop("options", {})
    hub = f"timm/{arch}.v2_webli" if not options else None
    native = options.get("img_size", 256 if naflex else int(arch.rsplit("_", 1)[1]))
    spec = TeacherSpec(
        name=name,
        model=arch,
        dim=dim,
        summary_dim=dim,
        patch=14 if "patch14" in arch else 16,
        size_rule="any" if naflex else "fixed",
        native=native,
        mean=_HALF,
        std=_HALF,
        licence=_SIGLIP2_LICENCE if hub else _NO_LICENCE,
    )
    published = "aspect kept, at most 256 patches, bilinear" if naflex else f"{native} × {native}, squashed"
    entry: dict[str, Any] = {"spec": spec, "family": "siglip2", "options": options, "blocks": blocks, "hub": hub}
    entry |= {"prefix_tokens": 0, "parameters": parameters, "published": published}
    if hub:
        entry["also"] = f"google/siglip2-{google_name}"
    return CatalogueEntry(**entry | changes)


def _sam3(name: str, dim: int, native: int, blocks: int, parameters: int, **changes: Any) -> CatalogueEntry:
    hub = changes.get("hub")
    spec = TeacherSpec(
        name=name,
        model="Sam3ViTModel",
        dim=dim,
        summary_dim=None,
        patch=14,
        size_rule="canvas",
        native=native,
        mean=_HALF,
        std=_HALF,
        licence=_SAM3_LICENCE if hub else _NO_LICENCE,
    )
    entry: dict[str, Any] = {"spec": spec, "family": "sam3", "blocks": blocks, "prefix_tokens": 0}
    entry |= {"parameters": parameters, "published": f"{native} × {native}, bilinear with antialias, squashed"}
    return CatalogueEntry(**entry | changes)


_ENTRIES = (
    _dinov3("dinov3-s", "vit_small_patch16_dinov3_qkvb", 384, 12, 21_596_160, "vits16"),
    _dinov3("dinov3-s-plus", "vit_small_plus_patch16_dinov3_qkvb", 384, 12, 28_692_480, "vits16plus"),
    _dinov3("dinov3-b", "vit_base_patch16_dinov3_qkvb", 768, 12, 85_659_648, "vitb16"),
    _dinov3("dinov3-l", "vit_large_patch16_dinov3_qkvb", 1024, 24, 303_128_576, "vitl16"),
    _dinov3("dinov3-h-plus", "vit_huge_plus_patch16_dinov3_qkvb", 1280, 32, 840_591_360, "vith16plus"),
    _dinov3("dinov3-7b", "vit_7b_patch16_dinov3", 4096, 40, 6_716_030_976, "vit7b16", precision="bf16"),
    _siglip2("siglip2-b-224", "vit_base_patch16_siglip_224", 768, 12, 92_884_224, "base-patch16-224"),
    _siglip2("siglip2-b-256", "vit_base_patch16_siglip_256", 768, 12, 92_930_304, "base-patch16-256"),
    _siglip2("siglip2-b-384", "vit_base_patch16_siglip_384", 768, 12, 93_176_064, "base-patch16-384"),
    _siglip2("siglip2-b-512", "vit_base_patch16_siglip_512", 768, 12, 93_520_128, "base-patch16-512"),
    _siglip2("siglip2-b-naflex", "naflexvit_base_patch16_siglip", 768, 12, 92_930_304, "base-patch16-naflex"),
    _siglip2("siglip2-so400m-p14-224", "vit_so400m_patch14_siglip_224", 1152, 27, 427_680_704, "so400m-patch14-224"),
    _siglip2("siglip2-so400m-p14-378", "vit_so400m_patch14_siglip_378", 1152, 27, 428_225_600, "so400m-patch14-384"),
    _siglip2("siglip2-so400m-256", "vit_so400m_patch16_siglip_256", 1152, 27, 427_888_064, "so400m-patch16-256"),
    _siglip2("siglip2-so400m-384", "vit_so400m_patch16_siglip_384", 1152, 27, 428_256_704, "so400m-patch16-384"),
    _siglip2("siglip2-so400m-512", "vit_so400m_patch16_siglip_512", 1152, 27, 428_772_800, "so400m-patch16-512"),
    _siglip2(
        "siglip2-so400m-naflex", "naflexvit_so400m_patch16_siglip", 1152, 27, 427_888_064, "so400m-patch16-naflex"
    ),
    _siglip2("siglip2-g-384", "vit_giantopt_patch16_siglip_384", 1536, 40, 1_163_659_776, "giant-opt-patch16-384"),
    _sam3(
        "sam3",
        1024,
        1008,
        32,
        446_236_672,
        hub="facebook/sam3",
        gated=True,
        also="Meta's sam3.pt, from the same repository",
    ),
    _dinov3(
        "dinov3-tiny",
        "vit_small_patch16_dinov3_qkvb",
        96,
        2,
        298_368,
        "",
        options={"embed_dim": 96, "depth": 2, "num_heads": 3},
        precision="fp32",
    ),
    _siglip2(
        "siglip2-tiny",
        "vit_giantopt_patch16_siglip_384",
        80,
        2,
        306_640,
        "",
        options={"embed_dim": 80, "depth": 2, "num_heads": 5, "img_size": 192},
        precision="fp32",
    ),
    _sam3(
        "sam3-tiny",
        64,
        336,
        2,
        107_008,
        options={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "window_size": 6,
            "global_attn_indexes": [1],
            "pretrain_image_size": 84,
        },
        precision="fp32",
    ),
)

CATALOGUE: Mapping[str, CatalogueEntry] = {entry.spec.name: entry for entry in _ENTRIES}
"""Catalogue name → entry, in the order of the table."""
