"""The report as one page: its parts, charts, queries, style and script."""
