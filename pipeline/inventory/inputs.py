"""How views fill a teacher's inputs: the side of an input, views per input, and inputs per view."""

from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, detail_side


def input_side(spec: TeacherSpec, geometry: CanvasGeometry) -> int:
    """Return the side of a teacher's input (pixels) for views of this canvas."""
    return geometry.resolution if spec.size_rule == "any" else spec.native


def views_per_input(spec: TeacherSpec, geometry: CanvasGeometry) -> int:
    """Return how many views share one input: k² in a mosaic."""
    return mosaic_layout(spec, geometry).capacity if spec.size_rule == "canvas" else 1


def inputs_per_view(spec: TeacherSpec, view_set: ViewSet) -> int:
    """Return how many inputs one view needs: for a tiled teacher its tiles and the whole window, else 1."""
    tiles = detail_side(spec, view_set) // spec.native if spec.size_rule == "fixed" else 1
    return tiles**2 + 1 if tiles > 1 else 1


def mosaic_layout(spec: TeacherSpec, geometry: CanvasGeometry) -> MosaicLayout:
    """Return how windows of this canvas share a canvas teacher's input: a token of the teacher for each patch."""
    return MosaicLayout(canvas_tokens=spec.native_tokens, window_tokens=geometry.span)
