"""What an image may take: bytes, pixels and memory. A lack of memory is never said to be the image's fault."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_forms import write_parquet, write_tar
from PIL import Image

from pipeline.config import ViewsConfig
from pipeline.images import decoding, limits, reader
from pipeline.images.listing import SourceImage, list_images
from pipeline.images.reader import ImageReader
from pipeline.images.unusable import UnusableImageError
from pipeline.views.opening import ImageViews, OpenedView, RejectedView, open_images
from pipeline.views.order import DrawnView
from pipeline.views.sampling import set_manifest
from pipeline.views.shard_task import ShardTask
from pipeline.views.worker import ViewCutter
from storage_schemas.format.errors import MissingError, SettingError
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "AVIF": ("RGB", {"speed": 10}),
    "BMP": ("RGB", {}),
    "GIF": ("P", {}),
    "JPEG": ("RGB", {}),
    "progressive JPEG": ("RGB", {"progressive": True}),
    "JPEG2000": ("RGB", {}),
    "PNG": ("RGBA", {"compress_level": 1}),
    "PNG of grey": ("I;16", {"compress_level": 1}),
    "PPM": ("RGB", {}),
    "TIFF": ("RGB", {"compression": "tiff_lzw"}),
    "WEBP": ("RGBA", {"method": 0}),
}

UNDER_LIMITS = """
import gc, resource, sys
from pathlib import Path
from pipeline.config import ViewsConfig
from pipeline.images.decoding import open_picture, quiet_decoding
from pipeline.images.unusable import UnusableImageError

config = ViewsConfig(min_side=1)

def outcome(body):
    try:
        picture = open_picture(body, config)
        picture.scaled_for((0, 0, picture.width, picture.height), picture.width)
        return "image"
    except MemoryError:
        return "memory"
    except UnusableImageError as error:
        return f"{error.reason}: {error.detail}"

for name in sys.argv[2:]:
    body = Path(name).read_bytes()
    small = Path(name + ".small").read_bytes()
    assert outcome(small) == "image"  # imports are done
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    found = set()
    for room in range(0, 512, int(sys.argv[1])):
        gc.collect()
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + room * 2**20, resource.RLIM_INFINITY))
        found.add(outcome(body))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found.add(outcome(body))
    print(Path(name).name, sorted(found), sep="|", flush=True)
