"""Source images: finding them in DATA, reading their bytes, and decoding bytes to pixels.

Door: listing, passed_over, reader, decoding, unusable, file_system, tar.
"""
