"""One digest for one set of numbers."""

import hashlib

import torch

from teachers.build import build_teacher
from teachers.digest import weights_digest


def test_the_digest_is_of_name_dtype_shape_and_bytes():
    expected = hashlib.sha256(
        b'["a", "int16", [2]]\n' + b"\x01\x00\x02\x00" + b'["b", "float32", []]\n' + b"\x00\x00\x80\x3f"
    )
    tensors = {"b": torch.tensor(1.0), "a": torch.tensor([1, 2], dtype=torch.int16)}
    assert weights_digest(tensors) == expected.hexdigest()


def test_anything_that_differs_changes_it_and_memory_layout_does_not():
    tensor = torch.arange(6.0).reshape(2, 3)
    others = (
        {"b": tensor},
        {"a": tensor.bfloat16()},
        {"a": tensor.reshape(3, 2)},
        {"a": tensor + torch.eye(2, 3) * 1e-7},
        {},
    )
    assert len({weights_digest(tensors) for tensors in ({"a": tensor}, *others)}) == 6
    assert weights_digest({"a": tensor.t().contiguous().t()}) == weights_digest({"a": tensor})


def test_seed_and_model_decide_the_noise_and_precision_is_told_apart():
    digests = [build_teacher("dinov3-tiny", weights=f"random:{seed}").weights_sha256 for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
    assert build_teacher("dinov3-tiny", weights="random:1", precision="bf16-autocast").weights_sha256 == digests[0]
    assert build_teacher("dinov3-tiny", weights="random:1", precision="bf16").weights_sha256 != digests[0]
