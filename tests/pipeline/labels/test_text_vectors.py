"""Text vectors: what transformers' own text model gives, averaged over sentences; and what is refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from transformers import GemmaTokenizer, SiglipConfig, SiglipModel

from pipeline.__main__ import main
from teachers.library import library_model

WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"▁.0123456789abcdefghijklmnopqrstuvwxyz"]
PLAIN = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**PLAIN, "vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": 1, "projection_size": 32}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SigLIP with a tokenizer that keeps capitals, and pads at the start when it is not told otherwise."""
    folder = tmp_path_factory.mktemp("siglip")
    config = SiglipConfig(text_config=TEXT, vision_config={**PLAIN, "image_size": 32, "patch_size": 16})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SiglipModel(config).eval().save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[], add_bos_token=False, add_eos_token=False)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return folder


@pytest.fixture
def write(tower: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the command with some files beside it; returns its status."""

    def run(*more: str, folder: Path = tower, **files: str) -> int:
        arguments = ["--tower", str(folder), "--teacher", f"hf:{tower}", "--to", str(tmp_path / "out.safetensors")]
        for name, text in files.items():
            (tmp_path / name).write_text(text)
            arguments += [f"--{name}", str(tmp_path / name)]
        try:
            return main(["text-vectors", *arguments, *more])
        finally:
            library_model.cache_clear()

    return run


def written(tmp_path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The vectors in the file, and what it says of them."""
    with safetensors.safe_open(tmp_path / "out.safetensors", "np") as file:
        return file.get_tensor("vectors"), json.loads(file.metadata()["stillhouse"])


def expected(tower: Path, sentences: Sequence[str]) -> np.ndarray:
    """The vector of each sentence by transformers alone, at length 1; characters are tokens."""
    padded = [[WORDS.index(sign) for sign in text.lower().replace(" ", "▁")][:64] for text in sentences]
    ids = torch.tensor([[*text, *[0] * (64 - len(text))] for text in padded])
    with torch.no_grad():
        output = SiglipModel.from_pretrained(tower).eval().get_text_features(input_ids=ids)
    pooled = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(pooled.double()).numpy()


def test_a_class_gets_the_mean_of_its_sentences_at_length_1(
    tower: Path, write: Callable[..., int], tmp_path: Path
) -> None:
    assert write(classes="Cat\na big dog\n" + "x" * 70, templates="A picture of {}.\n{} drawn\n") == 0
    vectors, about = written(tmp_path)
    names = ["Cat", "a big dog", "x" * 70]
    of_pictures, drawn = (expected(tower, [text.replace("{}", name) for name in names]) for text in about["templates"])
    mean = (of_pictures + drawn) / 2
    assert vectors.dtype == np.float32
    assert np.abs(vectors - mean / np.linalg.norm(mean, axis=1, keepdims=True)).max() < 1e-6
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert (about["names"], about["keys"], len(about["weights_sha256"])) == (names, [], 64)
    assert about["model"] == f"SiglipVisionModel of {tower.name}"


def test_without_templates_a_class_is_in_the_documented_sentence(
    tower: Path, write: Callable[..., int], tmp_path: Path
) -> None:
    assert write(classes="n01\tcat\nn02\tdog\n") == 0
    vectors, about = written(tmp_path)
    assert about["names"] == ["cat", "dog"]
    wanted = expected(tower, ["This is a photo of cat.", "This is a photo of dog."])
    assert np.abs(vectors - wanted).max() < 1e-6


def test_captions_are_whole_sentences_and_an_image_may_have_several(
    tower: Path, write: Callable[..., int], tmp_path: Path
) -> None:
    assert write(captions='key,caption\na.jpg,a cat\na.jpg,"dogs"\nb.jpg,birds\n') == 0
    vectors, about = written(tmp_path)
    assert (about["names"], about["keys"]) == (["a cat", "dogs", "birds"], ["a.jpg", "a.jpg", "b.jpg"])
    assert np.abs(vectors - expected(tower, ["a cat", "dogs", "birds"])).max() < 1e-6


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "--classes, --captions: neither is given"),
        ({"classes": "a", "captions": "b"}, "--classes, --captions: both are given"),
        ({"classes": "\n"}, "has no text"),
        ({"classes": "a\nb\na\n"}, "names classes twice: a"),
        ({"classes": "a", "templates": "of {}\nof\n"}, "'of' does not have {} once"),
        ({"captions": "key,caption\n", "templates": "{}"}, "captions are whole sentences"),
        ({"captions": "key,text\n"}, "its first row is not key,caption"),
        ({"captions": "key,caption\na.jpg,\n"}, "row 2 is not a key and a caption"),
        ({"captions": "key,caption\n"}, "has no text"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(
    files: dict[str, str], message: str, write: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(**files) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_a_tower_of_another_model_is_refused(write: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert write("--teacher", "siglip2-g-384", classes="cat") == 2
    assert "gives vectors of 32, and the summary of siglip2-g-384 has 1536" in capsys.readouterr().err


def test_weights_that_are_not_whole_are_refused(
    tower: Path, write: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tower.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tower / "model.safetensors")
    del tensors["text_model.head.bias"]
    tensors["text_model.head.weight"] = tensors["text_model.head.weight"][:8].clone()
    tensors["text_model.final_layer_norm.bias"][0] = torch.nan
    save_file(tensors, copy / "model.safetensors")
    assert write(folder=copy, classes="cat") == 2
    said = capsys.readouterr().err
    assert "text_model.head.bias: missing" in said
    assert "text_model.head.weight: shape (8, 32), expected (32, 32)" in said
    assert "text_model.final_layer_norm.bias: NaN or infinity" in said
    (copy / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert write(folder=copy, classes="cat") == 2
    assert "model_type is 'vit' (give a folder of siglip or siglip2)" in capsys.readouterr().err
    assert write(folder=tmp_path / "none", classes="cat") == 2
    assert "there is no such folder" in capsys.readouterr().err
