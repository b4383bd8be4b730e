"""One file that tells everything about a search: what was found, how, and what it cost."""

from __future__ import annotations

import os
from pathlib import Path as FilePath

from nni_spos.errors import ExperimentError
from nni_spos.report.gathering import Report, gather_report

__all__ = ["Report", "gather_report", "write_report"]


def write_report(
    report: Report, file: str | os.PathLike[str] | None = None, format: str = "html"
) -> FilePath:
    """Write a report.

    Parameters
    ----------
    report
        What `gather_report` found.
    file
        Where it goes; by default ``report.html`` or ``report.md`` beside the search's journal.
    format
        ``html``, one file, or ``md``, whose charts go into the folder ``STEM_files`` beside it.

    Returns
    -------
    The file.

    Raises
    ------
    ExperimentError
        The format is unknown, or the file cannot be written.
    """
    # The charts need matplotlib, which the numbers do not.
    from nni_spos.report.rendering import FORMATS

    if format not in FORMATS:
        raise ExperimentError(f"format {format!r:.80} is unknown. Formats: {', '.join(FORMATS)}.")
    target = FilePath(file) if file else report.results.folder.report(format)
    FORMATS[format](report, target)
    return target
