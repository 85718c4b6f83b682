"""The contract as values: keys, shapes, geometry, manifests, tables, and the bytes of a shard; nothing is read or written.

Door: all of it.
"""
