"""Vision transformers with RADIO's additions: cropped positions, a class token per teacher, registers, windows.

The rest of the room `student` imports: backbone, build, names, recompute, windows.
"""
