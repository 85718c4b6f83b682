"""Teachers by the name of a timm model: what is read from timm's configuration, and what is refused."""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from storage_schemas.format.errors import ContractError, SettingError
from teachers import timm_model
from teachers.base import AbstractTeacher
from teachers.build import build_teacher
from teachers.kinds import kind_of
from teachers.library import library_model
from teachers.source import is_own, name_in_cache, precision_of, spec_of, specs_of
from teachers.table import described_teacher


@pytest.fixture(autouse=True)
def fresh() -> Any:
    """Descriptions are kept for a process; a test that changes timm must not leave one."""
    yield
    library_model.cache_clear()


def refusal(source: str, **settings: Any) -> str:
    with pytest.raises((SettingError, ContractError)) as refused:
        spec_of(source, **settings)
    return str(refused.value)


def test_a_source_is_told_by_what_stands_before_its_colon() -> None:
    assert [kind_of(source) for source in ("timm:resnet18", "timmy:Mine", "dinov3-s")] == ["timm", "own", "catalogue"]
    assert not is_own("timm:resnet18")
    assert precision_of("timm:resnet18", None) == "fp32"
    assert name_in_cache("timm:test_vit.r160_in1k") == "test_vit-r160_in1k"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("test_vit.r160_in1k", (64, 64, 16, "any", 160, 1, 6, "apache-2.0")),
        ("test_convnext.r160_in1k", (64, 64, 32, "any", 160, 0, 1, "apache-2.0")),
        ("test_vit3.r160_in1k", (96, 96, 16, "fixed", 160, 1, 9, "apache-2.0")),
        ("test_efficientnet", (64, 256, 32, "any", 160, 0, 1, "apache-2.0")),
        ("samvit_base_patch16.sa1b", (768, 256, 16, "fixed", 1024, 0, 12, "apache-2.0")),
    ],
)
def test_the_spec_is_timms_own_configuration(model: str, expected: tuple) -> None:
    known = library_model(f"timm:{model}")
    spec, config = known.spec, timm.get_pretrained_cfg(model)
    assert (spec.dim, spec.summary_dim, spec.patch, spec.size_rule, spec.native) == expected[:5]
    assert (known.prefix_tokens, sum(known.alike), spec.licence) == expected[5:]
    assert (spec.mean, spec.std) == (config.mean, config.std)
    assert spec.model == f"{config.architecture}.{config.tag}"
    assert known.normed == (not model.startswith("samvit"))  # timm's norm of SAM is part of its neck


def test_make_teachers_shows_what_is_known_of_a_model() -> None:
    lines = dict(line.split("  ", 1) for line in described_teacher("timm:test_vit.r160_in1k", "own", None))
    shown = {name: value.strip() for name, value in lines.items()}
    assert shown["model"] == "test_vit.r160_in1k"
    assert shown["sizes"] == "multiples of 16"
    assert shown["summary"] == "64 channels, own pooling (token)"
    assert shown["prefix tokens"] == "1"
    assert shown["mean"] == "0.5, 0.5, 0.5"
    assert shown["licence"] == "apache-2.0"
    assert shown["layers"] == "0, 1, 2, 3, 4, 5"
    assert shown["weights"] == "https://huggingface.co/timm/test_vit.r160_in1k"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("coat_tiny", "a list of 3 maps, (1, 785, 152), (1, 197, 152), (1, 50, 152); expected one map"),
        ("crossvit_tiny_240", "a list of 2 maps, (1, 401, 96), (1, 197, 192); expected one map"),
        ("efficientvim_m1", "a list of 4 maps"),
        ("pit_ti_224", "gives 1 tokens, expected 1 and the 49 of the map"),
        ("levit_128s", "has 4 × 4 tokens for 224 × 224 px, and declares one for each 64 × 64 px"),
    ],
)
def test_a_model_without_the_map_that_it_declares_is_refused_with_both_values(model: str, said: str) -> None:
    assert said in refusal(f"timm:{model}")


