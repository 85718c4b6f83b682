"""The report: the closing table as text, and one HTML page with pictures and curves that needs nothing beside it.

Door: make, options.
"""
