"""The commands `inspect` and `preview`: what is in a cache. They only read it.

Door: stage, options.
"""
