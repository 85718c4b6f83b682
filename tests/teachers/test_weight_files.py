"""Which weight files are read, and which are refused."""

import json
import pickle
from fractions import Fraction

import pytest
import torch
from safetensors.torch import save_file

from storage_schemas.format.errors import ContractError, MissingError, SettingError
from teachers.build import build_teacher
from teachers.weight_files import open_weights


def refusal_of(path):
    with pytest.raises((ContractError, MissingError)) as refusal:
        open_weights(path)
    return str(refusal.value)


@pytest.fixture
def tiny_weights():
    return build_teacher("dinov3-tiny", weights="random:1").network.state_dict()


def test_a_file_a_folder_and_its_shards_hold_the_same(tiny_weights, tmp_path):
    names = sorted(tiny_weights)
    halves = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for folder in ("one", "two", "other"):
        (tmp_path / folder).mkdir()
    save_file(tiny_weights, tmp_path / "one" / "model.safetensors")
    torch.save(tiny_weights, tmp_path / "other" / "dinov3_tiny.pth")
    for shard, held in halves.items():
        save_file({name: tiny_weights[name] for name in held}, tmp_path / "two" / shard)
    index = {"weight_map": {name: shard for shard, held in halves.items() for name in held}}
    (tmp_path / "two" / "model.safetensors.index.json").write_text(json.dumps(index))
    for folder in ("one", "one/model.safetensors", "two", "other"):
        teacher = build_teacher("dinov3-tiny", weights=str(tmp_path / folder))
        assert teacher.weights_sha256 == build_teacher("dinov3-tiny", weights="random:1").weights_sha256
        assert not teacher.spec.random_weights


def test_shards_that_are_not_those_of_their_index_are_refused(tmp_path):
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"d": torch.zeros(1)}, tmp_path / "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "c": "model-2.safetensors"}}))
    assert refusal_of(tmp_path) == (
        f"weights {index} breaks the storage contract:\n"
        "  c: model.safetensors.index.json lists it in model-2.safetensors, and it is not there\n"
        "  b: is in model-1.safetensors, and model.safetensors.index.json does not list it there\n"
        "  d: is in model-2.safetensors, and model.safetensors.index.json does not list it there"
    )


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    missing = tmp_path / "model-1.safetensors"
    assert refusal_of(tmp_path) == f"weights {missing} is missing:\n  {missing}: no such file or folder"


def test_a_path_that_is_not_there_is_missing(tmp_path):
    assert refusal_of(tmp_path / "no") == f"weights {tmp_path}/no is missing:\n  {tmp_path}/no: no such file or folder"


def test_an_empty_folder_is_missing(tmp_path):
    assert refusal_of(tmp_path) == f"weights {tmp_path} is missing:\n  {tmp_path}: no weight file in this folder"


