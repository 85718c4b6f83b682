"""What evaluation needs beside features: the labels of images, and text vectors of class names. No image is opened.

Door: stage, text_vectors, options.
"""
