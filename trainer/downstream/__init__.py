"""Downstream tasks: what the features of a student or a teacher are good for, measured on the views of a cache.

Door: results, score_table, latency, latency_options, options, run.
"""
