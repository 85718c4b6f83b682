"""The report: the closing table as text, and one HTML page with plots and pictures that needs no other file.

Door: families_table, make, options, run_list.
"""
