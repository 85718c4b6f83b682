"""Sealing the commit log into snapshots: at the end of a run that wrote much, and by `make compact`.

Door: stage, options.
"""
