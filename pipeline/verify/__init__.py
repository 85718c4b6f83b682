"""The commands `verify` and `gc`: whether a cache is still what was committed, and which objects nothing names.

Door: stage, gc, text, options.
"""