def test_several_weight_files_are_refused_and_none_is_guessed(tmp_path):
    for name in ("a.pth", "b.safetensors"):
        (tmp_path / name).touch()
    assert refusal_of(tmp_path) == (
        f"weights {tmp_path} breaks the storage contract:\n"
        f"  {tmp_path.name}: has several weight files: a.pth, b.safetensors (give the path of the file)"
    )
    for name in ("model.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).touch()
    assert "has both model.safetensors and model.safetensors.index.json" in refusal_of(tmp_path)


def test_a_truncated_file_and_other_files_are_refused(tiny_weights, tmp_path):
    save_file(tiny_weights, tmp_path / "half.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "half.safetensors").read_bytes()[:5000])
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "weights.npz").touch()
    assert "half.safetensors: is not a complete safetensors file" in refusal_of(tmp_path / "half.safetensors")
    assert "pointer.pth: contains more than weights, or is incomplete" in refusal_of(tmp_path / "pointer.pth")
    assert "weights.npz: has suffix '.npz', expected .safetensors, .pth, .pt, .bin, or a folder" in refusal_of(
        tmp_path / "weights.npz"
    )


class Opened:
    """Something that acts when it is unpickled."""

    def __reduce__(self):
        """Raise in whoever unpickles it."""
        return (exec, ("raise SystemExit('the file ran')",))


def test_nothing_in_a_pytorch_file_runs(tmp_path):
    torch.save({"a": Opened()}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": Opened()}, protocol=2))
    for name in ("new.pth", "old.pth"):
        assert f"{name}: contains more than weights, or is incomplete: it names " in refusal_of(tmp_path / name)
        assert "no code in it was run" in refusal_of(tmp_path / name)


def test_a_refusal_gives_no_advice_to_run_what_was_refused(tmp_path):
    torch.save({"a": Opened()}, tmp_path / "code.pth")
    (tmp_path / "numbers.pth").write_bytes(pickle.dumps({"a": Fraction(1, 2)}, protocol=2))
    torch.save({"a": torch.zeros(1000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-100])
    (tmp_path / "text.pth").write_bytes(b"hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    for path in tmp_path.iterdir():
        said = refusal_of(path)
        assert f"{path.name}: contains more than weights, or is incomplete: " in said
        for advice in ("weights_only", "torch.load", "trust", "allowlist", "safe_globals"):
            assert advice not in said


def test_what_is_not_names_and_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3, "a": torch.zeros(1)}, tmp_path / "checkpoint.pth")
    assert refusal_of(tmp_path / "checkpoint.pth") == (
        f"weights {tmp_path}/checkpoint.pth breaks the storage contract:\n"
        "  checkpoint.pth: is not a mapping of names to tensors (save only the model's state_dict)"
    )


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_missing_unexpected_misshapen_and_mistyped_tensors_are_all_named_at_once(tiny_weights, tmp_path, suffix):
    broken = dict(tiny_weights)
    broken["blocks.1.mlp.fc3.bias"] = broken.pop("blocks.1.mlp.fc2.bias")
    broken["norm.weight"] = torch.ones(95)
    broken["reg_token"] = broken["reg_token"].double()
    broken["cls_token"] = broken["cls_token"].to(torch.int32)
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(broken, file)
    else:
        save_file(broken, file)
    with pytest.raises(ContractError) as refusal:
        build_teacher("dinov3-tiny", weights=str(file))
    double, integer = ("float64", "int32") if suffix == "pth" else ("F64", "I32")
    assert str(refusal.value) == (
        f"{file}, as weights of dinov3-tiny, in the layout of timm, breaks the storage contract:\n"
        "  blocks.1.mlp.fc2.bias: missing\n"
        "  blocks.1.mlp.fc3.bias: unexpected\n"
        f"  cls_token: dtype {integer}, expected one of float32, bfloat16, float16\n"
        "  norm.weight: shape (95,), expected (96,)\n"
        f"  reg_token: dtype {double}, expected one of float32, bfloat16, float16"
    )


def test_a_weight_that_is_not_finite_is_named(tiny_weights, tmp_path):
    torch.save(tiny_weights | {"norm.weight": torch.full((96,), float("nan"))}, tmp_path / "weights.pth")
    with pytest.raises(ContractError, match=r"breaks the storage contract:\n  norm.weight: NaN or infinity$"):
        build_teacher("dinov3-tiny", weights=str(tmp_path / "weights.pth"))


def test_another_model_s_file_is_refused_saying_so(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ContractError) as refusal:
        build_teacher("dinov3-tiny", weights=str(tmp_path / "resnet.pth"))
    assert str(refusal.value) == (
        f"{tmp_path}/resnet.pth, as weights of dinov3-tiny, breaks the storage contract:\n"
        "  names: no tensor has a name of this model in the layouts timm, timm without q and v biases, Hugging Face, "
        "Meta's .pth; the file has conv1.weight (check that it is a file of this model)"
    )


def test_half_precision_files_are_read_into_float32(tiny_weights, tmp_path):
    torch.save({name: tensor.bfloat16() for name, tensor in tiny_weights.items()}, tmp_path / "weights.pth")
    teacher = build_teacher("dinov3-tiny", weights=str(tmp_path / "weights.pth"))
    for name, tensor in teacher.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tiny_weights[name].bfloat16().float())


def test_a_loaded_teacher_outlives_its_file(tiny_weights, tmp_path):
    torch.save(tiny_weights, tmp_path / "weights.pth")
    teacher = build_teacher("dinov3-tiny", weights=str(tmp_path / "weights.pth"))
    with (tmp_path / "weights.pth").open("r+b") as file:
        file.write(bytes((tmp_path / "weights.pth").stat().st_size))
    assert teacher.weights_sha256 == build_teacher("dinov3-tiny", weights="random:1").weights_sha256


@pytest.mark.parametrize("weights", ["random:", "random:-1", "random:1.5", "random:x", "random:²"])
def test_a_seed_that_is_not_a_whole_number_is_refused(weights):
    with pytest.raises(SettingError) as refusal:
        build_teacher("dinov3-tiny", weights=weights)
    seed = weights.removeprefix("random:")
    assert (
        str(refusal.value)
        == f"weights {weights!r} cannot be used:\n  seed: {seed!r} is not a whole number of 0 or more"
    )
