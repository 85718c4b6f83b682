"""Reading a tiny cache by every command that reads, and checking what it says against the model."""

import numpy as np
import pytest
import zarr
from array_rows import Place, read, value_of
from cache_model import PARTIAL, CacheModel
from commands import require_about_damage
from damage import Damage, names
from tiny_caches import LOCAL, TEACHERS, TinyCache

from pipeline.inspect.cache import inspect_cache
from pipeline.verify.leftovers import Leftover, delete, find_leftovers, spent_details
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.verify.verdict import Verdict
from storage_schemas.format.errors import AbstractStillhouseError, MissingError


def verified(tiny: TinyCache) -> Verdict:
    """Return the verdict of `verify`."""
    return verify_cache(tiny.cache, VerifyOptions(run=LOCAL, independent=1))


def check_verify(tiny: TinyCache, model: CacheModel) -> None:
    """Check that `verify` names everything damaged and nothing else, and lists what is unfinished."""
    if all(name.endswith(PARTIAL) for name in model.sound):  # a run was killed while it wrote its very first object
        with pytest.raises(MissingError):
            verified(tiny)
        return
    verdict, damage = verified(tiny), Damage(model=model, tiny=tiny)
    texts = [str(problem) for problem in verdict.problems]
    for name in model.claimed() & model.damage.keys():
        assert any(names(text, name, tiny) for text in texts) or damage.excuses(name), (name, texts)
    odd = [text for text in texts if not any(damage.explains(text, name) for name in model.damage)]
    assert not odd, odd
    if not model.damage:
        assert {(facts.unit, facts.done, facts.of) for facts in verdict.unfinished} == model.unfinished()


def check_inspect(tiny: TinyCache, model: CacheModel) -> None:
    """Check that `inspect` counts what is committed."""
    try:
        facts = inspect_cache(tiny.cache)
    except AbstractStillhouseError as error:
        return require_about_damage(tiny, model, str(error))
    if not model.damage and model.history:
        there = {
            (f"views/{view_set.name}", view_set.shards - view_set.committed, view_set.shards)
            for view_set in facts.view_sets
        }
        assert there == {unit for unit in model.view_units() if "/detail/" not in unit[0]}
        assert facts.generations == len(model.history)
    return None


def check_gc(tiny: TinyCache, model: CacheModel, *, details: bool, deletes: bool) -> str:
    """Check that `gc` finds leftovers, and details that are no longer needed where asked, but nothing committed.

    Returns:
        What came of it.
    """
    try:
        spent = _spent(tiny, model) if details and model.history else []
        found = find_leftovers(tiny.cache)
    except AbstractStillhouseError as error:
        require_about_damage(tiny, model, str(error))
        return "gc refused for damage"
    gone, left = {leftover.name for leftover in spent}, {leftover.name for leftover in found}
    assert not left & model.declared(), left & model.declared()
    assert model.leftovers() - model.damage.keys() <= left | gone, model.leftovers() - left
    if not deletes:
        return "gc"
    delete(tiny.cache, [*spent, *found])
    model.remove(left | gone)
    return "gc --delete" if left | gone else "gc --delete of nothing"


def _spent(tiny: TinyCache, model: CacheModel) -> list[Leftover]:
    roster = sorted(model.roster)
    spent = spent_details(tiny.cache, tiny.cache.views_manifest(), [TEACHERS[name] for name in roster])
    done = "fixed" in roster and model.is_complete("fixed")
    assert {leftover.name for leftover in spent} == {name for name in model.held if done and "/detail/fixed" in name}
    return spent


def check_row(tiny: TinyCache, model: CacheModel, place: Place) -> str:
    """Check that a row is right, or that an error says why it cannot be read.

    Returns:
        What came of it.
    """
    truth = value_of(model, place)
    try:
        value = read(tiny.cache, place)
    except AbstractStillhouseError as error:
        if truth is not None or not isinstance(error, MissingError) or place.array not in str(error):
            require_about_damage(tiny, model, str(error))
            return "rows that cannot be read for damage"
        return "rows that are not there"
    assert truth is not None, place
    assert np.array_equal(value, truth), place
    assert not Damage(model=model, tiny=tiny).spoils(place), place
    return "rows"


def check_with_zarr(tiny: TinyCache, model: CacheModel, teacher: str) -> str:
    """Check that plain zarr-python reads all arrays of a complete teacher. Return the outcome."""
    if model.damage or not model.is_complete(teacher):
        return "teachers that are not complete"
    arrays = zarr.open_group(tiny.where / "features.zarr", mode="r")
    for path, (truth, _) in model.references.arrays(model.history, teacher, model.fitted[teacher]).items():
        assert arrays[path][...].tobytes() == truth.tobytes()
    return "teachers read by zarr-python"
