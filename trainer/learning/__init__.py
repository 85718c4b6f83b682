"""One training step: the Lightning module, learning rate and optimiser, moving average, DAMP, sharding.

Door: micro_batches, module, learning_rate, sharding, step_cost.
"""
