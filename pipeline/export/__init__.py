"""The export command: a subset of a cache, re-sharded or re-encoded, as a cache of its own.

Door: stage, options.
"""
