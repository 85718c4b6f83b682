"""Source images: where they are listed, how their bytes are read, and how bytes become pixels.

Door: listing, reader, decoding.
"""
