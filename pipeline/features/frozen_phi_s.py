"""Freezing PHI-S: fitted once for a teacher, stored with what it was fitted on, never fitted again."""

import numpy as np

from pipeline.phi_s.fit import fit_phi_s
from pipeline.phi_s.moments import Moments
from storage_schemas.cache import Cache, phi_s_digest
from storage_schemas.format.identity import Identity, require_same
from storage_schemas.format.phi_s import PhiS
from storage_schemas.objects.publish import publish_group, require_claim
from storage_schemas.small_arrays import write_small_arrays

ANOTHER_TEACHER = "use the settings that made these features, or give this teacher another name"


def require_same_teacher(teacher: str, stored: Identity, current: Identity) -> None:
    """Refuse to mix what two teachers said.

    Raises:
        IdentityError: the cache holds, under this name, what was computed from something else.
    """
    require_same(f"teacher {teacher}", stored, current, ANOTHER_TEACHER)


def frozen_phi_s(cache: Cache, teacher: str, identity: Identity) -> PhiS | None:
    """Return a teacher's map, or None when it was not fitted yet.

    Args:
        cache: where it is.
        teacher: its name.
        identity: what it must have been fitted on.

    Raises:
        IdentityError: it was fitted on something else.
        MissingError: it is gone, and features were stored under it.
    """
    group = f"teachers/{teacher}/phi_s"
    attributes = cache.attributes(group)
    if attributes is not None:
        require_same_teacher(teacher, attributes["identity"], identity)
        return cache.phi_s(teacher)
    if cache.teacher_manifest(teacher) is not None:
        return cache.require_phi_s(teacher)[0]  # refuses: the features mean nothing without it
    return None


def freeze_phi_s(cache: Cache, teacher: str, identity: Identity, moments: Moments) -> PhiS:
    """Fit a teacher's map and store it. Its attributes come last: until they are there, nothing is frozen.

    Args:
        cache: where it goes.
        teacher: its name.
        identity: what it is fitted on.
        moments: of the calibration sample, in raw units.
    """
    phi_s, group = fit_phi_s(moments), f"teachers/{teacher}/phi_s"
    arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
    require_claim(cache.store)
    write_small_arrays(cache.store, group, arrays)
    attributes = {"sha256": phi_s_digest(phi_s), "identity": identity, "tokens": moments.count}
    publish_group(cache.store, group, attributes)
    return phi_s
