"""`report.html`: what became of a model, in one file that needs no other."""

from irc.report.model import Findings, Report, collect
from irc.report.page import page, report_file, write_report

__all__ = ["Findings", "Report", "collect", "page", "report_file", "write_report"]
