"""The views stage: draw the views of each image, cut them, write canvases and the tables that say where each came from.

Door: stage, options, order, sampling, crop, placements, generations, split, accepted, extension, image_parts, rejected,
shard_task, tasks, evaluation_views.
"""
