"""SigLIP2 as transformers builds and saves it, read here into timm, says the same."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from storage_schemas.format.errors import ContractError

SHAPE = {"hidden_size": 80, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 320}


def vision_config(side, patch=16):
    return SiglipVisionConfig(**SHAPE, image_size=side, patch_size=patch)


def assert_same(output, expected):
    torch.testing.assert_close(output.summary, expected.pooler_output, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.spatial.flatten(1, 2), expected.last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", ["vit_giantopt_patch16_siglip_384", "vit_base_patch16_siglip_224"])
@pytest.mark.parametrize("side", [64, 96, 192, 384])
def test_a_fixed_model_of_transformers_says_the_same_here(arch, side, entry, loaded, randomised, images, tmp_path):
    published = randomised(SiglipVisionModel(vision_config(side)))
    published.save_pretrained(tmp_path)
    tiny = entry("siglip2-tiny", arch, native=side, img_size=side)
    batch = images(2, side, side)
    with torch.no_grad():
        assert_same(loaded(tiny, tmp_path).encode(batch), published(pixel_values=batch))


def test_a_model_of_patch_14_says_the_same_here(entry, loaded, randomised, images, tmp_path):
    published = randomised(SiglipVisionModel(vision_config(84, patch=14)))
    published.save_pretrained(tmp_path)
    tiny = entry("siglip2-tiny", "vit_so400m_patch14_siglip_378", native=84, patch=14, img_size=84, mlp_ratio=4)
    batch = images(2, 84, 84)
    with torch.no_grad():
        assert_same(loaded(tiny, tmp_path).encode(batch), published(pixel_values=batch))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 96), (192, 128), (48, 64), (256, 256)])
def test_a_naflex_model_of_transformers_says_the_same_here(entry, loaded, randomised, images, tmp_path, height, width):
    published = randomised(Siglip2VisionModel(Siglip2VisionConfig(**SHAPE, patch_size=16, num_patches=16)))
    published.save_pretrained(tmp_path)
    tiny = naflex(entry)
    batch = images(2, height, width)
    rows, cols = height // 16, width // 16
    # batch, colour, rows, y, cols, x -> batch, rows × cols, y × x × colour
    patches = batch.reshape(2, 3, rows, 16, cols, 16).permute(0, 2, 4, 3, 5, 1).reshape(2, rows * cols, 768)
    with torch.no_grad():
        expected = published(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(2, rows * cols),
            spatial_shapes=torch.tensor([[rows, cols]] * 2),
        )
    output = loaded(tiny, tmp_path).encode(batch)
    assert output.spatial.shape == (2, rows, cols, 80)
    assert_same(output, expected)


def naflex(entry):
    tiny = entry("siglip2-tiny", "naflexvit_base_patch16_siglip")
    options = {"embed_dim": 80, "depth": 2, "num_heads": 5, "pos_embed_grid_size": (4, 4)}
    return replace(tiny, options=options, spec=replace(tiny.spec, size_rule="any"))


def test_the_text_tower_of_a_whole_model_is_passed_over(entry, loaded, randomised, images, tmp_path):
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    text |= {"vocab_size": 10, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    published = randomised(SiglipModel(SiglipConfig(vision_config=vision_config(192).to_dict(), text_config=text)))
    published.save_pretrained(tmp_path)
    batch = images(1, 192, 192)
    with torch.no_grad():
        assert_same(loaded(entry("siglip2-tiny"), tmp_path).encode(batch), published.vision_model(pixel_values=batch))


def test_every_tensor_is_needed(entry, loaded, randomised, tmp_path):
    published = randomised(SiglipVisionModel(vision_config(192)))
    whole = {f"vision_model.{name}": tensor for name, tensor in published.state_dict().items()}
    for name in whole:
        torch.save({other: tensor for other, tensor in whole.items() if other != name}, tmp_path / "model.pth")
        with pytest.raises(ContractError) as refusal:
            loaded(entry("siglip2-tiny"), tmp_path / "model.pth")
        assert str(refusal.value).splitlines()[1:] == [f"  {name}: missing"]


def test_a_file_in_timm_s_layout_loads_into_the_same_numbers(entry, loaded, randomised, tmp_path):
    published = randomised(SiglipVisionModel(vision_config(192)))
    published.save_pretrained(tmp_path)
    first = loaded(entry("siglip2-tiny"), tmp_path)
    torch.save(first.network.state_dict(), tmp_path / "timm.pth")
    assert loaded(entry("siglip2-tiny"), tmp_path / "timm.pth").weights_sha256 == first.weights_sha256
