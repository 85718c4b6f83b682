"""Training on Ray: one process of `python -m trainer train` on each of a group of workers.

Door: stage, options.
"""
