"""Everything that can be wrong with a folder of images and masks, found before it can hurt.

``gather`` decodes each file once (or remembers it), ``run_checks`` looks at what was found, by the table
``CHECKS``, and ``CheckReport`` says it.
"""

from fullyconv.datasets._checks._correction import Correction, write_corrected
from fullyconv.datasets._checks._evidence import Evidence, gather
from fullyconv.datasets._checks._facts import in_threads
from fullyconv.datasets._checks._masks import describe_unknown
from fullyconv.datasets._checks._problem import Problem
from fullyconv.datasets._checks._report import CheckReport, ClassShare, summarize
from fullyconv.datasets._checks._sheet import write_sheet
from fullyconv.datasets._checks._table import CHECKS, Check, run_checks

__all__ = [
    "CHECKS",
    "Check",
    "CheckReport",
    "ClassShare",
    "Correction",
    "Evidence",
    "Problem",
    "describe_unknown",
    "gather",
    "in_threads",
    "run_checks",
    "summarize",
    "write_corrected",
    "write_sheet",
]
