"""Latents: features stored along the principal axes of their covariance, in one byte each, the least of them left out.

PHI-S rotates the principal axes into channels of equal variance: in PHI-S units x = H z, where H is a Hadamard matrix
over √C, and the latent z_k has the variance λ_k. In the basis of the latents one step for all of them is the best
choice for a given error (reverse water-filling), and a latent takes bits by its own variance.

    stored:   e, then q_k = round(z_k / (step_k 2^e)), all int8, one e for each token
    read:     x = Σ_k q_k 2^e steps_k basis_k

`basis` holds the signs of the rows of H of the kept latents, `steps` their step over √C. A latent whose standard
deviation is below the error of rounding, step / √12, is left out. A latent of large variance has a step that is a power
of two coarser, so that a byte holds `REACH` of its standard deviations. A token that does not fit all the same takes
the smallest e > 0 that makes it fit: nothing is ever saturated.

Source: Cover and Thomas 2006, "Elements of Information Theory", section 10.3.3; thresholds by measurement, see
docs/storage.md.
"""

import hashlib
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int8

from storage_schemas.format.errors import ContractError, Problem

LARGEST = 127
"""The largest stored number; −128 is the fill value."""
REACH = 8.0
"""Standard deviations of a latent that a byte holds."""
LEAST_DEVIATION = 12**-0.5
"""Standard deviation, in steps, below which a latent is left out: the error of rounding. A higher bound is smaller on
steep spectra, but samples tell small variances worst, and too low: what is left out would be more than was thought."""
MOST_FIDELITY = 700.0
"""The largest fidelity that latents of any spectrum can have: (127 / REACH)² · 12 / 4, less the margin. Where one
latent has nearly all of the variance, its step is what a byte allows, up to a factor of 2."""
MARGIN = 1.03
"""By how much more than the fidelity asked for the steps are made: tokens are finite in number, and not Gaussian."""
_GRID = np.linspace(-6, 6, 2001)
"""Numbers over which a Gaussian of unit variance is integrated."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latents:
    """The latents of a teacher that are stored, and their steps."""

    basis: Int8[np.ndarray, "kept channels"]
    """1 and −1: the sign with which each channel in PHI-S units holds each latent. Rows are orthogonal."""
    steps: Float64[np.ndarray, " kept"]
    """What a stored 1 of each latent adds to a channel, but for the sign (PHI-S units)."""

    def __post_init__(self) -> None:
        problems = []
        if self.basis.ndim != 2 or self.basis.dtype != np.int8 or not (np.abs(self.basis) == 1).all():
            problems.append(Problem(place="basis", found="is not a matrix of 1 and −1 in int8"))
        elif self.steps.shape != self.basis.shape[:1] or not 0 < len(self.basis) <= self.basis.shape[1]:
            problems.append(Problem(place="steps", found=f"{self.steps.shape} do not fit a basis {self.basis.shape}"))
        if not (np.isfinite(self.steps).all() and (self.steps > 0).all()):
            problems.append(Problem(place="steps", found="are not all positive and finite"))
        if problems:
            raise ContractError("latents", problems)

    @property
    def channels(self) -> int:
        """Channels in PHI-S units."""
        return self.basis.shape[1]

    @property
    def kept(self) -> int:
        """Latents that are stored."""
        return len(self.steps)

    @property
    def analysis(self) -> Float64[np.ndarray, "channels kept"]:
        """A with z = x A, for row vectors x in PHI-S units: latents in steps."""
        return self.basis.T / (self.channels * self.steps)

    @property
    def synthesis(self) -> Float32[np.ndarray, "kept channels"]:
        """S with x = z S, for row vectors z of latents in steps: PHI-S units."""
        return (self.steps[:, None] * self.basis).astype(np.float32)


def latents_digest(latents: Latents) -> str:
    """Return the SHA-256 (hexadecimal) of the bytes of the basis, then of the float64 steps."""
    return hashlib.sha256(latents.basis.tobytes() + np.asarray(latents.steps, dtype="<f8").tobytes()).hexdigest()


def to_latents(numbers: Float[np.ndarray, "*tokens channels"], latents: Latents) -> Int8[np.ndarray, "*tokens stored"]:
    """Return features as they are stored: for each token its exponent, then its latents.

    Args:
        numbers: PHI-S units, channels last.
        latents: which latents are kept, and their steps.
    """
    return rounded_latents(numbers.astype(np.float32) @ latents.analysis.astype(np.float32))


def rounded_latents(in_steps: Float32[np.ndarray, "*tokens kept"]) -> Int8[np.ndarray, "*tokens stored"]:
    """Round latents to whole steps, after the exponent of each token.

    The exponent e is the smallest from 0 on for which |z| / 2^e < 127.5: then all round to at most 127.

    Args:
        in_steps: latents in steps.
    """
    largest = np.abs(in_steps).max(axis=-1, keepdims=True)
    exponents = np.maximum(np.frexp(largest / np.float32(LARGEST + 0.5))[1], 0)
    steps = np.rint(np.ldexp(in_steps, -exponents))
    return np.concatenate([exponents, steps], axis=-1).astype(np.int8)


def from_latents(
    entries: Int8[np.ndarray, "*tokens stored"], latents: Latents
) -> Float32[np.ndarray, "*tokens channels"]:
    """Return stored tokens as numbers in PHI-S units: the inverse of `to_latents`, but for rounding.

    Args:
        entries: exponents and latents, as stored.
        latents: which latents these are.
    """
    return latents_in_steps(entries) @ latents.synthesis


def latents_in_steps(entries: Int8[np.ndarray, "*tokens stored"]) -> Float32[np.ndarray, "*tokens kept"]:
    """Return stored tokens as latents in steps: their numbers times the power of two of their token."""
    return np.ldexp(entries[..., 1:].astype(np.float32), entries[..., :1].astype(np.int32))


def fit_latents(
    variances: Float64[np.ndarray, " channels"], hadamard: Float64[np.ndarray, "channels channels"], fidelity: float
) -> Latents:
    """Choose the latents that are kept and their steps, so that features are stored at a fidelity.

    The step Δ is the largest for which the expected squared error, under Gaussian latents, is within the bound:

        Σ_kept E[(z − Δ_k round(z / Δ_k))²] + Σ_left out λ_k ≤ Σ λ_k / F

    Args:
        variances: λ, the variance of each latent (PHI-S units squared).
        hadamard: H: column k holds the share of each channel in latent k.
        fidelity: F (unitless).
    """
    most, low, high = variances.sum() / (fidelity * MARGIN), -30.0, 30.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _error(variances, 2.0**middle) <= most else (low, middle)
    step = 2.0**low
    kept = _kept(variances, step)
    return Latents(
        basis=np.sign(hadamard.T[kept]).astype(np.int8),
        steps=_steps(variances[kept], step) / np.sqrt(len(variances)),
    )


def _kept(variances: Float64[np.ndarray, " channels"], step: float) -> np.ndarray:
    return np.sqrt(variances) > LEAST_DEVIATION * step


def _steps(variances: Float64[np.ndarray, " kept"], step: float) -> Float64[np.ndarray, " kept"]:
    """Return the step of each latent: a power of two times the common one, so that a byte holds `REACH` deviations."""
    doublings = np.ceil(np.log2(REACH * np.sqrt(variances) / (LARGEST * step)))
    return step * 2.0 ** np.maximum(doublings, 0)


def _error(variances: Float64[np.ndarray, " channels"], step: float) -> float:
    """Return the expected squared error over all latents of a token (PHI-S units squared)."""
    kept = _kept(variances, step)
    deviations, steps = np.sqrt(variances[kept])[:, None], _steps(variances[kept], step)[:, None]
    numbers = deviations * _GRID
    error = numbers - steps * np.rint(numbers / steps)
    density = np.exp(-(_GRID**2) / 2)
    return float(((error**2) @ density).sum() / density.sum() + variances[~kept].sum())
