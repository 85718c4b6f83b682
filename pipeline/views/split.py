"""How views are divided between training and evaluation, and what to say where one side has none."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.config import ViewsConfig
from pipeline.views.order import DrawnView
from storage_schemas.format.errors import first_few
from storage_schemas.format.views import ViewSet


def counts_of(views: Mapping[ViewSet, Sequence[DrawnView]]) -> dict[ViewSet, tuple[int, int]]:
    """Return how many views of each set are for training, and how many are held out."""
    training = {view_set: sum(view.split == "train" for view in drawn) for view_set, drawn in views.items()}
    return {view_set: (training[view_set], len(drawn) - training[view_set]) for view_set, drawn in views.items()}


def split_lines(counts: Mapping[ViewSet, tuple[int, int]], config: ViewsConfig) -> Iterator[str]:
    """Say where a split has no view. The split cannot be changed once views are cut, and everything after it is paid.

    Evaluation views have no split, so nothing is said of them.

    Args:
        counts: training and held-out views of each set.
        config: the recipe's settings of views.
    """
    if config.placing != "drawn":
        return
    training, kept_back = (sum(count[side] for count in counts.values()) for side in (0, 1))
    setting, later = f"--views.heldout is {config.heldout:g}", "the setting cannot be changed once views are cut"
    if not training:
        yield f"NO VIEW IS TRAINED ON: {setting}, and every image is held out. Lower it now: {later}"
    elif not kept_back:
        yield f"NO VIEW IS HELD OUT: {setting}, so no student can be scored. Raise it or add images now: {later}"
    elif lacking := [view_set.name for view_set, (_, count) in sorted(counts.items()) if not count]:
        yield f"no view is held out of {', '.join(first_few(lacking))}: students are not scored at these resolutions"
