"""Every entry agrees with its own network, and with what the libraries publish."""

import pytest
import timm
import torch
from transformers import DINOv3ViTImageProcessor, Siglip2ImageProcessor, SiglipImageProcessor
from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor
from transformers.models.sam3.modeling_sam3 import Sam3ViTModel

from teachers.build import family_of
from teachers.catalogue import CATALOGUE

TINY = ("dinov3-tiny", "siglip2-tiny", "sam3-tiny")
REAL = [name for name in CATALOGUE if name not in TINY]
ON_TIMM = [name for name in REAL if CATALOGUE[name].family != "sam3"]
PROCESSORS = {
    "dinov3": DINOv3ViTImageProcessor,
    "siglip2": SiglipImageProcessor,
    "naflex": Siglip2ImageProcessor,
    "sam3": Sam3ImageProcessor,
}


def test_the_models_of_the_papers_are_there():
    assert {"dinov3-s", "dinov3-s-plus", "dinov3-b", "dinov3-l", "dinov3-h-plus", "dinov3-7b"} < set(CATALOGUE)
    assert {"siglip2-b-256", "siglip2-so400m-384", "siglip2-so400m-naflex", "siglip2-g-384", "sam3"} < set(CATALOGUE)
    assert {name: entry.spec.name for name, entry in CATALOGUE.items()} == {name: name for name in CATALOGUE}


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_entry_builds_without_numbers_and_has_the_shapes_and_the_size_it_declares(name):
    entry = CATALOGUE[name]
    family = family_of(entry)
    network = family.skeleton(entry)
    teacher = family.teacher(spec=entry.spec, network=network, device="meta", precision="fp32")
    height, width = (64, 96) if entry.spec.size_rule == "any" else (entry.spec.native, entry.spec.native)
    output = teacher.encode(torch.zeros(2, 3, height, width, device="meta"))
    patch = entry.spec.patch
    assert output.spatial.shape == (2, height // patch, width // patch, entry.spec.dim)
    assert (output.summary is None) == (entry.spec.summary_dim is None)
    assert sum(parameter.numel() for parameter in network.parameters()) == entry.parameters
    assert all(parameter.is_meta for parameter in network.parameters())
    assert len(network.layers if entry.family == "sam3" else network.blocks) == entry.blocks
    assert getattr(network, "num_prefix_tokens", 0) == entry.prefix_tokens


@pytest.mark.parametrize("name", ON_TIMM)
def test_timm_publishes_the_same_mean_std_licence_hub_and_filter(name):
    entry = CATALOGUE[name]
    tag = "lvd1689m" if entry.family == "dinov3" else "v2_webli"
    published = timm.get_pretrained_cfg(f"{entry.spec.model}.{tag}")
    assert (entry.spec.mean, entry.spec.std) == (published.mean, published.std)
    assert entry.hub == published.hf_hub_id
    assert entry.spec.licence.lower().replace(" ", "-") == published.license
    assert {resize.by: resize.resample for resize in entry.published}["timm"] == published.interpolation
    if "naflex" not in name:
        assert published.input_size == (3, entry.spec.native, entry.spec.native)


@pytest.mark.parametrize("name", REAL)
def test_transformers_publishes_the_same_mean_std_and_filter(name):
    entry = CATALOGUE[name]
    processor = PROCESSORS["naflex" if "naflex" in name else entry.family]()
    assert entry.spec.mean == tuple(processor.image_mean)
    assert entry.spec.std == tuple(processor.image_std)
    assert {resize.by: resize.resample for resize in entry.published}["transformers"] == processor.resample.name.lower()


def test_sam3_is_the_trunk_that_transformers_builds_by_default():
    entry = CATALOGUE["sam3"]
    config = Sam3ViTModel.config_class()
    assert (config.image_size, config.patch_size, config.hidden_size) == (1008, 14, 1024)
    assert (entry.spec.native, entry.spec.patch, entry.spec.dim) == (1008, 14, 1024)
    assert Sam3ImageProcessor().size == {"height": 1008, "width": 1008}


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_differs_from_a_real_one_only_in_sizes(name):
    tiny = CATALOGUE[name]
    assert any(
        (real.family, real.spec.model, real.spec.size_rule, real.spec.patch)
        == (tiny.family, tiny.spec.model, tiny.spec.size_rule, tiny.spec.patch)
        and (real.spec.mean, real.spec.std) == (tiny.spec.mean, tiny.spec.std)
        for real in map(CATALOGUE.get, REAL)
    )
    assert tiny.hub is None


def test_only_the_7b_is_held_in_bfloat16():
    held = {CATALOGUE[name].precision for name in REAL if name != "dinov3-7b"}
    assert (held, CATALOGUE["dinov3-7b"].precision) == ({"bf16-autocast"}, "bf16")
