"""One training step: the Lightning module, optimiser, learning rate, moving average, DAMP, sharding.

Door: module, learning_rate, sharding.
"""
