"""Exported students in other formats (torch.export, ONNX, timm), which need no code of this project.

Door: image_size, options, write.
"""
