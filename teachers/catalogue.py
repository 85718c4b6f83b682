"""The models that come with Stillhouse: the spec of each, its licence, and where to get its weights.

Nothing here imports torch, because commands that only read use this table too.
"""

from collections.abc import Mapping
from typing import Any

from storage_schemas.format.teacher import TeacherSpec
from teachers.entry import BlockShape, CatalogueEntry, PublishedResize

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_NO_LICENCE = "none: seeded noise"

_DINOV3_RESIZES = (
    PublishedResize(by="timm", resize="short side to 256, centre crop", resample="bicubic"),
    PublishedResize(by="transformers", resize="squashed to 224 × 224, in float", resample="bilinear"),
    PublishedResize(by="authors", resize="squashed to 256 × 256", resample="bilinear"),
)
_SIGLIP2_RESIZES = (
    PublishedResize(by="timm", resize="short side to native / 0.9, centre crop", resample="bicubic"),
    PublishedResize(by="transformers", resize="squashed to native", resample="bicubic"),
    PublishedResize(by="authors", resize="squashed to native", resample="bilinear"),
)
_NAFLEX_RESIZES = (
    PublishedResize(by="timm", resize="short side to 384, centre crop", resample="bicubic"),
    PublishedResize(by="transformers", resize="aspect kept, at most 256 patches", resample="bilinear"),
)
_SAM3_RESIZES = (
    PublishedResize(by="transformers", resize="squashed to 1008 × 1008", resample="bilinear"),
    PublishedResize(by="authors", resize="squashed to 1008 × 1008", resample="bilinear"),
)


def _dinov3(
    name: str, arch: str, dim: int, blocks: int, hidden: int, parameters: int, published: str, **more: Any
) -> CatalogueEntry:
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
        licence="DINOv3 License" if published else _NO_LICENCE,
    )
    also = f"facebook/dinov3-{published}-pretrain-lvd1689m (gated), or Meta's own .pth"
    return CatalogueEntry(
        spec=spec,
        family="dinov3",
        blocks=blocks,
        block=BlockShape(hidden=hidden, gated="_plus_" in arch or "_7b_" in arch),
        prefix_tokens=5,
        parameters=parameters,
        hub=f"timm/{arch}.lvd1689m" if published else None,
        also=also if published else "",
        published=_DINOV3_RESIZES,
        **more,
    )


def _siglip2(
    name: str, arch: str, dim: int, native: int, blocks: int, hidden: int, parameters: int, published: str, **more: Any
) -> CatalogueEntry:
    naflex = arch.startswith("naflexvit")
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
        licence="Apache-2.0" if published else _NO_LICENCE,
    )
    return CatalogueEntry(
        spec=spec,
        family="siglip2",
        blocks=blocks,
        block=BlockShape(hidden=hidden),
        parameters=parameters,
        hub=f"timm/{arch}.v2_webli" if published else None,
        also=f"google/siglip2-{published}" if published else "",
        published=_NAFLEX_RESIZES if naflex else _SIGLIP2_RESIZES,
        **more,
    )


def _sam3(
    name: str,
    dim: int,
    native: int,
    blocks: int,
    block: BlockShape,
    parameters: int,
    hub: str | None,
    *,
    model: str = "Sam3ViTModel",
    also: str = "Meta's own sam3.pt, in the same repository",
    **more: Any,
) -> CatalogueEntry:
    spec = TeacherSpec(
        name=name,
        model=model,
        dim=dim,
        summary_dim=None,
        patch=14,
        size_rule="canvas",
        native=native,
        mean=_HALF,
        std=_HALF,
        licence="SAM License" if hub else _NO_LICENCE,
    )
    return CatalogueEntry(
        spec=spec,
        family="sam3",
        blocks=blocks,
        block=block,
        parameters=parameters,
        hub=hub,
        gated=hub is not None,
        also=also if hub else "",
        published=_SAM3_RESIZES,
        **more,
    )


# a tiny model runs the code of a real model; only sizes differ
_TINY_DINOV3 = {"embed_dim": 96, "depth": 2, "num_heads": 3}
_TINY_SIGLIP2 = {"embed_dim": 80, "depth": 2, "num_heads": 5, "img_size": 192}
_SAM3_BLOCK = BlockShape(hidden=4736, window=24, global_blocks=4)
_TINY_SAM3 = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "window_size": 6,
    "global_attn_indexes": [1],
    "pretrain_image_size": 84,
}

