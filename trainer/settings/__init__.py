"""The settings of a training run: frozen dataclasses, checked when they are built.

Door: config, learning, running, stages, student, unrecorded.
"""
