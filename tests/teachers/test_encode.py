"""`AbstractTeacher.encode` does what its docstring says, for every model."""

import inspect
import subprocess
import sys
from dataclasses import replace
from typing import final

import pytest
import torch
from torch import nn

from storage_schemas.format.errors import ContractError, SettingError
from storage_schemas.format.teacher import TeacherSpec
from teachers.base import AbstractTeacher, normalise
from teachers.build import build_teacher, family_of, loaded_network
from teachers.catalogue import CATALOGUE
from teachers.output import TeacherOutput

SPEC = TeacherSpec(
    name="probe",
    model="probe",
    dim=3,
    summary_dim=None,
    patch=16,
    size_rule="any",
    native=32,
    mean=(0.5, 0.4, 0.3),
    std=(0.1, 0.2, 0.5),
)


@final
class Probe(AbstractTeacher):
    """Returns a given output, however wrong."""

    def __init__(self, output: TeacherOutput, **changes: object) -> None:
        """Keep the output, and change the spec."""
        super().__init__(spec=replace(SPEC, **changes), network=nn.Identity(), device="cpu", precision="fp32")
        self.output = output

    def features(self, images: torch.Tensor) -> TeacherOutput:
        """Return it."""
        del images
        return self.output


def side_of(teacher: AbstractTeacher) -> int:
    return 64 if teacher.spec.size_rule == "any" else teacher.spec.native


def test_shapes_are_those_of_the_spec_and_float32(tiny, images):
    side = side_of(tiny)
    output = tiny.encode(images(2, side, side))
    tokens = side // tiny.spec.patch
    assert output.spatial.shape == (2, tokens, tokens, tiny.spec.dim)
    assert output.spatial.dtype == torch.float32
    if tiny.spec.summary_dim is None:
        assert output.summary is None
    else:
        assert output.summary.shape == (2, tiny.spec.summary_dim)
        assert output.summary.dtype == torch.float32


def test_an_image_means_the_same_alone_and_in_a_batch(tiny, images):
    batch = images(3, side_of(tiny), side_of(tiny))
    together = tiny.encode(batch)
    for index in range(3):
        alone = tiny.encode(batch[index : index + 1])
        torch.testing.assert_close(alone.spatial[0], together.spatial[index], rtol=0, atol=2e-5)
        if together.summary is not None:
            torch.testing.assert_close(alone.summary[0], together.summary[index], rtol=0, atol=2e-5)


def test_the_same_input_gives_the_same_bytes_also_in_a_teacher_built_again(tiny, images):
    batch = images(2, side_of(tiny), side_of(tiny))
    again = build_teacher(tiny.spec.name, weights="random:7")
    first = tiny.encode(batch).spatial
    assert torch.equal(first, tiny.encode(batch).spatial)
    assert torch.equal(first, again.encode(batch).spatial)


def test_features_vary_with_the_image_and_over_it(tiny, images):
    spatial = tiny.encode(images(2, side_of(tiny), side_of(tiny))).spatial
    assert spatial.flatten(1, 2).std(dim=1).mean() > 0.3
    assert (spatial[0] - spatial[1]).std() > 0.3


def ramps() -> bytes:
    """The maps of the three tiny teachers for a ramp of colours, as bytes; also run by name in another process."""
    maps = []
    for name, side in (("dinov3-tiny", 64), ("siglip2-tiny", 192), ("sam3-tiny", 336)):
        images = torch.linspace(-2, 2, 3 * side * side).reshape(1, 3, side, side)
        maps.append(build_teacher(name, weights="random:7").encode(images).spatial.numpy().tobytes())
    return b"".join(maps)


def test_a_worker_process_computes_the_same_bytes():
    lines = inspect.getsource(ramps)
    script = f"import sys, torch\nfrom teachers.build import build_teacher\ntorch.set_num_threads(1)\n{lines}\n"
    script += "sys.stdout.buffer.write(ramps())"
    worker = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = ramps()
    finally:
        torch.set_num_threads(threads)
    assert len(worker) == 4 * (16 * 96 + 144 * 80 + 576 * 64)
    assert worker == here


def test_nothing_learns(tiny, images):
    output = tiny.encode(images(1, side_of(tiny), side_of(tiny)).requires_grad_())
    assert not output.spatial.requires_grad
    assert not any(parameter.requires_grad for parameter in tiny.network.parameters())
    assert not any(module.training for module in tiny.network.modules())


