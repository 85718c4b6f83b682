"""What a training run is asked for: frozen settings, checked when built.

Door: all of it.
"""
