"""DINOv3 as transformers builds and saves it, read here into timm, computes the same."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from storage_schemas.format.errors import ContractError

STYLES = {
    "S": ("vit_small_patch16_dinov3_qkvb", {"intermediate_size": 384}),
    "H+": (
        "vit_huge_plus_patch16_dinov3_qkvb",
        {"intermediate_size": 384, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
    "7B": (
        "vit_7b_patch16_dinov3",
        {
            "intermediate_size": 192,
            "use_gated_mlp": True,
            "hidden_act": "silu",
            "query_bias": False,
            "value_bias": False,
        },
    ),
}
SIZES = ((64, 64), (96, 160), (224, 224), (256, 256))


@pytest.fixture(params=STYLES)
def style(request, entry):
    arch, config = STYLES[request.param]
    return entry("dinov3-tiny", arch), config


@pytest.fixture
def published(style, randomised):
    shape = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "num_register_tokens": 4}
    return randomised(DINOv3ViTModel(DINOv3ViTConfig(**shape, **style[1])))


def meta_layout(published, gated):
    """The tensors of a transformers model under the names of Meta's code, written out by hand."""
    has_bias = published.config.query_bias
    saved = {
        "cls_token": published.embeddings.cls_token,
        "storage_tokens": published.embeddings.register_tokens,
        "mask_token": published.embeddings.mask_token[0],
        "patch_embed.proj.weight": published.embeddings.patch_embeddings.weight,
        "patch_embed.proj.bias": published.embeddings.patch_embeddings.bias,
        "rope_embed.periods": torch.tensor([100 ** (n / 8) for n in range(8)]).bfloat16(),
        "norm.weight": published.norm.weight,
        "norm.bias": published.norm.bias,
    }
    for n, layer in enumerate(published.model.layer):
        attention, mlp = layer.attention, layer.mlp
        saved[f"blocks.{n}.attn.qkv.weight"] = torch.cat(
            [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        )
        if has_bias:
            idle = torch.full((96,), 9.0)  # the masked bias of k holds whatever training left there
            saved[f"blocks.{n}.attn.qkv.bias"] = torch.cat([attention.q_proj.bias, idle, attention.v_proj.bias])
            saved[f"blocks.{n}.attn.qkv.bias_mask"] = torch.cat([torch.ones(96), torch.zeros(96), torch.ones(96)])
        linears = {"attn.proj": attention.o_proj, "norm1": layer.norm1, "norm2": layer.norm2}
        linears |= (
            {"mlp.w1": mlp.gate_proj, "mlp.w2": mlp.up_proj, "mlp.w3": mlp.down_proj}
            if gated
            else {"mlp.fc1": mlp.up_proj, "mlp.fc2": mlp.down_proj}
        )
        for name, linear in linears.items():
            saved[f"blocks.{n}.{name}.weight"], saved[f"blocks.{n}.{name}.bias"] = linear.weight, linear.bias
        saved[f"blocks.{n}.ls1.gamma"] = layer.layer_scale1.lambda1
        saved[f"blocks.{n}.ls2.gamma"] = layer.layer_scale2.lambda1
    if not has_bias:
        saved["local_cls_norm.weight"] = saved["local_cls_norm.bias"] = torch.ones(96)
    return {name: tensor.detach().clone() for name, tensor in saved.items()}


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_transformers_saves_computes_the_same_here(published, style, loaded, images, tmp_path, height, width):
    published.save_pretrained(tmp_path)
    batch = images(2, height, width)
    output = loaded(style[0], tmp_path).encode(batch)
    with torch.no_grad():
        expected = published(pixel_values=batch).last_hidden_state
    torch.testing.assert_close(output.summary, expected[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(output.spatial.flatten(1, 2), expected[:, 5:], rtol=0, atol=1e-5)
    assert output.spatial.shape == (2, height // 16, width // 16, 96)


def test_meta_and_hugging_face_and_timm_files_of_one_model_have_one_digest(published, style, loaded, tmp_path):
    published.save_pretrained(tmp_path / "hugging_face")
    torch.save(meta_layout(published, style[1].get("use_gated_mlp", False)), tmp_path / "meta.pth")
    from_hugging_face = loaded(style[0], tmp_path / "hugging_face")
    save_file(dict(from_hugging_face.network.state_dict()), tmp_path / "timm.safetensors")
    digests = {
        loaded(style[0], tmp_path / name).weights_sha256 for name in ("hugging_face", "meta.pth", "timm.safetensors")
    }
    assert len(digests) == 1


def test_a_timm_file_without_biases_is_one_with_biases_of_zero(entry, loaded, randomised, images, tmp_path):
    shape = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "num_register_tokens": 4}
    published = randomised(DINOv3ViTModel(DINOv3ViTConfig(**shape, intermediate_size=384)))
    for layer in published.model.layer:
        layer.attention.q_proj.bias.data.zero_()
        layer.attention.v_proj.bias.data.zero_()
    published.save_pretrained(tmp_path / "hugging_face")
    tiny = entry("dinov3-tiny")
    whole = loaded(tiny, tmp_path / "hugging_face")
    kept = {name: tensor for name, tensor in whole.network.state_dict().items() if "_bias" not in name}
    save_file(kept, tmp_path / "timm.safetensors")
    without = loaded(tiny, tmp_path / "timm.safetensors")
    assert len(kept) == len(whole.network.state_dict()) - 4
    assert without.weights_sha256 == whole.weights_sha256
    batch = images(1, 64, 64)
    assert torch.equal(without.encode(batch).spatial, whole.encode(batch).spatial)


@pytest.fixture
def hugging_face_file(entry, randomised, tmp_path):
    shape = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "num_register_tokens": 4}
    randomised(DINOv3ViTModel(DINOv3ViTConfig(**shape, intermediate_size=384))).save_pretrained(tmp_path)
    return entry("dinov3-tiny"), tmp_path / "model.safetensors"


def test_every_tensor_of_the_hugging_face_file_is_needed(hugging_face_file, loaded):
    tiny, file = hugging_face_file
    whole = load_file(file)
    for name in whole:
        if name == "embeddings.mask_token":
            continue
        save_file({other: tensor for other, tensor in whole.items() if other != name}, file)
        with pytest.raises(ContractError) as refusal:
            loaded(tiny, file)
        assert str(refusal.value) == (
            f"{file}, as weights of dinov3-tiny, in the layout of Hugging Face, breaks the storage contract:\n"
            f"  {name}: missing"
        )


def test_every_tensor_of_the_meta_file_is_needed(entry, loaded, randomised, tmp_path):
    shape = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "num_register_tokens": 4}
    published = randomised(DINOv3ViTModel(DINOv3ViTConfig(**shape, intermediate_size=384)))
    whole, file = meta_layout(published, gated=False), tmp_path / "meta.pth"
    for name in whole:
        if name in ("mask_token", "rope_embed.periods"):
            continue
        torch.save({other: tensor for other, tensor in whole.items() if other != name}, file)
        with pytest.raises(ContractError, match=f"in the layout of Meta's .pth, breaks .*:\n  {name}: missing$"):
            loaded(entry("dinov3-tiny"), file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"blocks.0.attn.qkv.bias_mask": torch.ones(288)},
            "blocks.0.attn.qkv.bias and blocks.0.attn.qkv.bias_mask: "
            "the mask must keep the biases of q and v, and no others",
        ),
        (
            {"rope_embed.periods": torch.tensor([10000 ** (n / 8) for n in range(8)])},
            "rope_embed.periods: the rotary periods are those of another head size or another base",
        ),
        (
            {"rope_embed.periods": torch.tensor([100 ** (n / 16) for n in range(16)])},
            "rope_embed.periods: the rotary periods are those of another head size or another base",
        ),
    ],
)
def test_a_meta_file_of_other_heads_base_or_mask_is_refused(entry, loaded, randomised, tmp_path, changes, message):
    shape = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "num_register_tokens": 4}
    published = randomised(DINOv3ViTModel(DINOv3ViTConfig(**shape, intermediate_size=384)))
    torch.save(meta_layout(published, gated=False) | changes, tmp_path / "meta.pth")
    with pytest.raises(ContractError) as refusal:
        loaded(entry("dinov3-tiny"), tmp_path / "meta.pth")
    assert str(refusal.value) == (
        f"{tmp_path}/meta.pth, as weights of dinov3-tiny, breaks the storage contract:\n  {message}"
    )
