"""What is minimised: the losses of the papers, and the map from student tokens to teacher tokens.

Door: objective, losses, token_map.
"""