@pytest.mark.parametrize(
    ("name", "height", "width", "message"),
    [
        ("dinov3-tiny", 64, 90, "64 × 90 px (height × width) (give sides that are multiples of its patch, 16 px)"),
        ("dinov3-tiny", 250, 250, "250 × 250 px (height × width) (give sides that are multiples of its patch, 16 px)"),
        ("dinov3-tiny", 0, 16, "0 × 16 px (height × width) (give sides that are multiples of its patch, 16 px)"),
        ("siglip2-tiny", 96, 384, "96 × 384 px (height × width) (it accepts only 192 × 192 px)"),
        ("siglip2-tiny", 208, 208, "208 × 208 px (height × width) (it accepts only 192 × 192 px)"),
        ("sam3-tiny", 168, 672, "168 × 672 px (height × width) (it accepts only 336 × 336 px)"),
        ("sam3-tiny", 672, 672, "672 × 672 px (height × width) (it accepts only 336 × 336 px)"),
    ],
)
def test_a_size_that_the_teacher_does_not_accept_is_refused(name, height, width, message):
    teacher = build_teacher(name, weights="random:0")
    with pytest.raises(SettingError) as refusal:
        teacher.encode(torch.zeros(1, 3, height, width))
    assert str(refusal.value) == f"teacher '{name}' cannot be used:\n  input size: {message}"


def test_images_of_another_dtype_or_device_are_refused():
    teacher = build_teacher("dinov3-tiny", weights="random:0")
    with pytest.raises(SettingError) as refusal:
        teacher.encode(torch.zeros(1, 3, 32, 32, dtype=torch.float64, device="meta"))
    assert str(refusal.value) == (
        "teacher 'dinov3-tiny' cannot be used:\n"
        "  images: float64, expected float32 or bfloat16 (normalise() gives float32)\n"
        "  images: are on meta, the teacher is on cpu"
    )


def test_bfloat16_images_are_accepted_and_features_are_float32(images):
    teacher = build_teacher("dinov3-tiny", weights="random:7")
    output = teacher.encode(images(1, 64, 64).bfloat16())
    assert output.spatial.dtype == torch.float32


def test_an_output_of_another_shape_than_declared_is_refused():
    wrong = TeacherOutput(summary=torch.zeros(2, 3), spatial=torch.zeros(2, 2, 1, 3))
    with pytest.raises(ContractError) as refusal:
        Probe(wrong).encode(torch.zeros(2, 3, 32, 32))
    assert str(refusal.value) == (
        "output of teacher 'probe' breaks the storage contract:\n"
        "  summary: expected None, is (2, 3)\n"
        "  spatial: expected (2, 2, 2, 3), is (2, 2, 1, 3)"
    )


def test_an_output_that_is_a_list_of_maps_is_refused():
    wrong = TeacherOutput(summary=None, spatial=torch.zeros(1, 2, 2, 3))
    object.__setattr__(
        wrong, "spatial", [torch.zeros(1, 4, 3), torch.zeros(1, 1, 3)]
    )  # outside tests nothing checks it
    with pytest.raises(ContractError) as refusal:
        Probe(wrong).encode(torch.zeros(1, 3, 32, 32))
    assert str(refusal.value) == (
        "output of teacher 'probe' breaks the storage contract:\n"
        "  spatial: is a list, expected a tensor (some networks return several maps or their class token alone "
        "(docs/adding_a_teacher.md): choose one map)"
    )


def test_a_layer_that_was_not_asked_for_is_refused():
    spatial = torch.zeros(1, 2, 2, 3)
    wrong = TeacherOutput(summary=None, spatial=spatial, layers={4: spatial})
    with pytest.raises(ContractError, match=r"layers\[4\]: expected None, is \(1, 2, 2, 3\)"):
        Probe(wrong).encode(torch.zeros(1, 3, 32, 32))


def test_nan_and_infinity_are_refused_naming_the_images():
    spatial = torch.zeros(4, 2, 2, 3)
    spatial[1, 0, 1, 2], spatial[3, 1, 1, 0] = float("nan"), float("inf")
    with pytest.raises(ContractError) as refusal:
        Probe(TeacherOutput(summary=None, spatial=spatial)).encode(torch.zeros(4, 3, 32, 32))
    assert str(refusal.value) == (
        "output of teacher 'probe' breaks the storage contract:\n"
        "  spatial: NaN or infinity in image 1, 3 of the batch (try precision fp32)"
    )


