"""The inspect and preview commands: what is in a cache; they read only.

Door: stage, options.
"""
