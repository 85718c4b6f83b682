"""One writer at a time: claims on a cache, on file systems and object stores.

Door: lease, claim, names.
"""
