"""One training step: the Lightning module, learning rate and optimiser, moving average, DAMP, sharding.

Door: module, learning_rate, sharding.
"""
