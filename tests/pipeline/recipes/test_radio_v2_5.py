"""The recipe of RADIOv2.5 has the paper's own teachers, and each of them can see all of its views."""

import pytest

from pipeline.config import ViewsConfig
from pipeline.inventory.inputs import views_per_input
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.phi_s.hadamard import construction
from pipeline.recipes import recipe_of
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.views import ViewSet, teacher_tokens

FACTS = {
    # channels, summary, patch, size rule, native px, tokens at 256, 432 and 1024 px, views in one input at 256 px
    "clip": (1280, 1280, 14, "fixed", 378, (27, 27, 27), 1, "apple-ascl"),
    "siglip": (1152, 1152, 14, "fixed", 378, (27, 27, 27), 1, "apache-2.0"),
    "dinov2": (1536, 1536, 14, "fixed", 518, (37, 37, 74), 1, "apache-2.0"),
    "sam": (1280, None, 16, "canvas", 1024, (16, 27, 64), 16, "apache-2.0"),
}


def geometry(resolution: int, views: ViewsConfig) -> CanvasGeometry:
    return CanvasGeometry(resolution=resolution, patch=views.patch, margin=views.margin)


@pytest.mark.parametrize("name", FACTS)
def test_the_papers_teachers_see_all_views_of_its_recipe(name: str) -> None:
    recipe = recipe_of("radio_v2_5")
    spec, views = teacher_spec(recipe.teacher(name)), recipe.views
    sets = [*(("low", side) for side in views.low), *(("high", side) for side in views.high)]
    tokens = tuple(
        teacher_tokens(spec, ViewSet(partition=partition, resolution=side), geometry(side, views))
        for partition, side in sets
    )
    shared = views_per_input(spec, geometry(256, views))
    found = (spec.dim, spec.summary_dim, spec.patch, spec.size_rule, spec.native, tokens, shared, spec.licence)
    assert found == FACTS[name]
    assert construction(spec.dim)


def test_the_recipe_has_these_teachers_alone() -> None:
    assert [choice.name for choice in recipe_of("radio_v2_5").teachers] == list(FACTS)
