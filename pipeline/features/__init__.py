"""The extract stage: run a teacher over views, fit and freeze PHI-S, write features.

Door: stage, options, calibration, forward, teacher, worker.
"""
