"""The command `export`: a subset of a cache, in shards of another size or another encoding, as a cache of its own.

Door: stage, options.
"""
