"""A training run from start to end: checks, fitting, checkpoints, history, scores, loggers, processes.

Door: checkpoint, history, metrics, processes, train.
"""
