"""The objective of training: the losses of the papers, and the map from student tokens to teacher tokens.

Door: batch_loss, losses, token_map, token_maps.
"""
