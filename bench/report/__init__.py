"""The report: result files → one HTML page and the same as Markdown. Nothing is shown that is in no result file."""
