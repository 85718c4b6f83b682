"""Changes of the code and the libraries that compute a teacher's features: refused until the user accepts them."""

from collections.abc import Sequence

from pipeline.features.extraction import Extraction
from pipeline.workers.progress import Say
from storage_schemas.format.computed_by import NOT_RECORDED, ComputedBy, history_of
from storage_schemas.format.errors import IdentityError, Problem
from storage_schemas.format.identity import differences
from storage_schemas.format.teacher import TeacherSpec

History = tuple[ComputedBy, ...]
"""Versions of the code and the libraries, oldest first. The user accepted every change."""


def recorded(extraction: Extraction, spec: TeacherSpec) -> History:
    """Return what the cache records of a map: in its manifest, or with its PHI-S before there is a manifest.

    Returns:
        No version where nothing of this map is stored; `NOT_RECORDED` where an earlier version of Stillhouse stored it.
    """
    manifest = extraction.stored.manifests.get(spec.name)
    if manifest is not None:
        return manifest.computed_by or (NOT_RECORDED,)
    frozen = extraction.cache.attributes(f"teachers/{spec.name}/phi_s")
    return () if frozen is None else history_of(frozen) or (NOT_RECORDED,)


def continued(name: str, history: History, found: ComputedBy, accepted: str, say: Say) -> History:
    """Return the history with this run's version at its end, where the version is new and may be added.

    Args:
        name: of the map.
        history: what the cache records.
        found: this run's version.
        accepted: digest of the change that the user accepts; empty for none.
        say: takes lines for the user.

    Raises:
        IdentityError: the code or the libraries have changed, and the user has not accepted this change.
    """
    if found in history:
        return history
    if history and history[-1] == NOT_RECORDED:
        say(f"extract {name}: {_UNKNOWN}; from now on the cache records them, and a change is refused")
    elif history and accepted != found.digest:
        raise _changed(name, history, found)
    elif history:
        say(f"extract {name}: change {found.digest} of the code or the libraries is accepted, and recorded")
    return *history, found


def require_unchanged(name: str, history: Sequence[ComputedBy], found: ComputedBy, say: Say) -> None:
    """Compare complete features with what would compute them now. Nothing is added, so other libraries are only said.

    Raises:
        IdentityError: the user's own code has changed: these are not the features of the teacher that was asked for.
    """
    if found in history:
        return
    if not history or history[-1] == NOT_RECORDED:
        say(f"extract {name}: {_UNKNOWN}")
    elif any(version.code == found.code for version in history):
        changes = ", ".join(f"{change.place} ({change.found})" for change in _changes(history, found))
        say(f"extract {name}: computed with other libraries than this run's: {changes}")
    else:
        raise _changed(name, history, found)


_UNKNOWN = "this cache does not record which code and which libraries computed its features"


def _changes(history: Sequence[ComputedBy], found: ComputedBy) -> list[Problem]:
    return differences(history[-1].attributes(), found.attributes())


def _changed(name: str, history: Sequence[ComputedBy], found: ComputedBy) -> IdentityError:
    fix = (
        "use the code and the libraries that made these features, or give this teacher another name. If you know that "
        f"both compute the same features, accept the change with --run.accept-change {found.digest}"
    )
    return IdentityError(f"teacher {name}", [*_changes(history, found), Problem(place="what to do", found=fix)])
