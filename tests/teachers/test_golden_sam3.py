"""SAM3's trunk as transformers builds it and as each publisher saves it: one set of numbers, one digest."""

import pytest
import torch
from torch import nn
from transformers import Sam3Config, Sam3Model
from transformers.models.sam3_video.configuration_sam3_video import Sam3VideoConfig
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

from storage_schemas.format.errors import ContractError
from teachers.catalogue import CATALOGUE

PREFIX = "detector.backbone.vision_backbone.trunk."
SMALL = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
TRUNK = {
    "model_type": "sam3_vit_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "window_size": 6,
    "global_attn_indexes": [1],
    "pretrain_image_size": 84,
    "image_size": 336,
    "layer_norm_eps": 1e-5,
}
DETECTOR = {
    "vision_config": {"backbone_config": TRUNK, "fpn_hidden_size": 32},
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 10,
        "projection_dim": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    },
    "geometry_encoder_config": SMALL,
    "detr_encoder_config": SMALL,
    "detr_decoder_config": SMALL | {"num_queries": 4},
    "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 1},
}


@pytest.fixture
def published(randomised):
    model = Sam3Model(Sam3Config(**DETECTOR))
    randomised(model.vision_encoder.backbone)
    return model.eval()


def meta_layout(trunk):
    """A transformers trunk under the names of Meta's code, with what sam3.pt holds beside it, written out by hand."""
    class_position = torch.full((1, 1, 64), 9.0)
    saved = {
        "pos_embed": torch.cat([class_position, trunk.embeddings.position_embeddings], dim=1),
        "patch_embed.proj.weight": trunk.embeddings.patch_embeddings.projection.weight,
        "ln_pre.weight": trunk.layer_norm.weight,
        "ln_pre.bias": trunk.layer_norm.bias,
    }
    for n, layer in enumerate(trunk.layers):
        attention = layer.attention
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        saved[f"blocks.{n}.attn.qkv.weight"] = torch.cat([part.weight for part in parts])
        saved[f"blocks.{n}.attn.qkv.bias"] = torch.cat([part.bias for part in parts])
        saved[f"blocks.{n}.attn.freqs_cis"] = rotations(side=6 if n == 0 else 24)
        names = {"attn.proj": attention.o_proj, "norm1": layer.layer_norm1, "norm2": layer.layer_norm2}
        names |= {"mlp.fc1": layer.mlp.fc1, "mlp.fc2": layer.mlp.fc2}
        for name, module in names.items():
            saved[f"blocks.{n}.{name}.weight"], saved[f"blocks.{n}.{name}.bias"] = module.weight, module.bias
    beside = {
        "detector.backbone.vision_backbone.convs.0.conv_1x1.weight": torch.zeros(2, 2),
        "detector.transformer.decoder.query_embed.weight": torch.zeros(3),
        "tracker.maskmem_tpos_enc": torch.zeros(1, dtype=torch.int64),
    }
    return {PREFIX + name: tensor.detach().clone() for name, tensor in saved.items()} | beside


