"""Scores of a student on held-out views: fidelity, summary angle, spectrum, scale variance.

Door: evaluate, scale_variance.
"""
