"""The command `plan`: what a run would make and what it would cost, as stated or as measured by a probe.

Door: stage, options.
"""
