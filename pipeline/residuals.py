"""When stored features are too far from zero mean and unit variance, and what can be done about it."""

from collections.abc import Iterator, Sequence

from pipeline.cache_facts import ResidualFacts

TOLERANCE = 0.2
"""Residual (unitless) up to which view sets are not spoken of. A spatial loss weighs by its features' second moment, so
0.2 tilts it by about a fifth: four times what a fit on 1,000 views leaves by chance, where the tokens of a view are all
alike (√(2/1000) = 0.045 of a variance), and far below what PHI-S is there to remove: teachers that differ a
hundredfold. The papers give none."""
POOLED = "all"
"""The name that all view sets together go by."""


def residual(mean: float, deviation: float) -> float:
    """Return how far features are from zero mean and unit variance: the greater of the two norms.

    Args:
        mean: root mean square over channels of the mean (PHI-S units).
        deviation: root mean square over channels of the variance less 1 (PHI-S units squared).
    """
    return max(mean, deviation)


def residual_advice(residuals: Sequence[ResidualFacts], tolerance: float, again: str) -> Iterator[str]:
    """Say which view sets are off, and what to do; nothing where none is.

    Args:
        residuals: each set, and all of them together.
        tolerance: the residual from which on a set is off.
        again: how PHI-S is fitted again.
    """
    sets = [one for one in residuals if one.off and one.view_set != POOLED]
    pooled = next((one for one in residuals if one.off and one.view_set == POOLED), None)
    if sets:
        named = ", ".join(f"{one.view_set} ({one.residual:.3g})" for one in sets)
        yield f"OFF by more than {tolerance:g}: {named}"
    if pooled is not None:
        found = f"all view sets together are off by {pooled.residual:.3g}, more than {tolerance:g}"
        yield f"{found}: PHI-S was fitted on too few views, or on others than these; {again}"
    elif sets:
        found = "all together are not: at these resolutions the teacher speaks otherwise, and one map serves all"
        yield f"{found}; leave these sets out of training (data.proportions), or accept them (--tolerance)"
