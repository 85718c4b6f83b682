"""What a cache is to hold and what it holds, by its manifests and its commit log. Nothing here imports torch.

Door: arrays, units, manifest_units, commit_log, present, unfinished, teacher_maps, inputs, commands.
"""
