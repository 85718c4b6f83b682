"""What the cache says of itself comes back from JSON equal, and a damaged or foreign manifest is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
from identities import features_identity, views_identity

from storage_schemas.format.computed_by import ComputedBy
from storage_schemas.format.errors import ContractError, CorruptionError
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.identity import digest
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import Generation, TeacherManifest, ViewSetManifest, ViewsManifest
from storage_schemas.format.seal import sealed, unsealed
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet

LOW, HIGH = ViewSet(partition="low", resolution=256), ViewSet(partition="high", resolution=1152)
VIEWS = ViewsManifest(
    identity=views_identity("demo", views={"low": {"256": 1.0}}),
    sets={
        LOW: ViewSetManifest(
            grid=ShardGrid(counts=(100, 20), rows_per_shard=16),
            geometry=CanvasGeometry(resolution=256, patch=16, margin=2),
        ),
        HIGH: ViewSetManifest(
            grid=ShardGrid(counts=(0, 7), rows_per_shard=3),
            geometry=CanvasGeometry(resolution=1152, patch=16, margin=0),
        ),
    },
    extensions=(
        Generation(views={"low": {"256": 1.0}, "high": {"1152": 1.0}}, images={"count": 3, "keys_sha256": "0" * 64}),
    ),
)
SPEC = TeacherSpec(
    name="t",
    model="tiny",
    dim=12,
    summary_dim=None,
    patch=14,
    size_rule="canvas",
    native=1008,
    mean=(0.5, 0.25, 0.125),
    std=(1.0, 1.0, 1.0),
)
TEACHER = TeacherManifest(
    spec=SPEC,
    identity=features_identity(SPEC, VIEWS.digest),
    tokens={LOW: 16, HIGH: 72},
    computed_by=(ComputedBy(code={"mine": "ab"}, libraries={"torch": "2.0"}),),
)
Manifest = ViewsManifest | TeacherManifest
every_manifest = pytest.mark.parametrize("manifest", [VIEWS, TEACHER], ids=["views", "teacher"])


def stored(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest's attributes as they come back from `zarr.json`."""
    return json.loads(json.dumps(manifest.attributes()))


@every_manifest
def test_a_manifest_comes_back_from_json_equal_and_in_order(manifest: Manifest) -> None:
    assert type(manifest).from_attributes(stored(manifest)) == manifest
    assert list(ViewsManifest.from_attributes(stored(VIEWS)).sets) == [LOW, HIGH]


def test_an_identity_with_numbers_for_names_keeps_its_digest() -> None:
    numbered = replace(VIEWS, identity=views_identity("demo", low={2: 0.5, 10: 0.5, 128: 1.0}))
    assert ViewsManifest.from_attributes(stored(numbered)).digest == numbered.digest


@every_manifest
def test_the_digest_is_that_of_the_identity_alone(manifest: Manifest) -> None:
    assert manifest.digest == digest(manifest.identity)


def test_an_extension_leaves_the_digest_as_it_is() -> None:
    assert VIEWS.digest == replace(VIEWS, extensions=()).digest
    assert [generation.images["count"] for generation in VIEWS.generations] == [0, 3]


def test_views_of_other_generations_than_there_are_are_refused_though_they_are_sealed() -> None:
    with pytest.raises(ContractError) as refusal:
        ViewsManifest.from_attributes(stored(replace(VIEWS, extensions=())))
    assert str(refusal.value) == (
        "manifest of views breaks the storage contract:\n  low-256: has views of 2 generations, there are 1"
    )


def damaged(value: Any) -> list[Any]:
    """Return every JSON tree that differs from `value` in one leaf or one name."""
    if isinstance(value, dict):
        inside = [value | {name: other} for name, inner in value.items() for other in damaged(inner)]
        renamed = [{(key + "x" if key == name else key): held for key, held in value.items()} for name in value]
        return inside + renamed
    if isinstance(value, list):
        return [[*value[:i], other, *value[i + 1 :]] for i, inner in enumerate(value) for other in damaged(inner)]
    return [value + 1 if isinstance(value, int | float) else f"{value}0"]


@every_manifest
def test_a_sealed_manifest_with_any_one_value_damaged_is_refused(manifest: Manifest) -> None:
    whole = json.loads(json.dumps(sealed(manifest.attributes())))
    assert unsealed(whole, "here") == stored(manifest)
    trees = damaged(whole)
    assert len(trees) > 20
    for tree in trees:
        with pytest.raises(CorruptionError) as refusal:
            unsealed(tree, "here")
        assert str(refusal.value) == "attributes is damaged:\n  here: their seal does not match their values"


@every_manifest
def test_fields_that_are_missing_or_unknown_are_named(manifest: Manifest) -> None:
    attributes = stored(manifest) | {"zoom": 1}
    del attributes["identity"]
    with pytest.raises(ContractError) as refusal:
        type(manifest).from_attributes(attributes)
    assert str(refusal.value).endswith(
        "attributes: lacks identity and has unknown zoom (another version of Stillhouse wrote it: use that version)"
    )


def test_a_view_set_of_another_version_is_refused() -> None:
    values = stored(VIEWS)
    values["sets"]["low-256"]["zoom"] = 1
    with pytest.raises(ContractError) as refusal:
        ViewsManifest.from_attributes(values)
    assert str(refusal.value) == (
        "manifest of views breaks the storage contract:\n  attributes.sets.low-256: has the unknown field 'zoom'\n"
        "  what to do: another program or version wrote it, or somebody changed it: use a copy that Stillhouse wrote"
    )
