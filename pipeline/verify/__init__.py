"""The commands `verify`, `gc` and `drop`: is a cache still what was committed, what is left over, take a teacher out.

Door: stage, gc, drop, text, options.
"""
