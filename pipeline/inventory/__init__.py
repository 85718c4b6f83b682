"""What a cache should hold and what it holds, by its manifests and commit log; without torch.

Door: arrays, units, manifest_units, commit_log, unfinished, teacher_maps, inputs, commands.
"""
