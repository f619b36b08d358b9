"""What leaves a report: CSV tables and Markdown summaries."""
