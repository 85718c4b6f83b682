"""The inspect and preview commands: what is in a cache; they read only.

Door: cache, view, text, preview, contact_sheet, options.
"""
