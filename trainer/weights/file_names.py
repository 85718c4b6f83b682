"""How files of weights are named."""

PICKLED = (".pth", ".pt", ".bin", ".tar")
"""Endings of files of PyTorch."""
SAFETENSORS = ".safetensors"
"""Ending of files of safetensors."""
STANDARD = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in a folder of the Hugging Face hub, the preferred first. Each may be an index of several files."""
CONFIG = "config.json"
"""What a folder of the Hugging Face hub says about its model."""
PIXELS = "preprocessor_config.json"
"""What a folder of the Hugging Face hub says about the pixels of its model."""
