"""From a cache to batches: what a cache holds, the order of its views, reading, reader processes.

Door: batch, datamodule, dataset, loader, order_types, schedule, set_source, source, view_dataset.
"""
