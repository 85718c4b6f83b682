"""The views stage: draw what is cut from each image, cut it, write canvases and the tables of what came from where.

Door: stage, options, sampling, crop, placements, generations, extension, image_parts, rejected, tasks.
"""
