"""Training on Ray: the trainer's own command, started in places that the cluster holds.

Door: stage, options.
"""
