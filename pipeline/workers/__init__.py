"""Workers: how a stage hands its tasks to worker processes, on this machine or on a Ray cluster, and shows progress.

Door: open_pool, pool, ordered, prefetch, progress, device, allocator, installation, ray_group,
interruption, worker_count.
"""
