"""The report: the closing table as text, and one HTML page with pictures and curves that needs nothing beside it."""

from trainer.report.make import make_report as make_report

__all__ = ["make_report"]
