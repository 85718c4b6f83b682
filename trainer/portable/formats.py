"""Every format by name.

To add one: a module with a function that writes it, its entry here, and its name in `Format` with a line of help
(trainer/portable/options.py).
"""

from collections.abc import Mapping

from trainer.portable.huggingface_folder import TOLERANCE, write_huggingface
from trainer.portable.onnx_graph import write_onnx
from trainer.portable.options import Format
from trainer.portable.portable_format import PortableFormat
from trainer.portable.radio_model import TOLERANCE as RADIO_TOLERANCE
from trainer.portable.radio_model import write_radio
from trainer.portable.sam3_trunk import TOKENS, write_sam3
from trainer.portable.timm_weights import write_timm
from trainer.portable.torch_program import write_torch

FORMATS: Mapping[Format, PortableFormat] = {
    "timm": PortableFormat(made="backbone.safetensors", write=write_timm),
    "radio": PortableFormat(made="radio", write=write_radio, last="config.json", tolerance=RADIO_TOLERANCE),
    "torch": PortableFormat(made="student.pt2", write=write_torch, is_traced=True, has_blocks=True),
    "onnx": PortableFormat(made="student.onnx", write=write_onnx, is_traced=True, has_blocks=True),
    "sam3": PortableFormat(made="sam3", write=write_sam3, last="trunk.json", is_traced=True, tokens=TOKENS),
    "huggingface": PortableFormat(made="huggingface", write=write_huggingface, last="config.json", tolerance=TOLERANCE),
}
"""Format → what it writes, and how."""
