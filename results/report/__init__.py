"""A study as one page: the question, the answer in words, tables, plots, reliance, examples, recipe and provenance."""

from results.report.assembly import as_html
from results.report.content import Part, Report
from results.report.gather import build_report, read_source
from results.report.sections import headline

__all__ = ["Part", "Report", "as_html", "build_report", "headlines", "read_source"]


def headlines(report: Report) -> list[str]:
    """What each part of a report found, in words."""
    return [headline(part) for part in report.parts]
