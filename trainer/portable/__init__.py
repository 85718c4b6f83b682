"""Exported students in other formats (torch.export, ONNX, timm), which need no code of this project.

<<<<<<< HEAD
Door: image_size, options, write.
=======
Door: portable, picture_size, options.
>>>>>>> cc5e821ee08500c898326e2f256bca45c6715a85
"""