def test_normalise_is_the_pixel_formula():
    pixels = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).reshape(2, 4, 5, 3)
    normal = normalise(pixels, SPEC)
    assert normal.shape == (2, 3, 4, 5)
    for channel, (mean, std) in enumerate(zip(SPEC.mean, SPEC.std, strict=True)):
        expected = (pixels[1, 2, 3, channel].item() / 255 - mean) / std
        assert normal[1, channel, 2, 3].item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(normalise(pixels.float(), SPEC), normal)


def test_normalise_refuses_pixels_of_unknown_range():
    with pytest.raises(SettingError) as refusal:
        normalise(torch.zeros(1, 4, 4, 3, dtype=torch.int64), SPEC)
    assert str(refusal.value) == (
        "teacher 'probe' cannot be used:\n"
        "  pixels: int64, whose range of values is unknown (give uint8, or float32 from 0 to 255)"
    )


@pytest.mark.parametrize("name", ["dinov3-tiny", "siglip2-tiny", "sam3-tiny"])
def test_each_precision_is_near_float32_and_position_tables_stay_float32(name, images):
    exact = build_teacher(name, weights="random:7", precision="fp32")
    side = side_of(exact)
    expected = exact.encode(images(2, side, side)).spatial
    for precision, weight_dtype in (("bf16-autocast", torch.float32), ("bf16", torch.bfloat16)):
        teacher = build_teacher(name, weights="random:7", precision=precision)
        assert {parameter.dtype for parameter in teacher.network.parameters()} == {weight_dtype}
        tables = [buffer for name, buffer in teacher.network.named_buffers() if not name.endswith("k_bias")]
        assert {table.dtype for table in tables} <= {torch.float32}
        output = teacher.encode(images(2, side, side))
        assert {tensor.dtype for tensor in (output.spatial, output.summary) if tensor is not None} == {torch.float32}
        error = (output.spatial - expected).square().mean().sqrt()
        assert 0 < error < 0.03 * expected.square().mean().sqrt()


def test_compiling_is_off_on_a_cpu():
    teacher = build_teacher("dinov3-tiny", weights="random:0", compiled=True)
    assert teacher._features == teacher.features


@pytest.mark.slow
def test_features_compile_as_one_graph_into_the_same():
    # in a process of its own: the checks of shapes and types that tests switch on cannot be traced
    script = (
        "import torch\n"
        "from teachers.build import build_teacher\n"
        "for name, side in (('dinov3-tiny', 64), ('siglip2-tiny', 192), ('sam3-tiny', 336)):\n"
        "    teacher = build_teacher(name, weights='random:7', layers=(0,))\n"
        "    images = torch.linspace(-2, 2, 6 * side * side).reshape(2, 3, side, side)\n"
        "    compiled = torch.compile(teacher.features, backend='eager', fullgraph=True)\n"
        "    with torch.inference_mode():\n"
        "        one_graph, plain = compiled(images), teacher.features(images)\n"
        "    assert torch.equal(one_graph.spatial, plain.spatial)\n"
        "    assert torch.equal(one_graph.layers[0], plain.layers[0])\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["dinov3-tiny", "siglip2-tiny", "sam3-tiny"])
def test_the_map_of_a_block_is_that_of_a_network_that_ends_there(name, images):
    teacher = build_teacher(name, weights="random:7", layers=(0, 1))
    side = (64, 96) if teacher.spec.size_rule == "any" else (teacher.spec.native,) * 2
    output = teacher.encode(images(2, *side))
    network = loaded_network(CATALOGUE[name], "random:7", "fp32")
    blocks = "layers" if name == "sam3-tiny" else "blocks"
    setattr(network, blocks, getattr(network, blocks)[:1])
    shallow = family_of(CATALOGUE[name]).teacher(spec=teacher.spec, network=network, device="cpu", precision="fp32")
    assert torch.equal(output.layers[0], shallow.encode(images(2, *side)).spatial)
    assert torch.equal(output.layers[1], output.spatial)
    assert torch.equal(output.spatial, build_teacher(name, weights="random:7").encode(images(2, *side)).spatial)
