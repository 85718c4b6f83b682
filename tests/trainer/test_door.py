"""`from trainer import …`: the parts of a training loop, imported when they are used, on a cache that really exists."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format import layout
from storage_schemas.format.errors import SettingError
from storage_schemas.format.views import ViewSet
from trainer import (
    AdaptorHead,
    HeadSettings,
    Source,
    TokenMaps,
    ViewBatch,
    ViewDataset,
    collate_views,
    open_source,
    spatial_mse,
    unit_pixels,
)

TOKENS = {32: 2, 48: 3, 64: 4}


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache)


@pytest.mark.parametrize("name", trainer.__all__)
def test_a_public_name_is_what_its_module_defines_and_says_what_it_is(name: str) -> None:
    found = getattr(trainer, name)
    assert found is getattr(import_module(found.__module__), name)
    assert found.__doc__
    assert name in dir(trainer)


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(trainer.__file__).read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == {name: getattr(trainer, name).__module__ for name in trainer.__all__}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'trainer' has no attribute 'teach'"):
        trainer.teach  # noqa: B018
    with pytest.raises(ImportError):
        from trainer import teach  # type: ignore[attr-defined]  # noqa: F401


def test_the_package_and_its_help_load_no_torch() -> None:
    program = "import sys, trainer.__main__; trainer.__main__.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_a_training_loop_of_ones_own_learns_from_the_cache(source: Source) -> None:
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, 16, kernel_size=16, stride=16)  # a student of one's own: patches of 16 pixels
    head = AdaptorHead(16, source.teachers["any"].manifest.spec.dim, HeadSettings(width=32))
    token_maps, losses = TokenMaps(source, TOKENS), []
    optimiser = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-2)
    loader = DataLoader(ViewDataset(source, "low-48"), batch_size=4, shuffle=True, collate_fn=collate_views)
    for _ in range(20):
        for batch in loader:
            tokens = head(backbone(unit_pixels(batch.pixels)).permute(0, 2, 3, 1))
            loss = spatial_mse(*token_maps(tokens, batch, "any"))
            optimiser.zero_grad(), loss.backward(), optimiser.step()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) / 2


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_views_are_those_of_the_split_with_their_stored_features(full_cache: Cache, source: Source, split: str) -> None:
    low_48, views = ViewSet.parse("low-48"), ViewDataset(source, "low-48", split)  # type: ignore[arg-type]
    rows = source.sets[low_48].rows[split].tolist()  # type: ignore[index]
    stored = full_cache.array(layout.spatial_array(low_48, "any"), source.sets[low_48].features["any"].commits)
    canvases = full_cache.array(layout.pixels_array(low_48), source.sets[low_48].commits).read(rows)
    assert len(views) == len(rows) > 1
    for index, (features, canvas) in enumerate(zip(stored.read(rows), canvases, strict=True)):
        view = views[index]
        assert np.array_equal(view.targets["any"].spatial[0].numpy(), features)
        row, col = (16 * view.start[0]).tolist()
        window = canvas[row : row + 48, col : col + 48].transpose(2, 0, 1)
        assert np.array_equal(view.pixels[0].numpy(), window)
    with pytest.raises(IndexError):
        views[len(rows)]


def test_many_views_at_once_are_the_same_as_one_by_one(source: Source) -> None:
    views = ViewDataset(source, "low-48", "heldout")
    [together] = views.__getitems__([2, 0, 1])
    alone = collate_views([views[2], views[0], views[1]])
    for batch in (together, alone):
        assert batch.pixels.shape == (3, 3, 48, 48)
    pairs = zip(tensors(together), tensors(alone), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_training_views_get_new_windows_and_heldout_views_keep_theirs(source: Source) -> None:
    train, heldout = ViewDataset(source, "low-48"), ViewDataset(source, "low-48", "heldout")
    torch.manual_seed(3)
    first = [train[0] for _ in range(40)]
    assert {tuple(view.start[0].tolist()) for view in first} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len({view.uniforms.sum().item() for view in first}) == 40
    torch.manual_seed(3)
    assert all(torch.equal(train[0].uniforms, view.uniforms) for view in first)
    kept = [heldout[0] for _ in range(10)]
    assert len({view.uniforms.sum().item() for view in kept}) == 1


def test_reading_processes_read_the_same_views(source: Source) -> None:
    views = ViewDataset(source, "low-48", "heldout")
    alone = DataLoader(views, batch_size=2, collate_fn=collate_views)
    shared = DataLoader(
        views, batch_size=2, collate_fn=collate_views, num_workers=1, multiprocessing_context="forkserver"
    )
    for first, second in zip(alone, shared, strict=True):
        assert all(torch.equal(*pair) for pair in zip(tensors(first), tensors(second), strict=True))


def test_a_view_set_that_the_source_lacks_is_refused_with_those_that_it_has(source: Source) -> None:
    with pytest.raises(SettingError, match=r"low-99: is not in this source \(choose one of high-64, low-32, low-48\)"):
        ViewDataset(source, "low-99")


def test_token_maps_need_the_students_tokens_at_every_resolution(source: Source) -> None:
    with pytest.raises(SettingError, match="64 px: has no number of tokens"):
        TokenMaps(source, {32: 2, 48: 3})


def test_views_of_two_sets_are_never_one_batch(source: Source) -> None:
    views = [ViewDataset(source, name)[0] for name in ("low-32", "low-48")]
    with pytest.raises(SettingError, match="low-32, low-48: cannot be one batch"):
        collate_views(views)


def tensors(batch: ViewBatch) -> list[torch.Tensor]:
    found = [batch.pixels, batch.start, batch.uniforms]
    for target in batch.targets.values():
        found += [target.spatial, target.start, *([] if target.summary is None else [target.summary])]
    return found
