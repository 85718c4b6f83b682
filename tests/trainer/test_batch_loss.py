"""The objective: every teacher's terms, weighted; nothing for a teacher that has not seen the set."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from storage_schemas.cache import Cache
from storage_schemas.format.views import ViewSet
from trainer.data.batch import ViewBatch, unit_pixels
from trainer.data.dataset import CachedBatches, heldout_requests
from trainer.data.source import Source, open_source
from trainer.evaluation.evaluate import Scores, observe, score
from trainer.objective.batch_loss import batch_loss
from trainer.objective.losses import balanced_angle, cosine_distance, spatial_cosine, spatial_mse
from trainer.objective.token_maps import TokenMaps
from trainer.run.fit import build_model
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import LossSettings
from trainer.student.model import DistilledModel, ModelOutput

DISPERSIONS = {"any": 0.25, "fixed": 0.5}
Seen = tuple[DistilledModel, TokenMaps, ViewBatch, ModelOutput]


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache)


def heldout(source: Source) -> list[list[ViewBatch]]:
    requests = list(heldout_requests(source, {"low": 4, "high": 4}, seed=0))
    return [CachedBatches(source=source)[(request,)] for request in requests]


@pytest.fixture
def seen(
    source: Source, recipe_of: Callable[..., TrainRecipe]
) -> tuple[DistilledModel, TokenMaps, ViewBatch, ModelOutput]:
    model, shape = build_model(recipe_of(), source)
    [batch] = heldout(source)[0]
    with torch.no_grad():
        return model, TokenMaps(source, shape.tokens), batch, model(unit_pixels(batch.pixels), batch.targets)


def test_the_objective_is_the_weighted_sum_of_every_teachers_terms(seen: Seen) -> None:
    _, maps, batch, output = seen
    settings = LossSettings(spatial_weight=2.0, summary_weight=3.0, teacher_weights={"fixed": 0.5})
    terms = batch_loss(output, batch, maps, DISPERSIONS, settings)
    expected, parts = 0.0, {}
    for name, factor in (("any", 1.0), ("canvas", 1.0), ("fixed", 0.5)):
        parts[f"{name}/spatial"] = float(spatial_mse(*maps(output.spatial[name], batch, name)))
        expected += factor * 2 * parts[f"{name}/spatial"]
        if name != "canvas":
            angle = balanced_angle(output.summary[name], batch.targets[name].summary, DISPERSIONS[name])
            parts[f"{name}/summary"] = float(angle)
            expected += factor * 3 * parts[f"{name}/summary"]
    assert {name: float(part) for name, part in terms.parts.items()} == parts
    assert float(terms.total) == pytest.approx(expected, rel=1e-6)


def test_a_variance_per_view_set_gives_the_loss_of_a_map_fitted_on_that_set(seen: Seen) -> None:
    _, maps, batch, output = seen
    student, teacher, common = maps(output.spatial["any"], batch, "any")
    teacher = teacher.float()
    # PHI-S of this set alone: another mean, another rotation, and the scale that gives it variance 1
    mean, variance = teacher[common].mean(dim=0), float(teacher[common].var(dim=0, correction=0).mean())
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    own_student, own_teacher = ((tokens - mean) @ rotation / variance**0.5 for tokens in (student, teacher))
    assert float(own_teacher[common].var(dim=0, correction=0).mean()) == pytest.approx(1, rel=1e-4)
    variances = {"any": {batch.view_set: variance}, "fixed": {ViewSet.parse("low-9984"): 5.0}}
    terms = batch_loss(output, batch, maps, DISPERSIONS, LossSettings(), variances)
    plain = batch_loss(output, batch, maps, DISPERSIONS, LossSettings())
    assert float(terms.parts["any/spatial"]) == pytest.approx(
        float(spatial_mse(own_student, own_teacher, common)), rel=1e-4
    )
    assert terms.parts["fixed/spatial"] == plain.parts["fixed/spatial"]
    assert terms.parts["any/summary"] == plain.parts["any/summary"]
    moved = float(terms.parts["any/spatial"] - plain.parts["any/spatial"])
    assert float(terms.total - plain.total) == pytest.approx(moved, rel=1e-3)


def test_the_older_kinds_of_loss_are_taken_where_asked_for(seen: Seen) -> None:
    _, maps, batch, output = seen
    terms = batch_loss(output, batch, maps, DISPERSIONS, LossSettings(spatial="cosine", summary="cosine"))
    assert terms.parts["any/spatial"] == spatial_cosine(*maps(output.spatial["any"], batch, "any"))
    assert terms.parts["any/summary"] == cosine_distance(output.summary["any"], batch.targets["any"].summary)


def test_a_teacher_that_has_not_seen_the_set_has_no_term(seen: Seen) -> None:
    _, maps, batch, output = seen
    alone = replace(batch, targets={"canvas": batch.targets["canvas"]})
    terms = batch_loss(output, alone, maps, DISPERSIONS, LossSettings())
    assert set(terms.parts) == {"canvas/spatial"}
    assert terms.total == terms.parts["canvas/spatial"]


def test_a_student_that_sees_what_its_teachers_see_has_no_loss_wherever_their_windows_lie(seen: Seen) -> None:
    _, maps, batch, output = seen
    # every token of the canvas has a feature of its own; a window shows those that it covers
    fields = {
        name: torch.randn(len(batch.pixels), 5, 5, target.spatial.shape[3]) for name, target in batch.targets.items()
    }
    same = {name: target for name, target in batch.targets.items() if name != "fixed"}  # whose grid is another
    told = replace(
        batch,
        targets={name: replace(target, spatial=window(fields[name], target.start)) for name, target in same.items()},
    )
    echo = ModelOutput(
        student=output.student,
        spatial={name: window(fields[name], batch.start) for name in same},
        summary={name: target.summary for name, target in same.items() if target.summary is not None},
    )
    assert any(not torch.equal(target.start, batch.start) for target in same.values())
    assert float(batch_loss(echo, told, maps, DISPERSIONS, LossSettings()).total) == 0


def window(field: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The 4 × 4 tokens from each start of a canvas of 5 × 5."""
    views = zip(field, starts.tolist(), strict=True)
    return torch.stack([tokens[row : row + 4, col : col + 4] for tokens, (row, col) in views])


