"""The plan command: what a run would make and cost, stated or measured by a probe.

Door: stage, options.
"""
