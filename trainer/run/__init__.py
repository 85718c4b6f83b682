"""A training run from start to end: checks, fitting, checkpoints, history, scores, loggers, processes.

Door: checkpoint, history_rows, metrics, processes, sessions, step_plan, train.
"""
