"""How good a student is on held-out views: fidelity, angle, spectrum, scale variance.

Door: evaluate.
"""
