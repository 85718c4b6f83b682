"""The contract as values: names, shapes, geometry, manifests, tables, the bytes of a shard. Nothing is read or written.

Door: all of it.
"""