def rotations(side):
    """Sixteen frequencies for x, sixteen for y, in units of a window of six tokens."""
    table = torch.zeros(side * side, 32, dtype=torch.complex64)
    for token in range(side * side):
        for n in range(16):
            frequency = 10000 ** (-n / 16) * 6 / side
            table[token, n] = torch.polar(torch.tensor(1.0), torch.tensor(token % side * frequency))
            table[token, 16 + n] = torch.polar(torch.tensor(1.0), torch.tensor(token // side * frequency))
    return table


def test_a_saved_model_says_here_what_it_says_in_transformers(published, entry, loaded, images, tmp_path):
    published.save_pretrained(tmp_path)
    batch = images(2, 336, 336)
    output = loaded(entry("sam3-tiny"), tmp_path).encode(batch)
    with torch.no_grad():
        expected = published.vision_encoder.backbone(pixel_values=batch).last_hidden_state
    assert output.summary is None
    assert torch.equal(output.spatial.flatten(1, 2), expected)


def test_every_layout_loads_into_the_same_numbers(published, entry, loaded, tmp_path):
    trunk = published.vision_encoder.backbone
    published.save_pretrained(tmp_path / "image")
    video = Sam3VideoModel(Sam3VideoConfig(detector_config=DETECTOR))
    video.detector_model.vision_encoder.backbone.load_state_dict(trunk.state_dict())
    video.save_pretrained(tmp_path / "video")
    trunk.save_pretrained(tmp_path / "trunk")
    torch.save({"model": meta_layout(trunk)}, tmp_path / "sam3.pt")
    torch.save(meta_layout(trunk), tmp_path / "flat.pt")
    names = ("image", "video", "trunk", "sam3.pt", "flat.pt")
    assert len({loaded(entry("sam3-tiny"), tmp_path / name).weights_sha256 for name in names}) == 1


def fine_tuned(trunk, wrapper=""):
    """What Meta's training code saves: the image model is the root, and a wrapper may stand before all names."""
    names = {PREFIX: "backbone.vision_backbone.trunk.", "detector.": "", "tracker.": "geometry_encoder."}
    saved = {}
    for name, tensor in meta_layout(trunk).items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        saved[wrapper + names[prefix] + name.removeprefix(prefix)] = tensor
    return saved | {f"{wrapper}backbone.language_backbone.encoder.positional_embedding": torch.zeros(3)}


def as_sam31(trunk):
    """SAM 3.1 keeps the two parts of its rotary tables apart, where it keeps them at all."""
    saved = meta_layout(trunk)
    for name in [name for name in saved if name.endswith("freqs_cis")]:
        rotation = saved.pop(name)
        saved |= {f"{name}_real": rotation.real.clone(), f"{name}_imag": rotation.imag.clone()}
    return saved


def test_fine_tuned_checkpoints_and_sam31_load_into_the_same_numbers(published, entry, loaded, tmp_path):
    trunk = published.vision_encoder.backbone
    whole = meta_layout(trunk)
    without_tables = {name: tensor for name, tensor in whole.items() if "freqs_cis" not in name}
    wrapped = {f"module.{name}": tensor for name, tensor in whole.items()}
    ways = (whole, wrapped, fine_tuned(trunk), fine_tuned(trunk, "module."), as_sam31(trunk), without_tables)
    digests = set()
    for number, tensors in enumerate(ways):
        torch.save({"model": tensors}, tmp_path / f"{number}.pt")
        digests.add(loaded(entry("sam3-tiny"), tmp_path / f"{number}.pt").weights_sha256)
    assert len(digests) == 1


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_fine_tuned_checkpoint_is_refused_by_the_name_of_one_wrong_tensor(
    published, entry, loaded, tmp_path, wrapper
):
    whole = fine_tuned(published.vision_encoder.backbone, wrapper)
    name = f"{wrapper}backbone.vision_backbone.trunk.blocks.0.attn.proj.weight"
    lost = {other: tensor for other, tensor in whole.items() if other != name}
    changes = {"missing": {}, "shape (3,), expected (64, 64)": {name: torch.zeros(3)}}
    for said, change in changes.items():
        torch.save(lost | change, tmp_path / "tuned.pt")
        with pytest.raises(ContractError) as refusal:
            loaded(entry("sam3-tiny"), tmp_path / "tuned.pt")
        assert f"{name}: {said}" in str(refusal.value)
    for stray in (f"{wrapper}unknown_part.weight", f"{wrapper}backbone.vision_backbone.trunk.ln_post.weight"):
        torch.save(whole | {stray: torch.zeros(3)}, tmp_path / "tuned.pt")
        with pytest.raises(ContractError, match="unexpected") as refusal:
            loaded(entry("sam3-tiny"), tmp_path / "tuned.pt")
        assert f"{stray}: unexpected" in str(refusal.value)


def test_every_tensor_of_the_trunk_is_needed_in_every_layout(published, entry, loaded, tmp_path):
    trunk = published.vision_encoder.backbone
    video = {f"detector_model.vision_encoder.backbone.{name}": tensor for name, tensor in trunk.state_dict().items()}
    file = tmp_path / "weights.pt"
    for whole in (meta_layout(trunk), video, trunk.state_dict()):
        for name in whole:
            other_part = name.startswith(("tracker.", "detector.")) and not name.startswith(PREFIX)
            if other_part or "freqs_cis" in name or ".1." in name:
                continue
            torch.save({other: tensor for other, tensor in whole.items() if other != name}, file)
            with pytest.raises(ContractError) as refusal:
                loaded(entry("sam3-tiny"), file)
            assert str(refusal.value).splitlines()[1:] == [f"  {name}: missing"]


def test_an_unknown_tensor_in_the_trunk_is_refused_and_beside_it_is_not(published, entry, loaded, tmp_path):
    whole = meta_layout(published.vision_encoder.backbone)
    torch.save(whole | {"detector.new_part.weight": torch.zeros(1)}, tmp_path / "beside.pt")
    loaded(entry("sam3-tiny"), tmp_path / "beside.pt")
    torch.save(whole | {f"{PREFIX}ln_post.weight": torch.zeros(64)}, tmp_path / "inside.pt")
    with pytest.raises(ContractError) as refusal:
        loaded(entry("sam3-tiny"), tmp_path / "inside.pt")
    assert str(refusal.value) == (
        f"{tmp_path}/inside.pt, as weights of sam3-tiny, in the layout of Meta's sam3.pt, "
        f"breaks the storage contract:\n  {PREFIX}ln_post.weight: unexpected"
    )


def test_a_rotary_table_of_another_size_or_number_of_heads_is_refused(published, entry, loaded, tmp_path):
    whole = meta_layout(published.vision_encoder.backbone)
    name = f"{PREFIX}blocks.1.attn.freqs_cis"
    for wrong in (rotations(24).conj().resolve_conj(), rotations(12), rotations(24)[:, :16].clone()):
        torch.save(whole | {name: wrong}, tmp_path / "sam3.pt")
        with pytest.raises(ContractError) as refusal:
            loaded(entry("sam3-tiny"), tmp_path / "sam3.pt")
        assert str(refusal.value).splitlines()[1] == (
            f"  {name}: the rotary table is that of another head size, input size or base"
        )


def test_every_norm_has_the_authors_epsilon(published, entry, loaded, tmp_path):
    published.save_pretrained(tmp_path)
    network = loaded(entry("sam3-tiny"), tmp_path).network
    assert {module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)} == {1e-5}
    assert CATALOGUE["sam3"].options == {}
