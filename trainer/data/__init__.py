"""From a cache to batches: sources, the order of views, streaming, packing.

Door: source, set_source, dataset, batch, schedule, loader, datamodule.
"""
