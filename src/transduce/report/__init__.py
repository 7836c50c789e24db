"""The report of a run: curves, scores, predictions and attention in one HTML file."""

from __future__ import annotations

from transduce.report.page import write

__all__ = ["write"]
