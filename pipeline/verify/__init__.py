"""The verify and gc commands: whether what is there is what was committed, and what nothing names.

Door: stage, leftovers, findings, text, options.
"""
