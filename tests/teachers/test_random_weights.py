"""Noise that reaches every parameter, does not depend on order, and leaves no block idle."""

import torch

from teachers.build import build_teacher, family_of
from teachers.catalogue import CATALOGUE
from teachers.layout import shapes_of
from teachers.random_weights import random_weights


def test_each_tensor_is_drawn_alone_whatever_comes_before_it():
    shapes = {"a.weight": (4, 5), "b.bias": (6,), "gamma_1": (7,)}
    drawn = dict(random_weights(shapes, "model", 1))
    backwards = dict(random_weights(dict(reversed(shapes.items())), "model", 1))
    assert all(torch.equal(drawn[name], backwards[name]) for name in shapes)
    assert not torch.equal(drawn["a.weight"], dict(random_weights(shapes, "model", 2))["a.weight"])
    assert not torch.equal(drawn["a.weight"], dict(random_weights(shapes, "other", 1))["a.weight"])


def test_every_parameter_of_every_family_is_noise_of_a_sensible_size():
    for name in ("dinov3-tiny", "siglip2-tiny", "sam3-tiny"):
        entry = CATALOGUE[name]
        for tensor in dict(random_weights(shapes_of(family_of(entry).skeleton(entry)), name, 0)).values():
            assert tensor.dtype == torch.float32
            assert 0.02 < tensor.std() < 1
    scales = [
        tensor
        for parameter, tensor in build_teacher("dinov3-tiny", weights="random:0").network.named_parameters()
        if "gamma" in parameter
    ]
    assert len(scales) == 4
    assert all(abs(scale.mean() - 0.5) < 0.1 for scale in scales)


def test_a_block_left_out_changes_every_token(images):
    for name, side in (("dinov3-tiny", 64), ("siglip2-tiny", 192), ("sam3-tiny", 336)):
        teacher = build_teacher(name, weights="random:0", layers=(0,))
        output = teacher.encode(images(1, side, side))
        assert (output.layers[0] - output.spatial).square().mean(dim=-1).min() > 0.01
