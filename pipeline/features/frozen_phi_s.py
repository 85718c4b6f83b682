"""Freezing PHI-S: its map is fitted once for a teacher, stored with what it was fitted on, and never fitted again."""

import numpy as np

from pipeline.phi_s.fit import fit_phi_s
from pipeline.phi_s.latents import latents_of_raw
from pipeline.phi_s.moments import Moments
from storage_schemas.cache import Cache
from storage_schemas.format.computed_by import ComputedBy, computed_by_attributes
from storage_schemas.format.identity import Identity, require_same
from storage_schemas.format.phi_s import PhiS, phi_s_digest
from storage_schemas.objects.publish import publish_group, require_claim
from storage_schemas.read_latents import write_latents
from storage_schemas.small_arrays import write_small_arrays

ANOTHER_TEACHER = "use the settings that made these features, or give this teacher another name"


def require_same_teacher(teacher: str, stored: Identity, current: Identity) -> None:
    """Refuse to mix the features of two teachers.

    Raises:
        IdentityError: what the cache holds under this name was computed from something else.
    """
    require_same(f"teacher {teacher}", stored, current, ANOTHER_TEACHER)


def read_frozen_phi_s(cache: Cache, teacher: str, identity: Identity, *, has_features: bool) -> PhiS | None:
    """Return a teacher's frozen map, or None before it was fitted.

    Args:
        cache: where it is stored.
        teacher: the teacher's name.
        identity: what it must have been fitted on.
        has_features: whether the cache declares features of this teacher: they were stored in units of the map.

    Raises:
        IdentityError: it was fitted on something else.
        MissingError: it is missing, though there are features.
    """
    group = f"teachers/{teacher}/phi_s"
    attributes = cache.attributes(group)
    if attributes is not None:
        require_same_teacher(teacher, attributes["identity"], identity)
        return cache.phi_s_of(teacher, attributes)
    if has_features:
        return cache.require_phi_s(teacher)[0]  # which refuses: features mean nothing without it
    return None


def freeze_phi_s(
    cache: Cache,
    teacher: str,
    identity: Identity,
    moments: Moments,
    history: tuple[ComputedBy, ...],
    fidelity: float | None = None,
) -> PhiS:
    """Fit a teacher's map and store it. The group's attributes are written last: without them, nothing is frozen.

    Latents, where features are stored in some, are chosen from the same sample, and written before.

    Args:
        cache: where it goes.
        teacher: the teacher's name.
        identity: what it is fitted on.
        moments: of the calibration sample, in raw units.
        history: versions of the code and the libraries that computed the sample.
        fidelity: of the latents that features are stored in; None where they are stored in none.
    """
    phi_s, group = fit_phi_s(moments), f"teachers/{teacher}/phi_s"
    arrays = {"mean": phi_s.mean, "rotation": phi_s.rotation, "scale": np.array(phi_s.scale)}
    require_claim(cache.store)
    write_small_arrays(cache.store, group, arrays)
    if fidelity is not None:
        write_latents(cache.store, teacher, latents_of_raw(moments, phi_s, fidelity), fidelity)
    attributes = {"sha256": phi_s_digest(phi_s), "identity": identity, "tokens": moments.count}
    publish_group(cache.store, group, attributes | computed_by_attributes(history))
    return phi_s
