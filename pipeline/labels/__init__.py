"""The command `labels`: the labels of the images in DATA, as a CSV file that evaluation reads. No image is opened.

Door: stage, options.
"""
