"""Exported students as programs of torch or ONNX, which need none of our code.

Door: portable, picture_size, options.
"""