@pytest.mark.parametrize(("entry", "said"), [({"num_chs": 65}, "has 64 channels, and declares 65")])
def test_other_channels_than_declared_are_refused_with_both_values(
    monkeypatch: pytest.MonkeyPatch, entry: dict, said: str
) -> None:
    create = timm.create_model

    def lying(*args: Any, **options: Any) -> Any:
        network = create(*args, **options)
        network.feature_info = [*network.feature_info[:-1], {**network.feature_info[-1], **entry}]
        return network

    monkeypatch.setattr(timm_model.timm, "create_model", lying)
    assert said in refusal("timm:test_convnext")


def test_names_that_timm_does_not_have_are_refused_with_near_ones() -> None:
    assert "has no model 'test_vut' (did you mean test_vit" in refusal("timm:test_vut")
    assert "has no weights 'best' of test_vit (it has test_vit.r160_in1k" in refusal("timm:test_vit.best")


def test_summaries_are_chosen_by_a_setting() -> None:
    source = "timm:test_efficientnet"
    assert [spec_of(source, summary=kind).summary_dim for kind in ("own", "mean", "none")] == [256, 64, None]
    assert "'class-token', and the model has none" in refusal(source, summary="class-token")
    assert "'class-token', and the model has none" in refusal("timm:test_vit4", summary="class-token")  # a register
    assert "this teacher has one summary" in refusal("dinov3-s", summary="mean")


def test_sizes_are_chosen_by_a_setting() -> None:
    source = "timm:test_vit3"
    assert spec_of(source, size_rule="canvas", summary="none").size_rule == "canvas"
    assert "a summary of a mosaic belongs to no single view" in refusal(source, size_rule="canvas")
    assert spec_of(source, size_rule="any").size_rule == "any"
    assert spec_of("timm:test_convnext", size_rule="fixed").size_rule == "fixed"
    assert "takes no dynamic_img_size" in refusal("timm:samvit_base_patch16", size_rule="any")
    assert "this teacher declares 'any'" in refusal("dinov3-s", size_rule="fixed")


def test_blocks_whose_maps_have_another_shape_are_refused() -> None:
    [_, block] = specs_of("timm:test_vit", layers=(3,))
    assert (block.name, block.layer, block.summary_dim) == ("test_vit-block3", 3, None)
    with pytest.raises(SettingError, match=r"block 1 has other channels or tokens .*blocks whose maps can be .*: 3"):
        specs_of("timm:test_convnext", layers=(1,))
    with pytest.raises(SettingError, match="there is no block 6"):
        specs_of("timm:test_vit", layers=(6,))


def saved(tensors: dict, path: Any) -> str:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


def loaded(model: str, path: str, **more: Any) -> AbstractTeacher:
    return build_teacher(f"timm:{model}", weights=path, **more)


@pytest.fixture
def network() -> Any:
    torch.manual_seed(2)
    return timm.create_model("test_vit", pretrained=False).eval()


def test_timms_own_file_is_loaded_whole_and_runs_as_timm_runs_it(network: Any, tmp_path: Any, images: Any) -> None:
    teacher = loaded("test_vit", saved(network.state_dict(), tmp_path / "a.safetensors"))
    pixels = images(2, 128, 160)
    with torch.inference_mode():
        final, [map_] = network.forward_intermediates(pixels, indices=1, norm=True)
    output = teacher.encode(pixels)
    torch.testing.assert_close(output.spatial, map_.permute(0, 2, 3, 1))
    torch.testing.assert_close(output.summary, final[:, 0])
    wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    again = loaded("test_vit", saved(wrapped, tmp_path / "b.safetensors"))
    assert again.weights_sha256 == teacher.weights_sha256


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rename", ("blocks.2.mlp.fc1.weight: missing", "blocks.2.mlp.fc1.weigh: unexpected")),
        ("drop", ("blocks.2.mlp.fc1.weight: missing",)),
        ("reshape", ("blocks.2.mlp.fc1.weight: shape (192, 63), expected (192, 64)",)),
        ("add", ("extra.weight: unexpected",)),
        ("positions", ("pos_embed: shape (1, 50, 64) does not fit, and timm would resample or cut it",)),
    ],
)
def test_a_file_with_one_wrong_tensor_is_refused_by_name(
    network: Any, tmp_path: Any, change: str, said: tuple[str, ...]
) -> None:
    tensors, name = dict(network.state_dict()), "blocks.2.mlp.fc1.weight"
    match change:
        case "rename":
            tensors[name[:-1]] = tensors.pop(name)
        case "drop":
            del tensors[name]
        case "reshape":
            tensors[name] = tensors[name][:, :-1]
        case "add":
            tensors["extra.weight"] = torch.zeros(3)
        case "positions":
            tensors["pos_embed"] = torch.randn(1, 50, 64)
    with pytest.raises(ContractError) as refused:
        loaded("test_vit", saved(tensors, tmp_path / "w.safetensors"))
    assert all(text in str(refused.value) for text in said)


