"""A run as one HTML file that needs no network: what was trained, how well it works, where it fails."""

from fullyconv.reports._findings import Findings, gather
from fullyconv.reports._page import render
from fullyconv.reports._runs import Run, read_run
from fullyconv.reports._write import Report, write_report

__all__ = ["Findings", "Report", "Run", "gather", "read_run", "render", "write_report"]
