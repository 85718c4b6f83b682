"""The text towers of SigLIP and SigLIP2, as transformers stores them: texts in the space of their image summaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from storage_schemas.format.errors import ContractError, MissingError, Problem, first_problems
from teachers.digest import weights_digest
from teachers.weight_files import open_weights

try:
    from transformers import AutoConfig, AutoTokenizer, Siglip2TextModel, SiglipTextModel
except ImportError as error:
    fix = "pip install 'stillhouse[sam3]'"
    problem = Problem(place="transformers", found=f"text vectors need it, and it cannot be imported: {error}", fix=fix)
    raise MissingError("a package", [problem]) from error

TOWERS: Mapping[str, Any] = {"siglip": SiglipTextModel, "siglip2": Siglip2TextModel}
"""Text towers, by the `model_type` of a configuration. SigLIP2 at a fixed size has the type of SigLIP."""
PREFIX = "text_model."
"""Beginning of the names of a text tower's tensors in a checkpoint of both towers."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextTower:
    """A text tower and its tokenizer."""

    network: nn.Module
    tokenizer: Any
    length: int
    """Tokens of each text: shorter texts are padded, longer ones cut."""
    channels: int
    """Length of its vectors."""
    weights_sha256: str
    """Digest of its weights."""


def read_text_tower(folder: Path, device: str = "cpu") -> TextTower:
    """Read the text tower and the tokenizer of a folder, in float32.

    Args:
        folder: as `save_pretrained` writes it, or a copy of the repository: `config.json`, weights, the tokenizer.
        device: where it runs.

    Raises:
        MissingError: there is no such folder, or it lacks a file.
        ContractError: it is another kind of model, or its weights are not whole.
    """
    if not folder.is_dir():
        fix = "download the repository, such as google/siglip2-giant-opt-patch16-384"
        raise MissingError("text tower", [Problem(place=str(folder), found="there is no such folder", fix=fix)])
    try:
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:300]
        raise ContractError("text tower", [Problem(place=str(folder), found=text)]) from error
    if config.model_type not in TOWERS:
        found, fix = f"model_type is {config.model_type!r}", f"give a folder of {' or '.join(TOWERS)}"
        raise ContractError("text tower", [Problem(place=f"{folder}/config.json", found=found, fix=fix)])
    with torch.random.fork_rng(devices=[]):  # not on the meta device: a buffer of positions is in no file
        network = TOWERS[config.model_type](config.text_config).eval()
    tensors = _tensors(folder, network)
    network.load_state_dict(tensors, strict=True, assign=True)
    return TextTower(
        network=network.to(device),
        tokenizer=tokenizer,
        length=config.text_config.max_position_embeddings,
        channels=config.text_config.projection_size,
        weights_sha256=weights_digest(tensors),
    )


def embed_texts(tower: TextTower, texts: Sequence[str]) -> Float32[np.ndarray, "texts channels"]:
    """Return the vectors of texts, which are not of length 1.

    Texts are in lower case and padded at their end to the tower's length, as in training; the tower sees its padding.

    Source: SigLIP2 (Tschannen et al. 2025, arXiv:2502.14786, section 2.1).

    Args:
        tower: gives the vectors.
        texts: sentences, at least one.
    """
    tokens = tower.tokenizer(
        [text.lower() for text in texts],
        padding="max_length",
        padding_side="right",  # some tokenizers of SigLIP2 pad at the start when they are not told
        truncation=True,
        max_length=tower.length,
        return_tensors="pt",
    )
    device = next(tower.network.parameters()).device
    with torch.inference_mode():
        pooled = tower.network(input_ids=tokens["input_ids"].to(device)).pooler_output
    return pooled.float().cpu().numpy()


def _tensors(folder: Path, network: nn.Module) -> dict[str, torch.Tensor]:
    """Read every tensor of the network; refuse tensors that are missing, misshapen or not finite."""
    stored, wanted = open_weights(folder), network.state_dict()
    has_prefix = any(name.startswith(PREFIX) for name in stored)
    problems, tensors = [], {}
    for name, meta in wanted.items():
        source = f"{PREFIX}{name}" if has_prefix else name
        if source not in stored:
            problems.append(Problem(place=source, found="missing"))
        elif stored[source].shape != tuple(meta.shape):
            problems.append(Problem(place=source, found=f"shape {stored[source].shape}, expected {tuple(meta.shape)}"))
        else:
            tensors[name] = stored[source].read().float()
            if not tensors[name].isfinite().all():
                problems.append(Problem(place=source, found="NaN or infinity"))
    if problems:
        raise ContractError(f"text tower in {folder}", first_problems(problems, most=12))
    return tensors
