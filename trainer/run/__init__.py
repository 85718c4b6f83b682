"""A training run from start to end: checkpoints, history, metrics, loggers, processes.

Door: train, checkpoint, history, metrics.
"""
