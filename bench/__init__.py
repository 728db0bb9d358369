"""Measurements: what is timed, beside what, and where the results are written."""