def test_the_authors_layout_is_converted_by_timm_and_every_number_is_followed(tmp_path: Any) -> None:
    """DINOv2's own files keep the class token's position in the table, and timm adds it to the token."""
    torch.manual_seed(3)
    options = {"class_token": True, "no_embed_class": True}
    network = timm.create_model("test_vit3", global_pool="token", **options).eval()
    timms = network.state_dict()
    position = torch.randn(1, 1, 96)
    published = {name: tensor for name, tensor in timms.items() if not name.startswith(("head.", "reg_token"))}
    published |= {"register_tokens": timms["reg_token"], "mask_token": torch.zeros(1, 96)}
    published |= {"cls_token": timms["cls_token"] - position, "pos_embed": torch.cat([position, timms["pos_embed"]], 1)}
    target = timm.create_model("test_vit3", num_classes=0, global_pool="token", **options)
    whole = timm.create_model("test_vit3", global_pool="token", **options)

    def read(tensors: dict) -> dict:
        from pathlib import Path

        from teachers.timm_weights import _read
        from teachers.weight_files import open_weights

        return _read(target, whole, open_weights(Path(saved(tensors, tmp_path / "meta.safetensors"))), "the file")

    arrived = read(published)
    for name, tensor in target.state_dict().items():
        torch.testing.assert_close(arrived[name], timms[name], msg=name)
        assert tensor.shape == arrived[name].shape
    with pytest.raises(ContractError, match=r"blocks\.0\.attn\.extra: unexpected"):
        read(published | {"blocks.0.attn.extra": torch.zeros(3)})
    with pytest.raises(ContractError, match=r"pos_embed: shape \(1, 50, 96\) does not fit"):
        read(published | {"pos_embed": torch.randn(1, 50, 96)})


def test_random_weights_leave_tables_and_running_statistics_as_they_are() -> None:
    teacher = build_teacher("timm:test_resnet", weights="random:4")
    other = build_teacher("timm:test_resnet", weights="random:5")
    assert teacher.spec.random_weights
    tensors = teacher.network.state_dict()
    assert all((tensors[name] == 1).all() for name in tensors if name.endswith("running_var"))
    assert teacher.weights_sha256 == build_teacher("timm:test_resnet", weights="random:4").weights_sha256
    assert teacher.weights_sha256 != other.weights_sha256


def test_missing_weights_are_one_message_with_model_licence_place_and_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    from storage_schemas.format.errors import MissingError

    def absent(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr("teachers.hub.snapshot_download", absent)
    with pytest.raises(MissingError) as missing:
        build_teacher("timm:vit_huge_patch14_clip_378.dfn5b", weights="hub")
    text = str(missing.value)
    assert text.startswith("a copy of the weights of timm:vit_huge_patch14_clip_378.dfn5b")
    assert "https://huggingface.co/timm/vit_huge_patch14_clip_378.dfn5b: not in the hub's cache" in text
    assert "licence: apple-ascl" in text
    assert "WEIGHTS=/path/to/file-or-folder" in text


def test_bfloat16_weights_leave_buffers_in_float32() -> None:
    teacher = build_teacher("timm:test_resnet", weights="random:4", precision="bf16")
    assert {parameter.dtype for parameter in teacher.network.parameters()} == {torch.bfloat16}
    assert teacher.network.get_buffer("bn1.running_var").dtype == torch.float32