"""


def picture(form: str, side: int) -> bytes:
    """A picture of a side, as a file."""
    mode, options = FORMS[form]
    levels = (np.add.outer(np.arange(side), np.arange(side)) // 8 % 200).astype(np.uint8)
    image = Image.fromarray(levels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    body = io.BytesIO()
    image.save(body, form.split(" ")[-1] if "JPEG" in form else form.split(" ")[0], **options)
    return body.getvalue()


def outcomes(form: str, folder: Path, step: int) -> tuple[int, str, str]:
    """How an image is taken under 0, `step`, … up to 512 MiB of memory: exit status, standard output and error."""
    (folder / "image").write_bytes(picture(form, 2500))
    (folder / "image.small").write_bytes(picture(form, 64))
    command = [sys.executable, "-c", UNDER_LIMITS, str(step), str(folder / "image")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space so")
def test_a_lack_of_memory_is_not_called_damage(tmp_path: Path) -> None:
    assert outcomes("JPEG2000", tmp_path, 64)[:2] == (0, "image|['image', 'memory']\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space so")
@pytest.mark.parametrize("form", FORMS)
def test_a_lack_of_memory_is_called_damage_in_no_format(form: str, tmp_path: Path) -> None:
    status, said, failed = outcomes(form, tmp_path, 32)
    if form == "progressive JPEG" and status:  # libjpeg's fatal errors end the process
        assert (status, "libjpeg has too little memory to check an image" in failed) == (2, True)
    else:
        assert (status, said) == (0, "image|['image', 'memory']\n"), failed


def views_of(*uris: str) -> list[ImageViews]:
    """One view of each image."""
    images = [SourceImage(key=uri[-9:], uri=uri) for uri in uris]
    return [ImageViews(image=image, views=((0, DrawnView(image=image, draw=0, split="train")),)) for image in images]


def lacking(*_: Any) -> None:
    """Fail as a decoder does where there is too little memory."""
    raise MemoryError


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_lack_of_memory_ends_the_run_and_names_the_image(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image.img").write_bytes(picture(form, 64))
    monkeypatch.setattr(decoding, "_upright_rgb", lacking)
    uri = (tmp_path / "image.img").as_uri()
    with pytest.raises(MissingError) as caught:
        cut(uri, tmp_path)
    assert str(caught.value) == (
        "memory is missing:\n  image.img: there is too little memory to decode it (use fewer workers or a machine with "
        "more memory, then run the same command again, which resumes)"
    )


def cut(uri: str, folder: Path) -> None:
    """Open and cut the view of an image."""
    cutter = ViewCutter(store=Store(uri=str(folder / "cache")), config=ViewsConfig(low=(64,), high=()))
    view_set = ViewSet(partition="low", resolution=64)
    manifest = set_manifest(view_set, [1], cutter.config)
    task = ShardTask(view_set=view_set, manifest=manifest, shard=0, views=(), identity="", canvases=True, details=())
    [[(_, view)]] = open_images(views_of(uri), ImageReader(), cutter.config)
    assert isinstance(view, OpenedView)
    cutter._cut_view(task, view)


@pytest.mark.parametrize("kind", ["file", "member", "cell"])
def test_an_image_of_too_many_bytes_is_rejected(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "FILE_BYTES", 1000)
    body = bytes(1001)
    if kind == "file":
        (tmp_path / "0.img").write_bytes(body)
        uri = (tmp_path / "0.img").as_uri()
    elif kind == "member":
        uri = reader.range_locator(write_tar(tmp_path / "0.tar", {"0.jpg": body}).as_uri(), 512, 1513)
    else:
        uri = reader.cell_locator(write_parquet(tmp_path / "0.parquet", [{"jpg": body}]).as_uri(), 0, 0, "jpg")
    [[(_, view)]] = open_images(views_of(uri), ImageReader(), ViewsConfig())
    assert isinstance(view, RejectedView)
    assert (view.error.reason, view.error.detail) == ("too many bytes", "1001, at most 1000")
    monkeypatch.setattr(reader, "FILE_BYTES", 1001)
    assert ImageReader().read(uri) == body


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "0.img").open("wb") as file:
        file.truncate(limits.FILE_BYTES + 1)
    with pytest.raises(UnusableImageError, match="too many bytes"):
        ImageReader().read((tmp_path / "0.img").as_uri())


def test_a_row_group_that_inflates_to_far_more_than_images_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"jpg": [bytes(10**6)] * 4, "key": list("abcd")})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    [first, *_] = list_images(str(tmp_path))
    assert len(ImageReader().read(first.uri)) == 10**6
    monkeypatch.setattr(reader, "GROUP_BYTES", 10**6)
    with pytest.raises(SettingError, match=r"row group 0 inflates from \d+ to 40000\d\d bytes"):
        ImageReader().read(first.uri)


@pytest.mark.parametrize("struct", [False, True])
def test_a_value_that_many_rows_repeat_is_kept_once(tmp_path: Path, struct: bool) -> None:
    rows, body = 20_000, np.random.default_rng(0).bytes(500_000)
    values: pa.Array = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([body]))
    column = pa.StructArray.from_arrays([values], ["bytes"]) if struct else values
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet", store_schema=False)
    uri = reader.cell_locator((tmp_path / "a.parquet").as_uri(), 0, 777, "image.bytes" if struct else "image")
    before = pa.total_allocated_bytes()
    assert ImageReader().read(uri) == body
    assert pa.default_memory_pool().max_memory() - before < 50 * 2**20, "not 10 GB"


PEAK = """
import resource, sys
from pathlib import Path
from pipeline.config import ViewsConfig
from pipeline.images.decoding import open_picture
body = Path(sys.argv[1]).read_bytes()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
open_picture(Path(sys.argv[2]).read_bytes(), ViewsConfig(min_side=1)).scaled_for((0, 0, 64, 64), 64)
before = peak()
image = open_picture(body, ViewsConfig())
image.scaled_for((0, 0, image.width, image.height), 64)
print((peak() - before) / image.width / image.height)
"""


def bytes_per_pixel(image: Image.Image, form: str, folder: Path, **options: Any) -> float:
    """The memory that the decoding of a large image takes at its peak."""
    image.save(folder / "large", form, **options)
    (folder / "small").write_bytes(picture("PNG", 64))
    command = [sys.executable, "-c", PEAK, str(folder / "large"), str(folder / "small")]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
@pytest.mark.parametrize("mode", ["P", "RGBA", "I;16", "L"])
def test_a_small_file_of_many_pixels_takes_little_memory_for_each(mode: str, tmp_path: Path) -> None:
    side = 4000
    options: dict[str, Any] = {"compress_level": 1} | ({"transparency": 0} if mode == "P" else {})
    image = Image.fromarray(np.zeros((side, side), np.uint16)) if mode == "I;16" else Image.new(mode, (side, side))
    assert bytes_per_pixel(image, "PNG", tmp_path, **options) < 12
    assert (tmp_path / "large").stat().st_size < 10**6


@pytest.mark.slow
@pytest.mark.parametrize("form", ["AVIF", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_no_format_takes_more_memory_than_is_promised(form: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"progressive": True} if form == "JPEG" else {"speed": 10} if form == "AVIF" else {}
    image = Image.new("P" if form == "GIF" else "RGB", (6000, 6000))
    assert bytes_per_pixel(image, form, tmp_path, **options) < limits.DECODER_BYTES_PER_PIXEL
