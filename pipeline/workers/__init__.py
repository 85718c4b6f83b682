"""Carrying tasks to processes, on this machine or on Ray, in order and with progress.

Door: open_pool, pool, ordered, prefetch, progress, device, installation, ray_gang.
"""
