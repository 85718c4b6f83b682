"""The mathematics of PHI-S without a cache: moments, spectra, Hadamard matrices, the fit.

Door: fit, latents, moments, observe, spectrum, hadamard.

Only `observe` imports torch.
"""