_ENTRIES = (
    _dinov3("dinov3-s", "vit_small_patch16_dinov3_qkvb", 384, 12, 1536, 21_596_160, "vits16"),
    _dinov3("dinov3-s-plus", "vit_small_plus_patch16_dinov3_qkvb", 384, 12, 1536, 28_692_480, "vits16plus"),
    _dinov3("dinov3-b", "vit_base_patch16_dinov3_qkvb", 768, 12, 3072, 85_659_648, "vitb16"),
    _dinov3("dinov3-l", "vit_large_patch16_dinov3_qkvb", 1024, 24, 4096, 303_128_576, "vitl16"),
    _dinov3("dinov3-h-plus", "vit_huge_plus_patch16_dinov3_qkvb", 1280, 32, 5120, 840_591_360, "vith16plus"),
    _dinov3("dinov3-7b", "vit_7b_patch16_dinov3", 4096, 40, 8192, 6_716_030_976, "vit7b16", precision="bf16"),
    _siglip2("siglip2-b-224", "vit_base_patch16_siglip_224", 768, 224, 12, 3072, 92_884_224, "base-patch16-224"),
    _siglip2("siglip2-b-256", "vit_base_patch16_siglip_256", 768, 256, 12, 3072, 92_930_304, "base-patch16-256"),
    _siglip2("siglip2-b-384", "vit_base_patch16_siglip_384", 768, 384, 12, 3072, 93_176_064, "base-patch16-384"),
    _siglip2("siglip2-b-512", "vit_base_patch16_siglip_512", 768, 512, 12, 3072, 93_520_128, "base-patch16-512"),
    _siglip2(
        "siglip2-b-naflex", "naflexvit_base_patch16_siglip", 768, 256, 12, 3072, 92_930_304, "base-patch16-naflex"
    ),
    _siglip2(
        "siglip2-so400m-p14-224",
        "vit_so400m_patch14_siglip_224",
        1152,
        224,
        27,
        4304,
        427_680_704,
        "so400m-patch14-224",
    ),
    _siglip2(
        "siglip2-so400m-p14-378",
        "vit_so400m_patch14_siglip_378",
        1152,
        378,
        27,
        4304,
        428_225_600,
        "so400m-patch14-384",
    ),
    _siglip2(
        "siglip2-so400m-256", "vit_so400m_patch16_siglip_256", 1152, 256, 27, 4304, 427_888_064, "so400m-patch16-256"
    ),
    _siglip2(
        "siglip2-so400m-384", "vit_so400m_patch16_siglip_384", 1152, 384, 27, 4304, 428_256_704, "so400m-patch16-384"
    ),
    _siglip2(
        "siglip2-so400m-512", "vit_so400m_patch16_siglip_512", 1152, 512, 27, 4304, 428_772_800, "so400m-patch16-512"
    ),
    _siglip2(
        "siglip2-so400m-naflex",
        "naflexvit_so400m_patch16_siglip",
        1152,
        256,
        27,
        4304,
        427_888_064,
        "so400m-patch16-naflex",
    ),
    _siglip2(
        "siglip2-g-384", "vit_giantopt_patch16_siglip_384", 1536, 384, 40, 6144, 1_163_659_776, "giant-opt-patch16-384"
    ),
    _sam3("sam3", 1024, 1008, 32, _SAM3_BLOCK, 446_236_672, "facebook/sam3"),
    # the trunk has the names and shapes of SAM 3's, and weights of its own
    _sam3(
        "sam3-1",
        1024,
        1008,
        32,
        _SAM3_BLOCK,
        446_236_672,
        "facebook/sam3.1",
        model="Sam3ViTModel of SAM 3.1",
        also="",
        files=("sam3.1_multiplex.pt",),
    ),
    _dinov3(
        "dinov3-tiny", "vit_small_patch16_dinov3_qkvb", 96, 2, 384, 298_368, "", options=_TINY_DINOV3, precision="fp32"
    ),
    _siglip2(
        "siglip2-tiny",
        "vit_giantopt_patch16_siglip_384",
        80,
        192,
        2,
        320,
        306_640,
        "",
        options=_TINY_SIGLIP2,
        precision="fp32",
    ),
    _sam3(
        "sam3-tiny",
        64,
        336,
        2,
        BlockShape(hidden=128, window=6, global_blocks=1),
        107_008,
        None,
        options=_TINY_SAM3,
        precision="fp32",
    ),
)

CATALOGUE: Mapping[str, CatalogueEntry] = {entry.spec.name: entry for entry in _ENTRIES}
"""Catalogue name → entry, in the order of the table."""