def test_scores_over_all_batches_are_those_of_one_pass_and_leave_the_model_as_it_was(
    source: Source, seen: Seen
) -> None:
    model, maps, _, _ = seen
    model.train()
    sizes = [32, 48, 64]

    def found(*shares: list[list[ViewBatch]]) -> Scores:
        return score([observe(model, maps, share, sizes) for share in shares], source.teachers, DISPERSIONS)

    both = found(heldout(source))
    together = both.teachers
    one_by_one = [CachedBatches(source=source)[(r,)] for r in heldout_requests(source, {"low": 1, "high": 1}, seed=0)]
    shared = found(one_by_one[0::2], one_by_one[1::2])  # as two processes do
    apart = shared.teachers
    assert model.training
    assert list(together) == ["any", "canvas", "fixed"]
    for name, teacher in together.items():
        assert teacher.fidelity == pytest.approx(apart[name].fidelity, rel=1e-4)
        assert list(teacher.sets) == ["high-64", "low-32", "low-48"]
        assert min(teacher.sets.values()) > 0
    assert together["canvas"].angle is None
    assert together["any"].angle == pytest.approx(apart["any"].angle, rel=1e-4)
    assert both.student.effective_rank == pytest.approx(shared.student.effective_rank, rel=1e-6)
    assert both.student.scale_variance == pytest.approx(shared.student.scale_variance, rel=1e-4)
    assert 1 < both.student.effective_rank < 64
