"""Starting weights: where a student's first weights come from, and how they are laid out in files.

Door: origin, radio_layout, start.
"""
