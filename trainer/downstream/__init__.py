"""Downstream tasks: what the features of a student or a teacher are good for, measured on the views of a cache.

Door: during_training, labels, student_features, results, score_table, latency, latency_options, options, run.
"""
