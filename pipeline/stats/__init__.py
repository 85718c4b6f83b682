"""The stats stage: measure all stored features: moments, PHI-S residuals, encoding errors, angular dispersion.

Door: stage, options, stored, facts, sizes, text.
"""
