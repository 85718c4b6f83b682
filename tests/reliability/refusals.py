"""Runs on a tiny cache that must be refused, and change nothing in it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest
from cache_model import CacheModel
from references import hashes
from tiny_caches import LOCAL, TEACHERS, TinyCache, may_grow, recipe_of

from pipeline.config import Recipe, TeacherChoice
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.views.stage import make_views
from storage_schemas.format.errors import AbstractStillhouseError, IdentityError, MissingError


@contextmanager
def refused(tiny: TinyCache, error: type[AbstractStillhouseError]) -> Iterator[None]:
    """Check that the run in the block is refused, and changes nothing."""
    before = hashes(tiny.where)
    with pytest.raises(error):
        yield
    assert hashes(tiny.where) == before


def _cut(tiny: TinyCache, recipe: Recipe, history: tuple[str, ...], *, extend: bool) -> None:
    make_views(tiny.cache, recipe, [], tiny.listed(history), LOCAL, str, extend=extend)


def another_seed(tiny: TinyCache, model: CacheModel) -> bool:
    """Views are cut by other settings."""
    if not model.history:
        return False
    with refused(tiny, IdentityError):
        _cut(tiny, recipe_of(model.history, seed=1), model.history, extend=True)
    return True


def unasked_extension(tiny: TinyCache, model: CacheModel) -> bool:
    """There are more images or draws, and `--extend` is not given."""
    if not model.history or not may_grow(model.history):
        return False
    history = (*model.history, may_grow(model.history)[0])
    with refused(tiny, IdentityError):
        _cut(tiny, recipe_of(history), history, extend=False)
    return True


def fewer_images(tiny: TinyCache, model: CacheModel) -> bool:
    """Images of the cache are missing."""
    if "images" not in model.history:
        return False
    with refused(tiny, IdentityError):
        _cut(tiny, recipe_of(model.history), (), extend=True)
    return True


def fewer_views(tiny: TinyCache, model: CacheModel) -> bool:
    """Draws and resolutions of the cache are missing in the recipe."""
    if "views" not in model.history:
        return False
    with refused(tiny, IdentityError):
        _cut(tiny, recipe_of(()), model.history, extend=True)
    return True


def _extract(tiny: TinyCache, model: CacheModel, choice: TeacherChoice) -> bool:
    """Run another teacher under the name of one in the cache."""
    ready = not any(lacking for _, lacking, _ in model.view_units())
    with refused(tiny, IdentityError if ready else AbstractStillhouseError):
        extract_teacher(plan_extraction(tiny.cache, recipe_of(model.history), choice), LOCAL, str)
    return True


def other_weights(tiny: TinyCache, model: CacheModel) -> bool:
    """A teacher of that name has other weights."""
    if not model.history or "direct" not in model.fitted:
        return False
    return _extract(tiny, model, replace(TEACHERS["direct"], source="tiny_teachers:OtherWeights"))


def other_batch(tiny: TinyCache, model: CacheModel) -> bool:
    """A teacher is run in other batches."""
    if not model.history or "canvas" not in model.fitted:
        return False
    return _extract(tiny, model, replace(TEACHERS["canvas"], batch=3))


def other_encoding(tiny: TinyCache, model: CacheModel) -> bool:
    """Features are to be stored in another encoding."""
    if not model.history or not model.is_declared("direct"):
        return False
    return _extract(tiny, model, replace(TEACHERS["direct"], encoding="float32"))


def measuring_too_early(tiny: TinyCache, model: CacheModel) -> bool:
    """A teacher's features are measured before they are complete."""
    early = [name for name in TEACHERS if not model.is_complete(name)]
    if not early:
        return False
    with refused(tiny, MissingError):
        tiny.measure(early[0])
    return True


REFUSALS: Mapping[str, Callable[[TinyCache, CacheModel], bool]] = {
    refusal.__name__: refusal
    for refusal in (
        another_seed,
        unasked_extension,
        fewer_images,
        fewer_views,
        other_weights,
        other_batch,
        other_encoding,
        measuring_too_early,
    )
}
"""Each says whether there was anything to refuse."""
