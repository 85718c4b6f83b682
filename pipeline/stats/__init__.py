"""The stats stage: measure what is stored, how far it is from PHI-S units, and how wide the summaries' cone is.

Door: stage, options, stored, facts, text.
"""
