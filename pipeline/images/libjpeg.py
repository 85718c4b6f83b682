"""Asking libjpeg whether the compressed data of a JPEG is sound. Pillow decodes spoilt data without a word.

libjpeg fills in what it cannot decode, and counts a warning. Pillow does not pass this count on, so the library that
Pillow has loaded is called once more, through its public interface (`jpeglib.h`, whose layout has been the same since
version 6b up to these fields). It decodes at an eighth of the size, which costs a fifth to nine tenths of the
time of a full decoding.
"""

import ctypes
import io
import os
from ctypes import POINTER, addressof, byref, c_char, c_char_p, c_double, c_int, c_long, c_size_t, c_uint, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, final

import numpy as np
from PIL import Image, _imaging

from storage_schemas.format.errors import Problem, SettingError

MESSAGE_BYTES = 200
"""Bytes of the buffer into which libjpeg formats a message (JMSG_LENGTH_MAX)."""
OUT_OF_MEMORY_STATUS = 2
HANDLER = ctypes.CFUNCTYPE(None, c_void_p)
FORMATTER = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)


@final
class _Errors(ctypes.Structure):
    """`jpeg_error_mgr`, and room for the fields after those that are used."""

    _fields_: ClassVar = [
        ("error_exit", HANDLER),
        ("emit_message", c_void_p),
        ("output_message", HANDLER),
        ("format_message", FORMATTER),
        ("reset_error_mgr", c_void_p),
        ("msg_code", c_int),
        ("msg_parm", c_int * 20),
        ("trace_level", c_int),
        ("num_warnings", c_long),
        ("others", c_char * 512),
    ]


@final
class _Decompress(ctypes.Structure):
    """`jpeg_decompress_struct`, and room for the fields after those that are used."""

    _fields_: ClassVar = [
        ("err", POINTER(_Errors)),
        *((name, c_void_p) for name in ("mem", "progress", "client_data")),
        *((name, c_int) for name in ("is_decompressor", "global_state")),
        ("src", c_void_p),
        *((name, c_uint) for name in ("image_width", "image_height")),
        *((name, c_int) for name in ("num_components", "jpeg_color_space", "out_color_space")),
        *((name, c_uint) for name in ("scale_num", "scale_denom")),
        ("output_gamma", c_double),
        *((name, c_int) for name in ("buffered_image", "raw_data_out", "dct_method", "do_fancy_upsampling")),
        *((name, c_int) for name in ("do_block_smoothing", "quantize_colors", "dither_mode", "two_pass_quantize")),
        *((name, c_int) for name in ("desired_number_of_colors", "enable_1pass_quant", "enable_external_quant")),
        ("enable_2pass_quant", c_int),
        *((name, c_uint) for name in ("output_width", "output_height")),
        *((name, c_int) for name in ("out_color_components", "output_components", "rec_outbuf_height")),
        ("actual_number_of_colors", c_int),
        ("colormap", c_void_p),
        ("output_scanline", c_uint),
        ("others", c_char * 4096),
    ]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Library:
    """The libjpeg that Pillow has loaded."""

    functions: Any
    version: int
    struct_bytes: int
    """What the library expects of a caller: it refuses any other `jpeg_decompress_struct`."""


def spoilt_data(body: bytes) -> str | None:
    """Return what libjpeg first warns of in the compressed data of a JPEG; None where it is sound.

    Warnings about the header say nothing about pixels, and do not count.

    Args:
        body: a JPEG that Pillow has decoded. Only lack of memory can then stop libjpeg, which ends the process.

    Raises:
        SettingError: libjpeg cannot be asked in this installation.
    """
    return _first_warning(_library(), body)


def _first_warning(library: _Library, body: bytes) -> str | None:
    said: list[str] = []
    errors, image = _Errors(), _Decompress()
    call = library.functions

    def note(_: int) -> None:
        text = ctypes.create_string_buffer(MESSAGE_BYTES)
        errors.format_message(addressof(image), ctypes.cast(text, c_char_p))
        said.append(text.value.decode("ascii", "replace"))

    _prepare(call, errors, image, FATAL, HANDLER(note))
    call.jpeg_CreateDecompress(byref(image), library.version, library.struct_bytes)
    try:
        call.jpeg_mem_src(byref(image), body, len(body))
        call.jpeg_read_header(byref(image), 1)
        errors.num_warnings = 0
        said.clear()
        image.scale_num, image.scale_denom, image.do_fancy_upsampling, image.do_block_smoothing = 1, 8, 0, 0
        call.jpeg_start_decompress(byref(image))
        row = (c_char * (image.output_width * image.output_components))()
        rows = (c_void_p * 1)(addressof(row))
        while image.output_scanline < image.output_height:
            call.jpeg_read_scanlines(byref(image), rows, 1)
        call.jpeg_finish_decompress(byref(image))
        return said[0] if errors.num_warnings else None
    finally:
        call.jpeg_destroy_decompress(byref(image))


def _end_process(_: int) -> None:
    # libjpeg's fatal errors must not return, and Python cannot leave its frames
    os.write(2, b"stillhouse: libjpeg has too little memory to check an image: use fewer workers, then run again\n")
    os._exit(OUT_OF_MEMORY_STATUS)


FATAL = HANDLER(_end_process)


def _prepare(call: Any, errors: _Errors, image: _Decompress, fatal: Any, note: Any) -> None:
    call.jpeg_std_error(byref(errors))
    errors.error_exit, errors.output_message = fatal, note
    image.err = ctypes.pointer(errors)


@cache
def _library() -> _Library:
    """Find the library, ask for its version, and try it on a sound and on two spoilt images."""
    try:
        functions = ctypes.CDLL(_imaging.__file__)
        functions.jpeg_CreateDecompress.argtypes = [c_void_p, c_int, c_size_t]
        functions.jpeg_mem_src.argtypes = [c_void_p, c_char_p, ctypes.c_ulong]
        functions.jpeg_std_error.restype = c_void_p
    except (OSError, AttributeError) as error:
        raise _not_askable(f"{type(error).__name__}: {error}") from error
    library = _Library(functions=functions, **_expected_of_callers(functions))
    for is_sound, body in _samples():
        if (_first_warning(library, body) is None) != is_sound:
            raise _not_askable("its answers about three images are wrong")
    return library


def _expected_of_callers(call: Any) -> dict[str, int]:
    """Return the version and the size of the struct, which the library names when it refuses others."""
    named: list[int] = []
    errors, image = _Errors(), _Decompress()

    def refuse(_: int) -> None:
        named.append(errors.msg_parm[0])

    handler = HANDLER(refuse)
    _prepare(call, errors, image, handler, handler)
    call.jpeg_CreateDecompress(byref(image), 0, 0)
    call.jpeg_destroy_decompress(byref(image))
    if len(named) != 2 or named[0] not in (62, 70, 80) or not 600 <= named[1] <= 800:
        raise _not_askable(f"it names itself {named}")
    return {"version": named[0], "struct_bytes": named[1]}


def _samples() -> list[tuple[bool, bytes]]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    body = file.getvalue()
    middle, length = len(body) // 2, len(body) // 5
    return [
        (True, body),
        (False, body[:middle] + b"\xff\xd9"),
        (False, body[:middle] + bytes(length) + body[middle + length :]),
    ]


def _not_askable(found: str) -> SettingError:
    fix = (
        "install Pillow from PyPI (its wheels for Linux bring libjpeg-turbo); or set --views.rules lenient, which "
        "takes JPEGs that are spoilt inside"
    )
    return SettingError("libjpeg", [Problem(place=str(_imaging.__file__), found=found, fix=fix)])
