"""The contract as values: keys, shapes, geometry, manifests, tables, the bytes of a shard. It reads and writes nothing.

Door: all of it.
"""
