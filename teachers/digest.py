"""The digest of a set of weights, which does not depend on the file that they came from."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of named tensors, in the order of their names.

    Each tensor adds a line of JSON with its name, dtype and shape, then its bytes, row-major and little-endian. The
    names are the network's, so files in different layouts that load into the same numbers have the same digest.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(header).encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
